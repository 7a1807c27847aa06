"""Convolution in groups: each group's channels are laid out by themselves, which is little beside
its products, and convolved as if there were no others.

Scratch: one group's images, outputs and filters, then that of their convolution.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from math import prod

import numpy as np
from numba import njit, prange

from ensync.kernels.options import KERNEL
from ensync.kernels.simd.intrinsics import lanes, pointer
from ensync.kernels.simd.vectors import load, store

BLOCK = 256  # rows that a thread copies at a time
LINE = 16  # float32 in a cache line
# A pass of one group: of (images, filters, bias, scratch, outputs), or of (images, gradient,
# scratch, filters' gradient).
Pass = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray], None]
GradientPass = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], None]


@njit(parallel=True, **KERNEL)
def copy_columns(source, first, target, to, count):
    """Write columns first .. first + count of source (rows, a) to columns to .. to + count of
    target (rows, b).
    """
    (rows, a), b, full = source.shape, target.shape[1], lanes(source)
    for block in prange((rows + BLOCK - 1) // BLOCK):
        for row in range(block * BLOCK, min(rows, (block + 1) * BLOCK)):
            given, kept = pointer(source, row * a + first), pointer(target, row * b + to)
            for j in range(0, count, full):
                store(kept, j, load(given, j, min(full, count - j)), min(full, count - j))


@dataclass(frozen=True)
class Groups:
    """The sizes of a convolution in `count` groups: its filters (kh, kw), input and output channels
    of one group, pixels of an image and of its outputs.
    """

    count: int
    filter: tuple[int, int]
    inputs: int
    outputs: int
    pixels: int
    output_pixels: int

    def _places(self, rows: int) -> list[int]:
        """Return where, in the scratch for so many images, the outputs, the filters and the
        convolution's own scratch begin: on whole lines.
        """
        sizes = (
            rows * self.pixels * self.inputs,
            rows * self.output_pixels * self.outputs,
            prod(self.filter) * self.inputs * self.outputs,
        )
        return list(accumulate(-(-size // LINE) * LINE for size in sizes))

    def scratch_size(self, rows: int) -> int:
        """Elements of scratch for so many images, but for that of a group's convolution."""
        return self._places(rows)[-1]

    def rooms(
        self, scratch: np.ndarray, images: np.ndarray, outputs: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return the scratch of a convolution, and room for one group's images, outputs and
        filters, of arrays (n, h, w, channels).
        """
        shapes = (
            (*images.shape[:3], self.inputs),
            (*outputs.shape[:3], self.outputs),
            (*self.filter, self.inputs, self.outputs),
        )
        *starts, rest = 0, *self._places(len(images))
        return scratch[rest:], *(
            scratch[start : start + prod(shape)].reshape(shape)
            for start, shape in zip(starts, shapes, strict=True)
        )


def _take(source: np.ndarray, group: int, target: np.ndarray) -> None:
    """Copy a group's channels, the last axis, to an array of their own."""
    width = target.shape[-1]
    copy_columns(
        source.reshape(-1, source.shape[-1]), group * width, target.reshape(-1, width), 0, width
    )


def _put(source: np.ndarray, group: int, target: np.ndarray) -> None:
    """Copy an array of one group's channels to their place among all."""
    width = source.shape[-1]
    copy_columns(
        source.reshape(-1, width), 0, target.reshape(-1, target.shape[-1]), group * width, width
    )


def convolve(
    groups: Groups,
    of_group: Pass,
    inputs: np.ndarray,
    weights: np.ndarray,
    bias: np.ndarray,
    turned: bool,
    scratch: np.ndarray,
    outputs: np.ndarray,
) -> None:
    """Convolve group by group; `turned`: inputs have the channels of the outputs, and the
    reverse.
    """
    given, written = (outputs, inputs) if turned else (inputs, outputs)
    rest, images, products, filters = groups.rooms(scratch, given, written)
    source, target = (products, images) if turned else (images, products)
    width = target.shape[-1]
    for group in range(groups.count):
        _take(inputs, group, source)
        _take(weights, group, filters)
        of_group(source, filters, bias[group * width : (group + 1) * width], rest, target)
        _put(target, group, outputs)


def weight_gradient(
    groups: Groups,
    of_group: GradientPass,
    inputs: np.ndarray,
    gradient: np.ndarray,
    scratch: np.ndarray,
    out: np.ndarray,
) -> None:
    """Write the gradient of the filters, group by group."""
    rest, images, slopes, filters = groups.rooms(scratch, inputs, gradient)
    for group in range(groups.count):
        _take(inputs, group, images)
        _take(gradient, group, slopes)
        of_group(images, slopes, rest, filters)
        _put(filters, group, out)
