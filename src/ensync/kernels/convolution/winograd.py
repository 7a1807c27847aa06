"""3x3 convolution at stride 1 by Winograd's minimal filtering F(4x4, 3x3) (Lavin and Gray 2016): 4
times fewer multiplications.

A tile of 4x4 outputs y needs a 6x6 tile d of the inputs and the filter w:  y = A' [(G w G') * (B' d
B)] A  (' = transposed). Its transposed form gives the filter's gradient:  dw = G' [(A dy A') * (B'
d B)] G. The products in brackets, per pair of channels and each of the 36 points, become 36 matrix
products over channels (or over tiles, for the filter's gradient). Where sides are no multiples of
four, tiles of three outputs go without one of the six points of that dimension, that is F(3, 3)
with the filters of F(4, 3): `winograd_tiling` orders the tiles so that each point's products are of
those that need it.

Scratch, of `scratch_size`: the transformed filter, then for each thread a buffer, its transformed
tiles and their products. `bf16`: None, or a flag for those matrix products in bf16
(simd/operands.py); then the numbers of input and output channels are multiples of a vector's lanes.
"""

from math import prod

import numba
import numpy as np

from ensync.kernels.convolution.parts import parts_of
from ensync.kernels.convolution.winograd_gradient import filter_gradient, filter_gradient_by_parts
from ensync.kernels.convolution.winograd_products import (
    TILES,
    WIDE_TILES,
    convolve_blocks,
    convolve_shared,
    transform_shared_inputs,
)
from ensync.kernels.convolution.winograd_transforms import POINTS, transform_filter, turn_filter
from ensync.kernels.flags import Flag, flag
from ensync.kernels.simd.host import lanes_of
from ensync.kernels.simd.operands import terms_of
from ensync.kernels.simd.panels import VECTORS, panel_width

WIDE_FROM = 128 * 128 + 1  # input times output channels
LEAST_PANELS, ITEMS = 2, 16  # of the filter at a time, and points times panels per thread
# Transformed at once for the filter's gradient: they stay in two second caches.
GRADIENT_VALUES = 1 << 19
# Values of tiles that a part with sums of its own transforms at once, which stay in a second cache
# of 1 MiB, and sums up to which parts pay.
PART_VALUES, PART_SUMS = 1 << 17, 1 << 20


def convolve(
    inputs: np.ndarray,
    weights: np.ndarray,
    bias: np.ndarray,
    padding: tuple[int, int],
    floor: np.floating,
    turned: bool,
    scratch: np.ndarray,
    outputs: np.ndarray,
    bf16: bool | None = None,
) -> None:
    """Write the convolution plus bias, not below floor, to outputs; `turned`: with the filters
    of the input gradient.
    """
    if turned:
        c, k = weights.shape[2:]
        turned_weights = scratch[scratch.size - weights.size :].reshape(3, 3, k, c)
        turn_filter(weights, turned_weights.reshape(-1))
        weights = turned_weights
    c, k = weights.shape[2:]
    if is_wide(c, k):
        _convolve_wide(inputs, weights, bias, padding, floor, scratch, outputs, flag(bf16))
    else:
        transform_filter(weights, (0, k), scratch, flag(bf16))
        convolve_blocks(inputs, k, bias, padding, floor, scratch, outputs, flag(bf16))


def _convolve_wide(
    inputs: np.ndarray,
    weights: np.ndarray,
    bias: np.ndarray,
    padding: tuple[int, int],
    floor: np.floating,
    scratch: np.ndarray,
    outputs: np.ndarray,
    bf16: Flag | None,
) -> None:
    """Convolve with filters that are large once transformed: some outputs' at a time, so that
    they and the products stay in the caches.
    """
    (c, k), full = weights.shape[2:], lanes_of(weights.itemsize)
    threads = numba.config.NUMBA_NUM_THREADS
    tiles, terms = tiles_of(outputs), terms_of.py_func(c, bf16)
    filters = scratch[POINTS * (threads * full + WIDE_TILES * terms + full) :]
    step = columns_together(tiles, WIDE_TILES, k, full)
    if step >= k:
        transform_filter(weights, (0, k), filters, bf16)
    for start in range(0, tiles, WIDE_TILES):
        transform_shared_inputs(inputs, outputs, start, padding, scratch, threads, bf16)
        for first in range(0, k, step):
            columns = first, min(k, first + step)
            if step < k:
                transform_filter(weights, columns, filters, bf16)
            convolve_shared(inputs, outputs, start, columns, bias, floor, scratch, threads, bf16)


