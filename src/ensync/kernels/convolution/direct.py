"""Convolution of any filter size, stride and number of groups, by the register tile.

An image is copied into a thread's scratch with its border of zeros; then a tile's rows are
neighbouring output pixels, whose inputs lie stride * channels apart, and the sum runs over filter
lines and, in one stretch, over the columns and channels of a line. The input gradient is the
convolution of the gradient with the turned and transposed filter (at a stride: strided.py). The
filter's gradient sums over the pixels of an image; PARTS runs of images have a sum each, added in
their order.

Where all channels of some neighbouring output pixels fit a vector, such a group counts as one pixel
whose filters are those of its pixels side by side, each a column further, with zeros around: two
pixels of 6 channels take 0.6 of the work that 5 columns of filters make in 16 lanes.

With `bf16` (operands.py) products are of bf16 numbers, two at a time: neighbours of a frame, or,
for the filter's gradient, two output pixels of a line. What an odd number of these lacks is zero.
"""

from typing import NamedTuple

import numba
import numpy as np
from numba import njit, prange

from ensync.kernels.flags import Flag
from ensync.kernels.options import INNER, KERNEL
from ensync.kernels.simd.host import SIMD, lanes_of
from ensync.kernels.simd.intrinsics import lanes, pointer
from ensync.kernels.simd.memory import clear
from ensync.kernels.simd.operands import as_operand, numbers_per_term, pair_rows
from ensync.kernels.simd.panels import ROWS, VECTORS, panel_width
from ensync.kernels.simd.tiles import TileGeometry, tile
from ensync.kernels.simd.vectors import advance, load, pair, store

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
SPARE = 64  # elements behind a frame that vectors beyond its end may read and write


class Geometry(NamedTuple):
    """Sizes of a convolution of one framed image.

    kh, kw: of the filter. c: channels of the image; inputs: of one group. stride: lines of the
    frame from output to output; step: pixels. columns: pixels of a line of the frame. oh, ow,
    outputs: of the outputs. width: columns of a panel of filters.
    """

    kh: int
    kw: int
    c: int
    inputs: int
    stride: int
    step: int
    columns: int
    oh: int
    ow: int
    outputs: int
    width: int


@njit(**INNER)
def _copy_line(source, target, elements):
    full = lanes(source)
    for j in range(0, elements, full):
        store(target, j, load(source, j, min(full, elements - j)), min(full, elements - j))


@njit(**INNER)
def _frame(source, size, target, frame, behind):
    """Write an image (h, w, c) into a frame (lines, columns) of zeros with `behind` more: size =
    (h, w, c), frame = (lines, columns, top, left).

    What falls outside of the frame is left out.
    """
    (h, w, c), (lines, columns, top, left) = size, frame
    clear(target, lines * columns * c + behind)
    skipped = max(0, -left)
    pixels = max(0, min(w, columns - left) - skipped)
    for y in range(max(0, -top), min(h, lines - top)):
        to = ((y + top) * columns + left + skipped) * c
        _copy_line(advance(source, (y * w + skipped) * c), advance(target, to), pixels * c)


@njit(**INNER)
def _tile_rows(left, group, narrow):
    """Return how many rows the next tile has, of `left`, and whether it is a short one. Groups of
    rows that short tiles cut evenly are cut by these.
    """
    tall, low = (NARROW_ROWS, SHORT_NARROW_ROWS) if narrow else (ROWS, SHORT_ROWS)
    short = left <= low or tall < left <= 2 * low or group % low == 0
    return min(left, low if short else tall), short


