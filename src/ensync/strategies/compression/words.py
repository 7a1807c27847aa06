"""Numbers as words of fewer bits."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np

LARGEST = 127  # in size, of int8 numbers
PIECE = 1 << 14  # numbers at once, so that what is between two operations stays in the cache
_TINY = np.finfo(np.float32).tiny  # scales below it have too few digits: what they are of is kept
_QUIET = np.uint16(0x0040)  # the bit that makes a bf16 number with infinite exponent none


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
            numbers = values[piece].astype(np.float32, copy=False)
            bits = numbers.view(np.uint32)
            rounded = bits >> 16
            rounded &= 1
            rounded += 0x7FFF
            rounded += bits
            rounded >>= 16
            halves[piece] = rounded
            if np.isnan(numbers.max()):  # rounding could carry into its exponent and sign
                lost = np.isnan(numbers)
                halves[piece][lost] = (bits[lost] >> 16).astype(np.uint16) | _QUIET

    def decode(self, words: np.ndarray, values: np.ndarray) -> None:
        """Append 16 zero bits to each word."""
        halves = words.view(np.uint16)
        found = values if values.dtype == np.float32 else np.empty(len(values), np.float32)
        for start in range(0, len(values), PIECE):
            bits = found[start : start + PIECE].view(np.uint32)
            bits[:] = halves[start : start + PIECE]
            bits <<= 16
        if found is not values:
            values[:] = found


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
        """Round to nearest. What is not finite makes its block not finite."""
        scales, numbers = self._parts(words, len(values))
        for rows, piece in self._pieces(len(values)):
            block = self._whole(values[piece]).astype(np.float32, copy=False)
            scale = np.maximum(block.max(axis=1), -block.min(axis=1)) / np.float32(LARGEST)
            with np.errstate(invalid="ignore"):
                units = block / np.where(scale > _TINY, scale, np.float32(np.inf))[:, None]
                np.rint(units, out=units)
                numbers[piece] = units.ravel()[: len(values[piece])]
            scales[rows] = scale

    def decode(self, words: np.ndarray, values: np.ndarray) -> None:
        """Multiply by the scales."""
        scales, numbers = self._parts(words, len(values))
        for rows, piece in self._pieces(len(values)):
            found = self._whole(numbers[piece])
            with np.errstate(invalid="ignore"):
                values[piece] = (found * scales[rows, None]).ravel()[: len(values[piece])]

    def _whole(self, values: np.ndarray) -> np.ndarray:
        """Return values (n,) as blocks (rows, block), the last with zeros behind them."""
        if len(values) % self._block:
            rows = -(-len(values) // self._block)
            values = np.append(values, np.zeros(rows * self._block - len(values), values.dtype))
        return values.reshape(-1, self._block)

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