def weight_gradient(
    inputs: np.ndarray,
    gradient: np.ndarray,
    padding: tuple[int, int],
    scratch: np.ndarray,
    out: np.ndarray,
    bf16: bool | None = None,
) -> None:
    """Write the gradient of the filters to out (3, 3, c, k)."""
    (c, k), total, threads = out.shape[2:], tiles_of(gradient), numba.config.NUMBA_NUM_THREADS
    parts = gradient_parts(inputs.shape, gradient.shape)
    if parts > 1:
        tiles = _evenly(-(-total // parts), part_tiles(c, k))
        filter_gradient_by_parts(inputs, gradient, padding, parts, tiles, scratch, out, flag(bf16))
        return
    tiles = _evenly(total, gradient_tiles(c, k))
    step = columns_together(total, tiles, k, lanes_of(out.itemsize)) if is_wide(c, k) else k
    filter_gradient(
        inputs,
        gradient,
        padding,
        threads,
        tiles,
        step,
        is_wide(c, k),
        scratch,
        out,
        flag(bf16),
    )


def _evenly(total: int, most: int) -> int:
    """Return how many tiles, an even number of at most so many, all but the last block takes."""
    blocks = -(-total // most)
    return -(-total // (2 * blocks)) * 2


def gradient_parts(inputs: tuple[int, ...], outputs: tuple[int, ...]) -> int:
    """Return in how many parts the tiles of images (n, h, w, c) with outputs (n, oh, ow, k) have
    sums of their own.
    """
    sums = POINTS * inputs[3] * outputs[3]
    if sums > PART_SUMS:
        return 1
    return parts_of(inputs[0], (prod(inputs) + prod(outputs)) // 2, sums)


def part_tiles(c: int, k: int) -> int:
    """Return how many tiles a part transforms at once, an even number."""
    return max(TILES, PART_VALUES // (POINTS * (c + k)) // 2 * 2)


def tiles_of(outputs: np.ndarray) -> int:
    """Return how many tiles cover outputs (n, h, w, channels)."""
    return len(outputs) * -(-outputs.shape[1] // 4) * -(-outputs.shape[2] // 4)


def columns_together(tiles: int, block: int, k: int, full: int) -> int:
    """Return for how many of k output channels at a time the products of a large filter are
    computed.

    So many panels that its threads share them evenly where there is one block of tiles; all where
    each block would transform the filters anew.
    """
    panels = max(LEAST_PANELS, -(-ITEMS * numba.get_num_threads() // POINTS))
    return min(k, panels * panel_width.py_func(k, full)) if tiles <= block else k


def is_wide(c: int, k: int) -> bool:
    """Whether the transformed filter is too large to be read for every few tiles."""
    return c * k >= WIDE_FROM


def gradient_tiles(c: int, k: int) -> int:
    """Return how many tiles are transformed at once for the filter's gradient, an even number."""
    return (
        WIDE_TILES
        if is_wide(c, k)
        else max(TILES, GRADIENT_VALUES // (POINTS * (c + k)) // TILES * TILES)
    )


def scratch_size(
    inputs: tuple[int, ...], outputs: tuple[int, ...], threads: int, itemsize: int
) -> int:
    """Return the elements of scratch that the three passes of images (n, h, w, c) with outputs (n,
    oh, ow, k) need, and those of fewer.
    """
    (c, k), full = (inputs[3], outputs[3]), lanes_of(itemsize)
    c_whole, k_whole = (-(-channels // (VECTORS * full)) * VECTORS * full for channels in (c, k))
    blocks, tiles = (1, WIDE_TILES) if is_wide(c, k) else (threads, TILES)
    forward = blocks * (tiles * (c_whole + k_whole) + 2 * full)
    gradient = gradient_tiles(c, k) * (c_whole + k_whole) + 2 * full
    apart = threads * (part_tiles(c, k) * (c_whole + k_whole) + 3 * full)
    apart += gradient_parts(inputs, outputs) * (c_whole * k_whole + full)
    most = max(forward, gradient, apart)
    rest = max(9 * c * k, VECTORS * full)
    return POINTS * (c_whole * k_whole + (threads + 1) * full + most) + rest
