"""Convolution of bf16 numbers by matrix tiles (simd/matrix_tiles.py), any filter size and stride.

An image is copied, as bf16, into a thread's frame with its border of zeros. A row of a tile is an
output pixel, whose terms, the columns and channels of a filter line, are neighbours in the frame;
rows follow each other in the frame, too. At stride 1 they go on over the frame's lines and over
several images, whose border is shared: zeros behind a line are those before the next one, zeros
below an image those above the next. So an image of 4x4 outputs takes 25 rows, 9 for nothing.

Sums are float32. A filter line whose columns and channels are no multiple of TERMS is filled with
zeros.
"""

from typing import NamedTuple

import numba
import numpy as np
from numba import njit, prange

from ensync.kernels.convolution.winograd_transforms import turn_filter
from ensync.kernels.options import INNER, KERNEL
from ensync.kernels.simd.intrinsics import lanes, pointer
from ensync.kernels.simd.matrix_tiles import (
    SIDE,
    TERMS,
    Strides,
    end_tiles,
    start_tiles,
    tile_product,
)
from ensync.kernels.simd.memory import clear
from ensync.kernels.simd.panels import panel_width
from ensync.kernels.simd.vectors import (
    advance,
    as_bf16,
    copied,
    load,
    maximum,
    pair,
    splat,
    store,
)
from ensync.kernels.threads import get_threads

WIDE, SHORT = tile_product(False), tile_product(False, 1, 2)
NARROW, SMALL = tile_product(False, 2, 1), tile_product(False, 1, 1)
ROWS = 2 * SIDE  # of a product
# Words of the images that a thread frames at a time, 128 KiB: each panel of the filters is read for
# all of them, and both stay in the second cache.
FRAMES = 1 << 15


class Plane(NamedTuple):
    """A frame of an image (h, w, c) at a phase of a stride: lines of `pitch` pixels, of which pixel
    (i, j) is that of the image at (i * stride + down, j * stride + right), or zeros.

    size: pixels, of which those behind the lines are zeros.
    """

    h: int
    w: int
    c: int
    lines: int
    pitch: int
    stride: int
    down: int
    right: int
    size: int


class Sizes(NamedTuple):
    """Of a convolution: filter (kh, kw), stride, outputs (oh, ow, k), columns of a panel."""

    kh: int
    kw: int
    stride: int
    oh: int
    ow: int
    k: int
    width: int


@njit(**KERNEL)
def whole(count, step):
    """Return the multiple of step that is not less than count."""
    return (count + step - 1) // step * step


@njit(**KERNEL)
def pitch_of(w, left, out, taps, stride):
    """Return the pixels of a frame's line: at stride 1 the border behind the image is that before
    it in the next line.
    """
    reach = out + (taps - 1) // stride
    return max(out, min(left + w, reach), reach - left) if stride == 1 else reach


@njit(**KERNEL)
def _frame_form(image, padding, out, taps, stride):
    """Return (lines, span, pitch, rest) of the frame of the forward pass: lines that an image's
    outputs read, lines from image to image, pixels of a line, and pixels behind the last line,
    which products of whole tiles and steps read. out, taps: (lines, columns).
    """
    (h, w, _), lines, rest = image, (out[0] - 1) * stride + taps[0], ROWS * stride + taps[1] + TERMS
    if stride == 1:
        span = pitch_of(h, padding[0], out[0], taps[0], 1)
        return lines, span, pitch_of(w, padding[1], out[1], taps[1], 1), rest
    return lines, lines, (out[1] - 1) * stride + taps[1], rest


@njit(**KERNEL)
def _words(images, c, form):
    """Return the elements of four bytes of the frame of so many images of c channels."""
    lines, span, pitch, rest = form
    return whole((((images - 1) * span + lines) * pitch + rest) * c, 2 * SIDE) // 2


@njit(**INNER)
def copy(source, target, elements):
    """Write so many elements, widened or rounded where the types differ."""
    if copied(source, target, elements):
        return
    full = lanes(source)
    for j in range(0, elements, full):
        count = min(full, elements - j)
        store(target, j, load(source, j, count), count)


