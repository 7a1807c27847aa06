"""What bf16 is worth on this CPU: some have the instructions, but at less than float32's speed."""

from time import perf_counter

import numpy as np
from numba import njit

from ensync.kernels.flags import Flag, flag
from ensync.kernels.options import KERNEL
from ensync.kernels.simd.intrinsics import lanes, pointer
from ensync.kernels.simd.panels import ROWS, VECTORS, Strides, panel

PANEL = panel(started=False)
TERMS, TIMES, TRIES = 64, 100, 5


@njit(**KERNEL)
def _products(a, b, c, terms, times, bf16):
    width, to = VECTORS * lanes(a), pointer(c, 0)
    for _ in range(times):
        strides = Strides(terms, 1, width, 0, width)
        PANEL(pointer(a, 0), pointer(b, 0), to, to, terms, strides, bf16)


def bf16_gain() -> float:
    """Return how many times as fast as in float32 products are in bf16, measured for a few
    tenths of a millisecond.
    """
    width = VECTORS * 16
    a, b, c = (
        np.zeros(rows * width, np.float32) for rows in (ROWS * TERMS // width + 1, TERMS, ROWS)
    )
    seconds = []
    for bf16, terms in ((None, TERMS), (flag(True), TERMS // 2)):
        _products(a, b, c, terms, 1, bf16)
        seconds.append(min(_time(a, b, c, terms, bf16) for _ in range(TRIES)))
    return seconds[0] / seconds[1]


def _time(a: np.ndarray, b: np.ndarray, c: np.ndarray, terms: int, bf16: Flag | None) -> float:
    begin = perf_counter()
    _products(a, b, c, terms, TIMES, bf16)
    return perf_counter() - begin
