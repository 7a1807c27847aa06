"""Numbers as words of fewer bits."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np

LARGEST = 127  # in size, of int8 numbers
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


class Int8:
    """A whole number from -127 to 127 each, and a float32 for `block` neighbours: their largest in
    size, of which 127 is 1/127.
    """

    def __init__(self, block: int) -> None:
        self._block = block

    def nbytes(self, n: int) -> int:
        """1 each, and 4 a block; whole words of 4."""
        return 4 * -(-n // self._block) + 4 * -(-n // 4)

    def encode(self, values: np.ndarray, words: np.ndarray) -> None:
        """Round to nearest. What is not finite makes its block not a number."""
        scales, numbers = self._parts(words, len(values))
        for rows, piece in self._pieces(len(values)):
            block = np.zeros((len(scales[rows]), self._block), np.float32)
            block.ravel()[: len(values[piece])] = values[piece]
            scale = np.abs(block).max(axis=1) / np.float32(LARGEST)
            with np.errstate(invalid="ignore"):
                block /= np.where(scale > 0, scale, np.float32(1))[:, None]
                np.clip(np.rint(block, out=block), -LARGEST, LARGEST, out=block)
                numbers[piece] = block.ravel()[: len(values[piece])]
            scales[rows] = scale

    def decode(self, words: np.ndarray, values: np.ndarray) -> None:
        """Multiply by the scales."""
        scales, numbers = self._parts(words, len(values))
        for rows, piece in self._pieces(len(values)):
            scale = np.repeat(scales[rows], self._block)[: len(values[piece])]
            with np.errstate(invalid="ignore"):
                values[piece] = np.where(np.isfinite(scale), numbers[piece] * scale, np.nan)

    def _parts(self, words: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
        scales = 4 * -(-n // self._block)
        return words[:scales].view(np.float32), words[scales : scales + n].view(np.int8)

    def _pieces(self, n: int) -> Iterator[tuple[slice, slice]]:
        """Yield pieces of n numbers, as blocks and as numbers."""
        blocks = max(1, PIECE // self._block)
        for first in range(0, -(-n // self._block), blocks):
            yield (
                slice(first, first + blocks),
                slice(first * self._block, (first + blocks) * self._block),
            )