@njit(**INNER)
def fill(source, target, plane):
    """Write an image to its frame as bf16."""
    h, w, c, lines, pitch, stride, down, right, size = plane
    # Pixels of a line before the image, and in it.
    before = max(0, -(right // stride)) if right < 0 else 0
    inside = max(0, min(pitch, (w - right + stride - 1) // stride) - before)
    for line in range(lines):
        y, to = line * stride + down, advance(target, line * pitch * c)
        if 0 <= y < h and inside > 0:
            clear(to, before * c)
            first = advance(source, (y * w + before * stride + right) * c)
            if stride == 1:
                copy(first, advance(to, before * c), inside * c)
            else:
                for x in range(inside):
                    copy(advance(first, x * stride * c), advance(to, (before + x) * c), c)
            clear(advance(to, (before + inside) * c), (pitch - before - inside) * c)
        else:
            clear(to, pitch * c)
    clear(advance(target, lines * pitch * c), (size - lines * pitch) * c)


@njit(parallel=True, **KERNEL)
def pack_filters(weights, target):
    """Write weights (kh, kw, c, k) as panels of pairs of terms: (panels, kh, terms / 2, width),
    with zeros where there are none.
    """
    kh, kw, c, k = weights.shape
    full, width, line = lanes(weights), panel_width(k, lanes(weights)), kw * c
    pairs = whole(line, TERMS) // 2
    for item in prange((k + width - 1) // width * kh):
        first = item // kh * width
        source = pointer(weights, item % kh * line * k + first)
        to = pointer(target, item * pairs * width)
        for i in range(pairs):
            for j in range(0, width, full):
                count = max(0, min(full, k - first - j))
                above = load(source, 2 * i * k + j, count if 2 * i < line else 0)
                below = load(source, (2 * i + 1) * k + j, count if 2 * i + 1 < line else 0)
                store(to, i * width + j, pair(above, below), full)


def packed_size(shape: tuple[int, int, int, int]) -> int:
    """Return the elements of packed filters of this shape (kh, kw, c, k)."""
    kh, kw, c, k = shape
    width = panel_width.py_func(k, SIDE)
    return -(-k // width) * kh * whole.py_func(kw * c, TERMS) // 2 * width


@njit(forceinline=True, **INNER)
def multiply(a, b, c, strides, rows, width):
    """Write the product of up to ROWS rows with a panel of `width` columns."""
    if width == SIDE:
        if rows > SIDE:
            NARROW(a, b, c, strides)
        else:
            SMALL(a, b, c, strides)
    elif rows > SIDE:
        WIDE(a, b, c, strides)
    else:
        SHORT(a, b, c, strides)


@njit(**INNER)
def _store_rows(tile, rows, bias, floor, target, position, lines, sizes, column):
    """Write rows of a product as output pixels, plus bias and not below the floor. position:
    (image, line, column) of the first; lines: (lines of an image, pixels of a line), of which oh
    and ow are outputs.
    """
    k, oh, ow, full, low = sizes.k, sizes.oh, sizes.ow, lanes(tile), splat(tile, floor)
    span, pitch = lines
    for j in range(0, min(sizes.width, k - column), full):
        count = min(full, k - column - j)
        add = load(bias, column + j, count)
        image, y, x = position
        for row in range(rows):
            if x < ow and y < oh:
                value = maximum(low, load(tile, row * sizes.width + j, full) + add)
                store(target, ((image * oh + y) * ow + x) * k + column + j, value, count)
            x += 1
            if x == pitch:
                x, y = 0, y + 1
                if y == span:
                    y, image = 0, image + 1


@njit(**INNER)
def _correlate_frame(frame, filters, tile, bias, floor, target, images, form, sizes):
    """Compute a panel of outputs, those from the column `images[1]` on, of images[0] framed images;
    all arrays are addresses. tile: ROWS rows of a product. form: (span, pitch, channels).
    """
    kh, kw, stride, oh, ow, _, width = sizes
    (count, column), (span, pitch, c) = images, form
    steps = (kw * c + TERMS - 1) // TERMS
    strides = Strides(
        outer=kh,
        inner=steps,
        a_outer=pitch * c,
        a_row=stride * c,
        b_outer=steps * SIDE * width,
        b_row=width,
        c_row=width,
    )
    # At stride 1 all lines of all images are one run of pixels, else each line is one.
    runs, length = count * oh, ow
    if stride == 1:
        runs, length = 1, ((count - 1) * span + oh - 1) * pitch + ow
    for run in range(runs):
        image, y = run // oh, run % oh
        start = (image * span + y * stride) * pitch
        for first in range(0, length, ROWS):
            rows = min(ROWS, length - first)
            if stride == 1:
                line = first // pitch
                position, lines = (line // span, line % span, first % pitch), (span, pitch)
            else:
                position, lines = (image, y, first), (oh, ow)
            a = advance(frame, (start + first * stride) * c)
            multiply(a, filters, tile, strides, rows, width)
            _store_rows(tile, rows, bias, floor, target, position, lines, sizes, column)


@njit(parallel=True, **KERNEL)
def correlate(inputs, taps, bias, stride, padding, floor, scratch, outputs, threads):
    """Convolve with packed filters of taps = (kh, kw) at the scratch's front, on so many threads.
    Inputs and outputs: float32 or bf16.

    A thread frames some images at a time and takes a panel of the filters for all of these.
    """
    (n, h, w, c), (oh, ow, k), (kh, kw) = inputs.shape, outputs.shape[1:], taps
    full = lanes(inputs)
    width, panel = panel_width(k, full), kh * whole(kw * c, TERMS) // 2 * panel_width(k, full)
    filters = (k + width - 1) // width * panel
    lines, span, pitch, rest = form = _frame_form((h, w, c), padding, (oh, ow), taps, stride)
    most = ((2 * FRAMES // c - rest) // pitch - lines) // span + 1
    together = max(1, min(most, n // threads))
    share = max(FRAMES, _words(1, c, form)) + ROWS * width
    for group in prange((n + together - 1) // together):
        tile = pointer(scratch, filters + numba.get_thread_id() * share)
        frame = as_bf16(advance(tile, ROWS * width))
        first, end = group * together, min(n, (group + 1) * together)
        for image in range(first, end):
            last = image + 1 == end
            have = lines if last else span
            size = have * pitch + (rest if last else 0)
            fill(
                pointer(inputs, image * h * w * c),
                advance(frame, (image - first) * span * pitch * c),
                Plane(h, w, c, have, pitch, 1, -padding[0], -padding[1], size),
            )
        start_tiles()
        for column in range(0, k, width):
            _correlate_frame(
                frame,
                pointer(scratch, column // width * panel),
                tile,
                pointer(bias, 0),
                floor,
                pointer(outputs, first * oh * ow * k),
                (end - first, column),
                (span, pitch, c),
                Sizes(kh, kw, stride, oh, ow, k, width),
            )
        end_tiles()


def convolve(
    inputs: np.ndarray,
    weights: np.ndarray,
    bias: np.ndarray,
    stride: int,
    padding: tuple[int, int],
    floor: np.floating,
    turned: bool,
    scratch: np.ndarray,
    outputs: np.ndarray,
) -> None:
    """Write the convolution plus bias, not below floor, to outputs; `turned`: with the filters of
    the input gradient, weights.size elements at the end of the scratch.
    """
    if turned:
        kh, kw, c, k = weights.shape
        turned_weights = scratch[scratch.size - weights.size :].reshape(kh, kw, k, c)
        turn_filter(weights, turned_weights.reshape(-1))
        weights = turned_weights
    pack_filters(weights, scratch)
    taps, threads = weights.shape[:2], get_threads()
    correlate(inputs, taps, bias, stride, padding, floor, scratch, outputs, threads)


def scratch_size(
    image: tuple[int, int, int],
    taps: tuple[int, int],
    outputs: tuple[int, int, int],
    stride: int,
    padding: tuple[int, int],
) -> int:
    """Return the elements of scratch, of four bytes, that the forward pass and the inputs' gradient
    need for images (h, w, c) and outputs (oh, ow, k), on all threads of this process.
    """
    turned = taps[0] - 1 - padding[0], taps[1] - 1 - padding[1]
    return max(
        _convolve_size(image, taps, outputs, stride, padding),
        # At a stride, of each class of inputs: fewer taps and pixels.
        _convolve_size(outputs, taps, image, 1, turned) + taps[0] * taps[1] * image[2] * outputs[2],
    )


def _convolve_size(
    image: tuple[int, int, int],
    taps: tuple[int, int],
    outputs: tuple[int, int, int],
    stride: int,
    padding: tuple[int, int],
) -> int:
    """Return the elements of scratch of `convolve` but for turned filters."""
    form = _frame_form.py_func(image, padding, outputs[:2], taps, stride)
    frame = max(FRAMES, _words.py_func(1, image[2], form))
    tile = ROWS * panel_width.py_func(outputs[2], SIDE)
    filters = packed_size((*taps, image[2], outputs[2]))
    return filters + numba.config.NUMBA_NUM_THREADS * (frame + tile)
