"""The gradient of a convolution's filters by matrix tiles (tiled.py): sums over pixels.

The frame is transposed for that, so that the pixels of a channel are neighbours, and the outputs'
gradient is laid out on the frame's pixels, with zeros outside. At a stride there is a frame for
each of stride * stride phases, in which neighbouring outputs read neighbouring pixels. Some images
are laid out at a time, as many as the caches hold; threads share the filter's blocks, so that their
number changes no sum.
"""

from typing import NamedTuple

import numba
from numba import njit, prange

from ensync.kernels.convolution.tiled import (
    ROWS,
    Plane,
    Sizes,
    copy,
    fill,
    multiply,
    pitch_of,
    whole,
)
from ensync.kernels.options import INNER, KERNEL
from ensync.kernels.simd.intrinsics import lanes, pointer, transpose_block
from ensync.kernels.simd.matrix_tiles import (
    SIDE,
    TERMS,
    Strides,
    end_tiles,
    start_tiles,
    tile_product,
)
from ensync.kernels.simd.panels import panel_width
from ensync.kernels.simd.vectors import advance, as_bf16, load, load_pair, pair, store

ADD_WIDE, ADD_SHORT = tile_product(True), tile_product(True, 1, 2)
ADD_NARROW, ADD_SMALL = tile_product(True, 2, 1), tile_product(True, 1, 1)
# Words of the images that are laid out together for the filter's gradient, 1 MiB; but as many
# images that a sum has so many steps.
BLOCK, LEAST_STEPS = 1 << 18, 32
LEAST_BLOCKS = 4  # of the filter's, from which threads take whole lines of it


class Layout(NamedTuple):
    """How the operands of the filter's gradient lie in the scratch, in elements of four bytes.

    pixels, reach: of an image's outputs on the frame, and of the frame; images: that are laid out
    together; channels: of the inputs, whole tiles; columns: of the outputs, whole panels. row: from
    channel to channel; plane: from phase to phase; gradients_at, sums_at, frames_at: where the
    outputs' gradients, the sums and the threads' frames begin.
    """

    pitch: int
    pixels: int
    reach: int
    images: int
    channels: int
    columns: int
    row: int
    plane: int
    gradients_at: int
    sums_at: int
    frames_at: int


