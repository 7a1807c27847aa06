"""bf16 numbers by numpy, which has no such type."""

import numpy as np


def rounded(values):
    """The nearest bf16 number, the even one of two, as float32."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).view(np.float32)


def narrow(values):
    """Numbers as the kernels keep them in memory: bf16, in uint16."""
    return (rounded(values).view(np.uint32) >> 16).astype(np.uint16)


def widened(halves):
    return (halves.astype(np.uint32) << 16).view(np.float32)
