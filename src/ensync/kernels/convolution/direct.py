"""Convolution of any filter size, stride and number of groups, straight on the register tile.

An image is copied into a thread's scratch with its border of zeros; then a tile's rows are
neighbouring output pixels, whose inputs lie stride * channels apart, and the sum runs over filter
lines and, in one stretch, over the columns and channels of a line. The input gradient is the
convolution of the gradient with the turned and transposed filter (at a stride:
strided.py). The filter's gradient sums over the pixels of an image; PARTS runs of
images have a sum each, added in their order.
"""

import numba
import numpy as np
from numba import njit, prange

from ensync.kernels.options import INNER, KERNEL
from ensync.kernels.simd.host import SIMD, lanes_of
from ensync.kernels.simd.intrinsics import lanes, pointer
from ensync.kernels.simd.panels import ROWS, VECTORS
from ensync.kernels.simd.tiles import tile
from ensync.kernels.simd.vectors import advance, load, store, zeros

# Rows of tiles for lines that ROWS cut badly, and of tiles of one vector: enough sums to hide the
# multiply-add's latency, as many as fit the registers.
SHORT_ROWS, NARROW_ROWS, SHORT_NARROW_ROWS = {
    "avx512": (8, 14, 8),
    "avx2": (4, 12, 8),
    "neon": (8, 12, 8),
    "plain": (4, 8, 8),
}[SIMD]
TILE, SHORT_TILE = tile(ROWS, VECTORS), tile(SHORT_ROWS, VECTORS)
NARROW_TILE, SHORT_NARROW_TILE = tile(NARROW_ROWS, 1), tile(SHORT_NARROW_ROWS, 1)
PARTS = 8


@njit(forceinline=True, **INNER)
def panel_width(columns, full):
    """Columns of a panel: one vector where it holds all."""
    return full if columns <= full else VECTORS * full


@njit(**INNER)
def _copy_line(source, target, elements):
    full = lanes(source)
    for j in range(0, elements, full):
        store(target, j, load(source, j, min(full, elements - j)), min(full, elements - j))


@njit(**INNER)
def _frame(source, size, target, frame):
    """Write an image (h, w, c) into a frame (lines, columns) of zeros: size = (h, w, c), frame =
    (lines, columns, top, left).

    What falls outside of the frame is left out.
    """
    (h, w, c), (lines, columns, top, left) = size, frame
    full = lanes(source)
    for at in range(0, lines * columns * c, full):
        store(target, at, zeros(target), min(full, lines * columns * c - at))
    skipped = max(0, -left)
    pixels = max(0, min(w, columns - left) - skipped)
    for y in range(max(0, -top), min(h, lines - top)):
        to = ((y + top) * columns + left + skipped) * c
        _copy_line(advance(source, (y * w + skipped) * c), advance(target, to), pixels * c)