@njit(**KERNEL)
def _layout(n, image, taps, outputs, stride, left):
    """Return the Layout of the filter's gradient for n images (h, w, c)."""
    (_, w, c), (kh, kw), (oh, ow, k) = image, taps, outputs
    pitch = pitch_of(w, left, ow, kw, stride)
    pixels = whole(oh * pitch, TERMS)
    reach = whole(pixels + (kh - 1) // stride * pitch + (kw - 1) // stride, TERMS)
    channels, columns = whole(c, SIDE), whole(k, panel_width(k, SIDE))
    phases = min(stride, kh) * min(stride, kw)
    most = max(
        BLOCK // (phases * channels * reach // 2 + columns * pixels // 2),
        (LEAST_STEPS * TERMS + pixels - 1) // pixels,
    )
    images = min(n, most)
    # Rows that are a power of two apart would share few sets of a cache: a line more.
    row = images * reach // 2 + SIDE
    gradients_at = phases * channels * row
    sums_at = gradients_at + images * pixels // 2 * columns
    return Layout(
        pitch,
        pixels,
        reach,
        images,
        channels,
        columns,
        row,
        channels * row,
        gradients_at,
        sums_at,
        sums_at + kh * kw * channels * columns,
    )


@njit(**INNER)
def _transpose(frame, target, tile, c, layout):
    """Write a frame (pixels, c) as bf16 pairs of pixels of each channel, (channels, pixels / 2), of
    which those beyond c are any. tile: SIDE times SIDE elements.
    """
    for first in range(0, layout.reach, TERMS):
        for channel in range(0, layout.channels, SIDE):
            for i in range(SIDE):
                at = (first + 2 * i) * c + channel
                store(tile, i * SIDE, load_pair(tile, frame, at, at + c), SIDE)
            to = advance(target, channel * layout.row + first // 2)
            transpose_block(tile, SIDE, to, layout.row)


@njit(**INNER)
def _pair_pixels(source, target, sizes, layout):
    """Write an image's gradient (oh, ow, k) as pairs of pixels of the frame, (panels, images,
    pixels / 2, width), with zeros outside of the outputs.
    """
    ow, k, width, pitch = sizes.ow, sizes.k, sizes.width, layout.pitch
    full = lanes(source)
    panel = layout.images * layout.pixels // 2 * width
    for j in range(0, layout.columns, full):
        count = max(0, min(full, k - j))
        to = advance(target, j // width * panel + j % width)
        y = x = 0
        for i in range(layout.pixels // 2):
            above = load(source, (y * ow + x) * k + j, count if y < sizes.oh and x < ow else 0)
            x += 1
            if x == pitch:
                x, y = 0, y + 1
            below = load(source, (y * ow + x) * k + j, count if y < sizes.oh and x < ow else 0)
            x += 1
            if x == pitch:
                x, y = 0, y + 1
            store(to, i * width, pair(above, below), full)


@njit(**INNER)
def _add_taps(planes, gradients, sums, first, end, block, added, images, sizes, layout):
    """Write or add to the sums of filter taps first .. end, for a block = (first channel, first
    column).
    """
    kw, stride, width = sizes.kw, sizes.stride, sizes.width
    across = min(stride, kw)
    rows = min(ROWS, layout.channels - block[0])
    b = advance(gradients, block[1] * (layout.images * layout.pixels // 2))
    strides = Strides(
        outer=images,
        inner=layout.pixels // TERMS,
        a_outer=layout.reach,
        a_row=2 * layout.row,
        b_outer=layout.pixels // 2 * width,
        b_row=width,
        c_row=layout.columns,
    )
    for tap in range(first, end):
        ky, kx = tap // kw, tap % kw
        plane = advance(planes, (ky % stride * across + kx % stride) * layout.plane)
        a = advance(as_bf16(advance(plane, block[0] * layout.row)), ky // stride * layout.pitch)
        a = advance(a, kx // stride)
        c = advance(sums, (tap * layout.channels + block[0]) * layout.columns + block[1])
        if added:
            _multiply_add(a, b, c, strides, rows, width)
        else:
            multiply(a, b, c, strides, rows, width)


@njit(forceinline=True, **INNER)
def _multiply_add(a, b, c, strides, rows, width):
    """As `multiply`, added to C."""
    if width == SIDE:
        if rows > SIDE:
            ADD_NARROW(a, b, c, strides)
        else:
            ADD_SMALL(a, b, c, strides)
    elif rows > SIDE:
        ADD_WIDE(a, b, c, strides)
    else:
        ADD_SHORT(a, b, c, strides)


@njit(parallel=True, **KERNEL)
def filter_gradient(inputs, gradient, stride, padding, scratch, out):
    """Write the filters' gradient to out (kh, kw, c, k). Inputs and gradient: float32 or bf16."""
    (n, h, w, c), (oh, ow, k), (kh, kw) = inputs.shape, gradient.shape[1:], out.shape[:2]
    full, width = lanes(scratch), panel_width(k, lanes(scratch))
    down, across = min(stride, kh), min(stride, kw)
    all_of = _layout(n, (h, w, c), (kh, kw), (oh, ow, k), stride, padding[1])
    together, channels, columns = all_of.images, all_of.channels, all_of.columns
    gradients_at, sums_at, frames_at = all_of.gradients_at, all_of.sums_at, all_of.frames_at
    share = whole((all_of.reach + 2) * c + full, 2 * full) // 2 + full * full
    blocks = (channels + ROWS - 1) // ROWS * (columns // width)
    taps = kw if blocks >= LEAST_BLOCKS else 1
    parts = kh * kw // taps
    for start in range(0, n, together):
        images = min(together, n - start)
        for item in prange(images * (down * across + 1)):
            image, phase = item // (down * across + 1), item % (down * across + 1)
            layout = _layout(n, (h, w, c), (kh, kw), (oh, ow, k), stride, padding[1])
            if phase == down * across:
                _pair_pixels(
                    pointer(gradient, (start + image) * oh * ow * k),
                    pointer(scratch, gradients_at + image * (layout.pixels // 2) * width),
                    Sizes(kh, kw, stride, oh, ow, k, width),
                    layout,
                )
            else:
                tile = pointer(scratch, frames_at + numba.get_thread_id() * share)
                frame = as_bf16(advance(tile, full * full))
                fill(
                    pointer(inputs, (start + image) * h * w * c),
                    frame,
                    Plane(
                        h,
                        w,
                        c,
                        oh + (kh - 1) // stride,
                        layout.pitch,
                        stride,
                        phase // across - padding[0],
                        phase % across - padding[1],
                        layout.reach + 2,
                    ),
                )
                to = pointer(scratch, phase * layout.plane + image * (layout.reach // 2))
                _transpose(frame, to, tile, c, layout)
        for item in prange(blocks * parts):
            block, part = item // parts, item % parts
            layout = _layout(n, (h, w, c), (kh, kw), (oh, ow, k), stride, padding[1])
            start_tiles()
            _add_taps(
                pointer(scratch, 0),
                pointer(scratch, gradients_at),
                pointer(scratch, sums_at),
                part * taps,
                (part + 1) * taps,
                (block // (columns // width) * ROWS, block % (columns // width) * width),
                start > 0,
                images,
                Sizes(kh, kw, stride, oh, ow, k, width),
                layout,
            )
            end_tiles()
    for item in prange(kh * kw * c):
        line = item // c * channels + item % c
        copy(pointer(scratch, sums_at + line * columns), pointer(out, item * k), k)


def scratch_size(
    image: tuple[int, int, int],
    taps: tuple[int, int],
    outputs: tuple[int, int, int],
    stride: int,
    padding: tuple[int, int],
    rows: int,
) -> int:
    """Return the elements of scratch, of four bytes, for so many images (h, w, c) and outputs (oh,
    ow, k), on all threads of this process.
    """
    layout = _layout.py_func(max(rows, 1), image, taps, outputs, stride, padding[1])
    frame = whole.py_func((layout.reach + 2) * image[2] + SIDE, 2 * SIDE) // 2
    return layout.frames_at + numba.config.NUMBA_NUM_THREADS * (frame + SIDE * SIDE)