@njit(**INNER)
def _panel_of_outputs(framed, filters, bias, floor, target, geometry, column, count, bf16):
    """Compute all outputs of an image for one panel of `count` columns from `column` on."""
    g, narrow = geometry, geometry.width == lanes(target)
    whole_lines = g.inputs == g.c  # of a filter: its columns and channels are one sum
    numbers, run = numbers_per_term(bf16), g.kw * g.c if whole_lines else g.inputs
    first, y, x = np.int64(0), np.int64(0), np.int64(0)
    while y < g.oh:
        rows, short = _tile_rows(g.oh * g.ow - first, g.ow, narrow)
        a = advance(framed, (y * g.stride * g.columns + x * g.step) * g.c)
        for ky in range(1 if whole_lines else g.kh):
            size = TileGeometry(
                outer=g.kh if whole_lines else g.kw,
                inner=(run + numbers - 1) // numbers,
                a_outer=g.columns * g.c if whole_lines else g.c,
                a_row=g.step * g.c,
                a_group=g.stride * g.columns * g.c,
                a_inner=numbers,
                b_outer=run * g.width,
                b_inner=g.width,
                c_row=g.outputs,
                row_count=rows,
                group=g.ow,
                skipped=x,
                column_count=count,
                has_bias=ky == 0,
                accumulate=ky > 0,
            )
            _tile(
                advance(a, ky * g.columns * g.c),
                advance(filters, ky * g.kw * g.inputs * g.width),
                advance(target, first * g.outputs + column),
                bias,
                size,
                floor if whole_lines or ky == g.kh - 1 else -np.inf,
                narrow,
                short,
            )
        first, x = first + rows, x + rows
        while x >= g.ow:
            x, y = x - g.ow, y + 1


@njit(forceinline=True, **INNER)
def _tile(a, b, to, bias, size, floor, narrow, short):
    """Compute a tile with the kernel of its rows and columns."""
    if narrow:
        if short:
            SHORT_NARROW_TILE(a, b, to, bias, size, floor)
        else:
            NARROW_TILE(a, b, to, bias, size, floor)
    elif short:
        SHORT_TILE(a, b, to, bias, size, floor)
    else:
        TILE(a, b, to, bias, size, floor)


def pixels_together(outputs: tuple[int, ...], kw: int, stride: int, groups: int, itemsize: int):
    """Return how many neighbouring pixels of outputs (..., ow, k) are computed as one, by filters
    of kw columns.
    """
    ow, k = outputs[-2:]
    most = _most_together(k, kw, groups, itemsize) if stride == 1 else 1
    return max(count for count in range(1, most + 1) if ow % count == 0)


