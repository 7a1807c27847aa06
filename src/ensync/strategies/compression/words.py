"""Numbers as words of fewer bits."""

from typing import Protocol

import numpy as np

PIECE = 1 << 14  # numbers at once, so that what is between two operations stays in the cache
_SIGN_OFF, _INFINITE, _QUIET = np.uint32(0x7FFFFFFF), np.uint32(0x7F800000), np.uint16(0x0040)


class Code(Protocol):
    """A way to write numbers as words."""

    def nbytes(self, n: int) -> int:
        """Return how many bytes n numbers take; even."""
        ...

    def encode(self, values: np.ndarray, words: np.ndarray) -> None:
        """Write values (n,) float32 or float64 as words uint8 (nbytes(n),)."""
        ...

    def decode(self, words: np.ndarray, values: np.ndarray) -> None:
        """Write what the words stand for to values (n,)."""
        ...


class Bf16:
    """The upper half of each float32, rounded to nearest, ties to even."""

    def nbytes(self, n: int) -> int:
        """2 each."""
        return 2 * n

    def encode(self, values: np.ndarray, words: np.ndarray) -> None:
        """Round. What is not a number stays so; beyond the largest bf16 number is infinity."""
        halves = words.view(np.uint16)
        for start in range(0, len(values), PIECE):
            piece = slice(start, start + PIECE)
            bits = values[piece].astype(np.float32, copy=False).view(np.uint32)
            rounded = bits >> 16
            rounded &= 1
            rounded += 0x7FFF
            rounded += bits
            rounded >>= 16
            halves[piece] = rounded
            lost = (bits & _SIGN_OFF) > _INFINITE
            if lost.any():  # rounding could carry into the exponent and the sign
                halves[piece][lost] = (bits[lost] >> 16).astype(np.uint16) | _QUIET

    def decode(self, words: np.ndarray, values: np.ndarray) -> None:
        """Append 16 zero bits to each word."""
        halves = words.view(np.uint16)
        for start in range(0, len(values), PIECE):
            bits = halves[start : start + PIECE].astype(np.uint32)
            bits <<= 16
            values[start : start + PIECE] = bits.view(np.float32)