@njit(**INNER)
def _line_tiles(framed, filters, bias, floor, target, layout, columns, y, column, count):
    """Compute the output pixels of line y (of several lines where they are short) for one panel
    of columns.
    """
    kh, kw, c, inputs, stride, frame_columns, oh, ow, outputs, width = layout
    tall, low = (NARROW_ROWS, SHORT_NARROW_ROWS) if width == lanes(target) else (ROWS, SHORT_ROWS)
    short = (ow + tall - 1) // tall * tall > (ow + low - 1) // low * low
    rows = low if short else tall
    lines = max(1, rows // ow)
    for x in range(0, ow, rows):
        pixels = min(rows, ow - x) if ow > rows else min(lines, oh - y) * ow
        group = rows if ow > rows else ow
        a = advance(framed, (y * stride * frame_columns + x * stride) * c)
        to = advance(target, (y * ow + x) * outputs + column)
        if inputs == c:
            _tile(
                short,
                width,
                a,
                filters,
                to,
                bias,
                kh,
                kw * c,
                frame_columns * c,
                stride * c,
                stride * frame_columns * c,
                kw * c * width,
                width,
                outputs,
                pixels,
                group,
                count,
                1,
                0,
                floor,
            )
        else:
            for ky in range(kh):
                _tile(
                    short,
                    width,
                    advance(a, ky * frame_columns * c),
                    advance(filters, ky * kw * inputs * width),
                    to,
                    bias,
                    kw,
                    inputs,
                    c,
                    stride * c,
                    stride * frame_columns * c,
                    inputs * width,
                    width,
                    outputs,
                    pixels,
                    group,
                    count,
                    int(ky == 0),
                    int(ky > 0),
                    floor if ky == kh - 1 else -np.inf,
                )
    return lines


@njit(forceinline=True, **INNER)
def _tile(
    short,
    width,
    a,
    b,
    to,
    bias,
    outer,
    inner,
    a_outer,
    a_row,
    a_group,
    b_outer,
    b_inner,
    c_row,
    rows,
    group,
    count,
    has_bias,
    add,
    floor,
):
    if width == lanes(a):
        if short:
            SHORT_NARROW_TILE(
                a,
                b,
                to,
                bias,
                outer,
                inner,
                a_outer,
                a_row,
                a_group,
                1,
                b_outer,
                b_inner,
                c_row,
                rows,
                group,
                count,
                has_bias,
                add,
                floor,
            )
        else:
            NARROW_TILE(
                a,
                b,
                to,
                bias,
                outer,
                inner,
                a_outer,
                a_row,
                a_group,
                1,
                b_outer,
                b_inner,
                c_row,
                rows,
                group,
                count,
                has_bias,
                add,
                floor,
            )
    elif short:
        SHORT_TILE(
            a,
            b,
            to,
            bias,
            outer,
            inner,
            a_outer,
            a_row,
            a_group,
            1,
            b_outer,
            b_inner,
            c_row,
            rows,
            group,
            count,
            has_bias,
            add,
            floor,
        )
    else:
        TILE(
            a,
            b,
            to,
            bias,
            outer,
            inner,
            a_outer,
            a_row,
            a_group,
            1,
            b_outer,
            b_inner,
            c_row,
            rows,
            group,
            count,
            has_bias,
            add,
            floor,
        )


@njit(parallel=True, **KERNEL)
def pack_filters(weights, groups, turned, target):
    """Write weights (kh, kw, inputs / groups, outputs) as panels (groups, panels, kh, kw, inputs,
    width), padded with zeros.

    turned: for the input gradient, each filter by 180 degrees and inputs exchanged with outputs.
    """
    kh, kw, inputs, outputs = weights.shape
    share = outputs // groups
    rows, columns = (share, inputs) if turned else (inputs, share)
    width = panel_width(columns, lanes(weights))
    panels = (columns + width - 1) // width
    for item in prange(groups * panels):
        group, first = item // panels, item % panels * width
        for ky in range(kh):
            for kx in range(kw):
                for i in range(rows):
                    at = (((item * kh + ky) * kw + kx) * rows + i) * width
                    for j in range(width):
                        if first + j >= columns:
                            target[at + j] = 0
                        elif turned:
                            target[at + j] = weights[
                                kh - 1 - ky, kw - 1 - kx, first + j, group * share + i
                            ]
                        else:
                            target[at + j] = weights[ky, kx, i, group * share + first + j]


@njit(parallel=True, **KERNEL)
def correlate(
    inputs, filters_at, filter_shape, bias, stride, padding, groups, floor, scratch, outputs
):
    """Convolve with packed filters of shape (kh, kw), the scratch holding them at its front and
    a frame per thread behind.
    """
    (n, h, w, c), (oh, ow, k), (kh, kw) = inputs.shape, outputs.shape[1:], filter_shape
    lines, columns = (oh - 1) * stride + kh, (ow - 1) * stride + kw
    share, given = k // groups, c // groups
    width = panel_width(share, lanes(inputs))
    panels = (share + width - 1) // width
    for image in prange(n):
        framed = pointer(scratch, filters_at + numba.get_thread_id() * lines * columns * c)
        _frame(
            pointer(inputs, image * h * w * c),
            (h, w, c),
            framed,
            (lines, columns, padding[0], padding[1]),
        )
        layout = (kh, kw, c, given, stride, columns, oh, ow, k, width)
        for item in range(groups * panels):
            group, column = item // panels, item % panels * width
            filters, first = (
                pointer(scratch, item * kh * kw * given * width),
                group * share + column,
            )
            y = np.int64(0)
            while y < oh:
                y += _line_tiles(
                    advance(framed, group * given),
                    filters,
                    pointer(bias, first),
                    floor,
                    pointer(outputs, image * oh * ow * k),
                    layout,
                    columns,
                    y,
                    first,
                    min(width, share - column),
                )


@njit(**INNER)
def _image_filter_sums(framed, gradient, sums, layout, add):
    """Add (or write) one image's share of the filter gradient (kh, kw, inputs, outputs)."""
    kh, kw, c, inputs, stride, frame_columns, oh, ow, outputs, width = layout
    groups, floor = c // inputs, -np.inf
    share = outputs // groups
    stretch, steps = (kw * c, 1) if groups == 1 else (inputs, kw)
    most = NARROW_ROWS if width == lanes(sums) else ROWS
    whole = max(1, most // stretch) if groups == 1 else 1  # filter lines in a tile
    for group in range(groups):
        for column in range(0, share, width):
            b = advance(gradient, group * share + column)
            for ky in range(0, kh, whole):
                for kx in range(steps):
                    for row in range(0, stretch, most):
                        rows = (
                            min(most, stretch - row)
                            if whole == 1
                            else min(whole, kh - ky) * stretch
                        )
                        a = advance(framed, (ky * frame_columns + kx) * c + group * inputs + row)
                        to = advance(
                            sums, ((ky * kw + kx) * inputs + row) * outputs + group * share + column
                        )
                        group_rows, count = (
                            stretch if whole > 1 else rows,
                            min(width, share - column),
                        )
                        if width == lanes(a):
                            NARROW_TILE(
                                a,
                                b,
                                to,
                                b,
                                oh,
                                ow,
                                stride * frame_columns * c,
                                1,
                                frame_columns * c,
                                stride * c,
                                ow * outputs,
                                outputs,
                                outputs,
                                rows,
                                group_rows,
                                count,
                                0,
                                add,
                                floor,
                            )
                        else:
                            TILE(
                                a,
                                b,
                                to,
                                b,
                                oh,
                                ow,
                                stride * frame_columns * c,
                                1,
                                frame_columns * c,
                                stride * c,
                                ow * outputs,
                                outputs,
                                outputs,
                                rows,
                                group_rows,
                                count,
                                0,
                                add,
                                floor,
                            )


@njit(parallel=True, **KERNEL)
def filter_gradient(inputs, gradient, stride, padding, groups, scratch, out):
    """Write the filters' gradient to out (kh, kw, inputs / groups, outputs), the scratch holding
    PARTS sums and a frame per thread.
    """
    (n, h, w, c), (oh, ow, k), (kh, kw) = inputs.shape, gradient.shape[1:], out.shape[:2]
    lines, columns = (oh - 1) * stride + kh, (ow - 1) * stride + kw
    parts = min(n, PARTS)
    for part in prange(parts):
        framed = pointer(scratch, PARTS * out.size + numba.get_thread_id() * lines * columns * c)
        first = n * part // parts
        for image in range(first, n * (part + 1) // parts):
            _frame(
                pointer(inputs, image * h * w * c),
                (h, w, c),
                framed,
                (lines, columns, padding[0], padding[1]),
            )
            layout = (
                kh,
                kw,
                c,
                c // groups,
                stride,
                columns,
                oh,
                ow,
                k,
                panel_width(k // groups, lanes(inputs)),
            )
            _image_filter_sums(
                framed,
                pointer(gradient, image * oh * ow * k),
                pointer(scratch, part * out.size),
                layout,
                int(image > first),
            )
    flat = out.reshape(out.size)
    for i in prange(out.size):
        total = out.dtype.type(0)
        for part in range(parts):
            total += scratch[part * out.size + i]
        flat[i] = total


def packed_size(shape: tuple[int, int, int, int], groups: int, itemsize: int) -> int:
    """Return the elements of the larger of the two packed forms of filters of this shape (kh,
    kw, inputs / groups, outputs).
    """
    kh, kw, inputs, outputs = shape
    width, share = VECTORS * lanes_of(itemsize), outputs // groups
    return groups * kh * kw * max(-(-share // width) * inputs, -(-inputs // width) * share) * width


def frame_size(
    shape: tuple[int, int, int],
    filter_shape: tuple[int, int],
    outputs: tuple[int, int, int],
    stride: int,
) -> int:
    """Return the elements of the largest frame that the three passes lay around an image (h, w,
    c) with outputs (oh, ow, k).
    """
    (h, w, c), (oh, ow, k), (kh, kw) = shape, outputs, filter_shape
    return max(
        ((oh - 1) * stride + kh) * ((ow - 1) * stride + kw) * c, (h + kh - 1) * (w + kw - 1) * k
    )