def _most_together(k: int, kw: int, groups: int, itemsize: int) -> int:
    return max(1, lanes_of(itemsize) // k) if groups == 1 and kw > 1 else 1


def repeated(bias: np.ndarray, together: int) -> np.ndarray:
    """Return the bias of so many pixels that are computed as one."""
    return bias if together == 1 else np.tile(bias, together)


@njit(parallel=True, **KERNEL)
def pack_filters(weights, groups, together, turned, target, bf16):
    """Write weights (kh, kw, inputs / groups, outputs), for so many pixels together, as panels
    (groups, panels, kh, kw + together - 1, inputs, width), padded with zeros; with bf16 the pairs
    of each sum at its front.

    turned: for the input gradient, each filter by 180 degrees and inputs exchanged with outputs.
    """
    kh, kw, inputs, outputs = weights.shape
    share, taps = outputs // groups, kw + together - 1
    rows, own = (share, inputs) if turned else (inputs, share)
    columns = own * together
    width = panel_width(columns, lanes(weights))
    panels = (columns + width - 1) // width
    for item in prange(groups * panels):
        group, first = item // panels, item % panels * width
        count = min(width, own - first)
        for place in range(kh * taps * rows):
            ky, tap, i = place // rows // taps, place // rows % taps, place % rows
            at = (item * kh * taps * rows + place) * width
            for j in range(width):
                target[at + j] = 0
            for pixel in range(max(0, tap - kw + 1), min(together, tap + 1)):
                to, kx = at + pixel * own, tap - pixel
                if turned:
                    for j in range(count):
                        target[to + j] = weights[
                            kh - 1 - ky, kw - 1 - kx, first + j, group * share + i
                        ]
                else:
                    for j in range(count):
                        target[to + j] = weights[ky, kx, i, group * share + first + j]
        run = taps * rows if groups == 1 else rows
        for at in range(0, kh * taps * rows, run):
            pair_rows(pointer(target, (item * kh * taps * rows + at) * width), run, width, bf16)


@njit(parallel=True, **KERNEL)
def correlate(inputs, filters_at, filter_shape, bias, form, floor, scratch, outputs, bf16):
    """Convolve with packed filters of shape (kh, kw), the scratch holding them at its front and
    a frame per thread behind. form: (stride, padding, groups, pixels together); bias: (k), as
    often as pixels are together.
    """
    (n, h, w, c), (oh, ow, k), (kh, kw) = inputs.shape, outputs.shape[1:], filter_shape
    stride, padding, groups, together = form
    lines, columns = (oh - 1) * stride + kh, (ow - 1) * stride + kw
    ow, k, kw = ow // together, k * together, kw + together - 1
    share, given = k // groups, c // groups
    width = panel_width(share, lanes(inputs))
    panels = (share + width - 1) // width
    for image in prange(n):
        frame_at = filters_at + numba.get_thread_id() * lines * columns * c
        framed = as_operand(pointer(scratch, frame_at), bf16)
        _frame(
            pointer(inputs, image * h * w * c),
            (h, w, c),
            framed,
            (lines, columns, padding[0], padding[1]),
            numbers_per_term(bf16) - 1,
        )
        step = stride * together
        geometry = Geometry(kh, kw, c, given, stride, step, columns, oh, ow, k, width)
        for item in range(groups * panels):
            group, column = item // panels, item % panels * width
            filters, first = (
                pointer(scratch, item * kh * kw * given * width),
                group * share + column,
            )
            _panel_of_outputs(
                advance(framed, group * given),
                filters,
                pointer(bias, first),
                floor,
                pointer(outputs, image * oh * ow * k),
                geometry,
                first,
                min(width, share - column),
                bf16,
            )


@njit(**INNER)
def _image_filter_sums(framed, gradient, sums, geometry, add, bf16):
    """Add (or write) one image's share of the filter gradient (kh, kw, inputs, outputs); with bf16
    of pairs of pixels, of the image and of the gradient.
    """
    numbers = numbers_per_term(bf16)  # of a pair, whose address counts its halves
    pixels = (geometry.ow + numbers - 1) // numbers
    g, narrow = geometry, geometry.width == lanes(sums)
    groups, floor = g.c // g.inputs, -np.inf
    share = g.outputs // groups
    # Channels of all filter columns of a line are neighbours, in a group those of one column.
    line, stretches = (g.kw * g.c, 1) if groups == 1 else (g.inputs, g.kh * g.kw)
    panels = (share + g.width - 1) // g.width
    for item in range(groups * panels):
        group, column = item // panels, item % panels * g.width
        b = advance(gradient, group * share + column)
        for tap in range(stretches):
            at = (tap // g.kw * g.columns + tap % g.kw) * g.c + group * line
            a = advance(framed, numbers * at)
            row, end = np.int64(0), line if groups > 1 else g.kh * line
            while row < end:
                rows, short = _tile_rows(end - row, 1, narrow)
                size = TileGeometry(
                    outer=g.oh,
                    inner=pixels,
                    a_outer=numbers * g.stride * g.columns * g.c,
                    a_row=numbers,
                    a_group=numbers * g.columns * g.c,
                    a_inner=numbers * numbers * g.step * g.c,
                    b_outer=pixels * g.outputs,
                    b_inner=g.outputs,
                    c_row=g.outputs,
                    row_count=rows,
                    group=line,
                    skipped=row % line,
                    column_count=min(g.width, share - column),
                    has_bias=False,
                    accumulate=add,
                )
                to = (tap * g.inputs + row) * g.outputs + group * share + column
                _tile(
                    advance(a, numbers * (row // line * g.columns * g.c + row % line)),
                    b,
                    advance(sums, to),
                    b,
                    size,
                    floor,
                    narrow,
                    short,
                )
                row += rows


@njit(**INNER)
def _pair_frame(framed, elements, distance):
    """Pair each element of a frame with that `distance` behind it, in place."""
    full = lanes(framed)
    for at in range(0, elements, full):
        store(framed, at, pair(load(framed, at, full), load(framed, at + distance, full)), full)


@njit(**INNER)
def _pair_pixels(source, lines, columns, channels, target):
    """Write each two neighbours of a line of pixels as one of pairs; an odd last one with zeros."""
    full, pairs = lanes(source), (columns + 1) // 2
    for y in range(lines):
        for i in range(pairs):
            at, to = (y * columns + 2 * i) * channels, (y * pairs + i) * channels
            has_other = 2 * i + 1 < columns
            for j in range(0, channels, full):
                count = channels - j
                below = load(source, at + channels + j, count if has_other else 0)
                store(target, to + j, pair(load(source, at + j, count), below), count)


@njit(parallel=True, **KERNEL)
def filter_gradient(inputs, gradient, form, scratch, out, bf16):
    """Write the filters' gradient to out (kh, kw, inputs / groups, outputs), the scratch holding
    PARTS sums and a frame per thread, with bf16 the pairs of the gradient, too. form: as of
    `correlate`.
    """
    (n, h, w, c), (oh, ow, k), (kh, kw) = inputs.shape, gradient.shape[1:], out.shape[:2]
    stride, padding, groups, together = form
    lines, columns = (oh - 1) * stride + kh, (ow - 1) * stride + kw
    own, step, across = k, stride * together, kw
    ow, k, kw = ow // together, k * together, kw + together - 1
    parts, frame, size = min(n, PARTS), lines * columns * c, kh * kw * (c // groups) * k
    behind = 0 if bf16 is None else step * c + SPARE
    share = frame if bf16 is None else frame + behind + oh * ((ow + 1) // 2) * k
    for part in prange(parts):
        framed = pointer(scratch, PARTS * size + numba.get_thread_id() * share)
        first = n * part // parts
        for image in range(first, n * (part + 1) // parts):
            _frame(
                pointer(inputs, image * h * w * c),
                (h, w, c),
                framed,
                (lines, columns, padding[0], padding[1]),
                behind,
            )
            width = panel_width(k // groups, lanes(inputs))
            geometry = Geometry(kh, kw, c, c // groups, stride, step, columns, oh, ow, k, width)
            slopes = pointer(gradient, image * oh * ow * k)
            if bf16 is not None:
                pairs = advance(framed, frame + behind)
                _pair_frame(framed, frame, step * c)
                _pair_pixels(slopes, oh, ow, k, pairs)
                slopes = pairs
            _image_filter_sums(
                as_operand(framed, bf16),
                slopes,
                pointer(scratch, part * size),
                geometry,
                int(image > first),
                bf16,
            )
    inner, flat = c // groups, out.reshape(out.size)
    for row in prange(flat.size // own):
        tap, to = row // inner, row * own
        # The same column of a filter lies a column further for each pixel.
        at = ((tap // across * kw + tap % across) * inner + row % inner) * k
        for column in range(own):
            flat[to + column] = scratch[at + column]
        for term in range(1, parts * together):
            added = term // together * size + at + term % together * (inner * k + own)
            for column in range(own):
                flat[to + column] += scratch[added + column]


def packed_size(shape: tuple[int, int, int, int], groups: int, itemsize: int) -> int:
    """Return the elements of the larger of the two packed forms of filters of this shape (kh,
    kw, inputs / groups, outputs).
    """
    kh, kw, inputs, outputs = shape
    width, share = VECTORS * lanes_of(itemsize), outputs // groups

    def size(rows: int, columns: int) -> int:
        taps = kw + _most_together(columns, kw, groups, itemsize) - 1
        return kh * taps * -(-columns // width) * rows

    return groups * max(size(inputs, share), size(share, inputs)) * width


def sums_size(shape: tuple[int, int, int, int], groups: int, itemsize: int) -> int:
    """Return the elements of the sums of the filters' gradient."""
    kh, kw, inputs, outputs = shape
    together = _most_together(outputs, kw, groups, itemsize)
    return PARTS * kh * (kw + together - 1) * inputs * outputs * together


def frame_size(
    shape: tuple[int, int, int],
    filter_shape: tuple[int, int],
    outputs: tuple[int, int, int],
    form: tuple[int, int],
    bf16: Flag | None,
) -> int:
    """Return the elements that a thread needs for the largest frame that the three passes lay
    around an image (h, w, c) with outputs (oh, ow, k), and for its pairs. form: (stride, pixels
    together).
    """
    (h, w, c), (oh, ow, k), (kh, kw), (stride, together) = shape, outputs, filter_shape, form
    frame = ((oh - 1) * stride + kh) * ((ow - 1) * stride + kw) * c
    if bf16:
        pairs = (ow // together + 1) // 2
        frame += stride * together * c + SPARE + oh * pairs * k * together
    return max(frame, (h + kh - 1) * (w + kw - 1) * k)
