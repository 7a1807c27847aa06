"""3x3 convolution in groups by Winograd's algorithm: each group's channels are laid out by
themselves, which is little beside its products.

Scratch: one group's images, outputs and filters, then that of their convolution.
"""

from dataclasses import dataclass
from itertools import accumulate
from math import prod

import numpy as np
from numba import njit, prange

from ensync.kernels.convolution import winograd
from ensync.kernels.options import KERNEL
from ensync.kernels.simd.intrinsics import lanes, pointer
from ensync.kernels.simd.vectors import load, store

BLOCK = 256  # rows that a thread copies at a time
LINE = 16  # float32 in a cache line


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
    """The sizes of a 3x3 convolution in `count` groups: input and output channels of one, pixels
    of an image and of its outputs.
    """

    count: int
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
            9 * self.inputs * self.outputs,
        )
        return list(accumulate(-(-size // LINE) * LINE for size in sizes))

    def scratch_size(self, rows: int, threads: int, itemsize: int) -> int:
        """Elements of scratch for so many images."""
        return self._places(rows)[-1] + winograd.scratch_size(
            self.inputs, self.outputs, threads, itemsize
        )

    def rooms(
        self, scratch: np.ndarray, images: np.ndarray, outputs: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return the scratch of a convolution, and room for one group's images, outputs and
        filters, of arrays (n, h, w, channels).
        """
        shapes = (
            (*images.shape[:3], self.inputs),
            (*outputs.shape[:3], self.outputs),
            (3, 3, self.inputs, self.outputs),
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
    inputs: np.ndarray,
    weights: np.ndarray,
    bias: np.ndarray,
    padding: tuple[int, int],
    floor: np.floating,
    turned: bool,
    scratch: np.ndarray,
    outputs: np.ndarray,
    bf16: bool | None,
) -> None:
    """As `winograd.convolve`, group by group; `turned`: inputs have the channels of the outputs,
    and the reverse.
    """
    given, written = (outputs, inputs) if turned else (inputs, outputs)
    rest, images, products, filters = groups.rooms(scratch, given, written)
    source, target = (products, images) if turned else (images, products)
    width = target.shape[-1]
    for group in range(groups.count):
        _take(inputs, group, source)
        _take(weights, group, filters)
        winograd.convolve(
            source,
            filters,
            bias[group * width : (group + 1) * width],
            padding,
            floor,
            turned,
            rest,
            target,
            bf16,
        )
        _put(target, group, outputs)


def weight_gradient(
    groups: Groups,
    inputs: np.ndarray,
    gradient: np.ndarray,
    padding: tuple[int, int],
    scratch: np.ndarray,
    out: np.ndarray,
    bf16: bool | None,
) -> None:
    """As `winograd.weight_gradient`, group by group."""
    rest, images, slopes, filters = groups.rooms(scratch, inputs, gradient)
    for group in range(groups.count):
        _take(inputs, group, images)
        _take(gradient, group, slopes)
        winograd.weight_gradient(images, slopes, padding, rest, filters, bf16)
        _put(filters, group, out)
