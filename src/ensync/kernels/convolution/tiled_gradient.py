"""The gradient of a convolution's filters by matrix tiles (tiled.py): sums over pixels.

A row of a product is a filter, whose terms are the outputs' gradients: transposed, so that the
pixels of a filter are neighbours, and laid out on the frame's pixels, with zeros outside. A column
is a channel of the inputs, of whose frame pairs of pixels are laid out twice, from each even pixel
on and from each odd one: so a filter's tap, which shifts the inputs by any number of pixels, reads
whole rows of one of the two, and all tiles begin on cache lines. At a stride there is a frame for
each of stride * stride phases, in which neighbouring outputs read neighbouring pixels. Some images
are laid out at a time, as many as the caches hold.

Where filters are small beside the images, each part of the images has sums of its own, which are
added at the end: what a thread lays out it reads itself. Of larger filters threads share the
blocks. The sizes decide, so that the number of threads changes no sum.
"""

from typing import NamedTuple

import numba
import numpy as np
from numba import njit, prange

from ensync.kernels.convolution.parts import LEAST_PARTS, parts_of
from ensync.kernels.convolution.tiled import (
    ROWS,
    Plane,
    fill,
    multiply,
    pitch_of,
    whole,
)
from ensync.kernels.options import INNER, KERNEL
from ensync.kernels.simd.intrinsics import pointer, transpose_block
from ensync.kernels.simd.matrix_tiles import (
    SIDE,
    TERMS,
    Strides,
    end_tiles,
    start_tiles,
    tile_product,
)
from ensync.kernels.simd.memory import add_to
from ensync.kernels.simd.panels import panel_width
from ensync.kernels.simd.vectors import advance, as_bf16, load, load_pair, store
from ensync.kernels.threads import get_threads

ADD_WIDE, ADD_SHORT = tile_product(True), tile_product(True, 1, 2)
ADD_NARROW, ADD_SMALL = tile_product(True, 2, 1), tile_product(True, 1, 1)
# Words of the images that are laid out together for the filter's gradient, 1 MiB; but as many
# images that a sum has so many steps.
BLOCK, LEAST_STEPS = 1 << 18, 32
# Steps of TERMS pixels that all taps take before the next ones: their operands, 32 KiB, stay in the
# first cache.
CHUNK = 8


class Form(NamedTuple):
    """Of a convolution: inputs (h, w, c), filter (kh, kw), outputs (oh, ow, k), stride and zeros
    (above, left).
    """

    h: int
    w: int
    c: int
    kh: int
    kw: int
    oh: int
    ow: int
    k: int
    stride: int
    top: int
    left: int


class Layout(NamedTuple):
    """How the operands of the filter's gradient lie in the scratch, in elements of four bytes.

    pixels, pairs: of an image's outputs on the frame, and pairs of pixels of the frame; images:
    that are laid out together; filters: whole tiles; channels: of the inputs, whole panels of
    `width`. row: from filter to filter; plane: from a phase's even or odd pairs to the next ones;
    gradients_at, sums_at, frames_at: where the outputs' gradients, the sums and the threads' frames
    begin.
    """

    pitch: int
    pixels: int
    pairs: int
    images: int
    filters: int
    channels: int
    width: int
    row: int
    plane: int
    gradients_at: int
    sums_at: int
    frames_at: int


@njit(**KERNEL)
def _layout(n, form):
    """Return the Layout of the filter's gradient for n images."""
    _, w, c, kh, kw, oh, ow, k, stride, _, left = form
    pitch = pitch_of(w, left, ow, kw, stride)
    pixels = whole(oh * pitch, TERMS)
    pairs = (pixels + (kh - 1) // stride * pitch + (kw - 1) // stride + 1) // 2
    width = panel_width(c, SIDE)
    filters, channels = whole(k, SIDE), whole(c, width)
    planes = 2 * min(stride, kh) * min(stride, kw)
    most = max(
        BLOCK // (planes * channels * pairs + filters * pixels // 2),
        (LEAST_STEPS * TERMS + pixels - 1) // pixels,
    )
    images = min(n, most)
    # Rows that are a power of two apart would share few sets of a cache: a line more.
    row, plane = images * pixels // 2 + SIDE, images * pairs * channels
    sums_at = planes * plane + filters * row
    return Layout(
        pitch,
        pixels,
        pairs,
        images,
        filters,
        channels,
        width,
        row,
        plane,
        planes * plane,
        sums_at,
        sums_at + kh * kw * filters * channels,
    )


def gradient_parts(n: int, form: Form) -> int:
    """Return in how many parts n images have sums of their own."""
    values = n * (form.h * form.w * form.c + form.oh * form.ow * form.k)
    channels, filters = whole.py_func(form.c, SIDE), whole.py_func(form.k, SIDE)
    return parts_of(n, values, form.kh * form.kw * channels * filters)


@njit(**INNER)
def _transpose(frame, target, tile, k, layout):
    """Write a frame (pixels, k) as bf16 pairs of pixels of each filter, (filters, pixels / 2), of
    which those beyond k are any. tile: SIDE times SIDE elements.
    """
    for first in range(0, layout.pixels, TERMS):
        for column in range(0, layout.filters, SIDE):
            for i in range(SIDE):
                at = (first + 2 * i) * k + column
                store(tile, i * SIDE, load_pair(tile, frame, at, at + k), SIDE)
            to = advance(target, column * layout.row + first // 2)
            transpose_block(tile, SIDE, to, layout.row)


@njit(**INNER)
def _pair_pixels(frame, target, c, layout):
    """Write a frame (pixels, c) as pairs of pixels from the first on, (panels, images, pairs,
    width), of which channels beyond c are any.
    """
    panel = layout.images * layout.pairs * layout.width
    for first in range(0, layout.channels, layout.width):
        to = advance(target, first // layout.width * panel)
        for i in range(layout.pairs):
            for j in range(0, layout.width, SIDE):
                at = 2 * i * c + first + j
                store(to, i * layout.width + j, load_pair(target, frame, at, at + c), SIDE)


@njit(**INNER)
def _lay_out(source, tile, to, phase, image, form, layout):
    """Lay out an image of the inputs at a phase of the stride, or its outputs' gradient where phase
    is -1.

    source: of the image; tile: SIDE times SIDE elements, with the frame behind; to: where planes
    begin; image: its number there.
    """
    h, w, c, kh, kw, oh, ow, k, stride, top, left = form
    frame = as_bf16(advance(tile, SIDE * SIDE))
    if phase < 0:
        fill(source, frame, Plane(oh, ow, k, oh, layout.pitch, 1, 0, 0, layout.pixels))
        first = layout.gradients_at + image * (layout.pixels // 2)
        _transpose(frame, advance(to, first), tile, k, layout)
        return
    lines, size, across = oh + (kh - 1) // stride, 2 * layout.pairs + 1, min(stride, kw)
    down, right = phase // across - top, phase % across - left
    fill(source, frame, Plane(h, w, c, lines, layout.pitch, stride, down, right, size))
    for odd in range(2):
        first = (2 * phase + odd) * layout.plane + image * layout.pairs * layout.width
        _pair_pixels(advance(frame, odd * c), advance(to, first), c, layout)


@njit(**INNER)
def _add_taps(planes, gradients, sums, taps, corner, added, images, form, layout):
    """Write or add to the sums of filter taps taps[0] .. taps[1], for a block whose corner is
    (first filter, first channel).
    """
    (first, end), kw, stride, width = taps, form.kw, form.stride, layout.width
    across = min(stride, kw)
    rows = min(ROWS, layout.filters - corner[0])
    a = as_bf16(advance(gradients, corner[0] * layout.row))
    panel = advance(planes, corner[1] * (layout.images * layout.pairs))
    # A chunk is a part of an image, or some images.
    steps = layout.pixels // TERMS
    parts, together = max(1, (steps + CHUNK // 2) // CHUNK), max(1, CHUNK // steps)
    for item in range((images + together - 1) // together * parts):
        image, part = item // parts * together, item % parts
        step = part * steps // parts
        strides = Strides(
            outer=min(together, images - image),
            inner=(part + 1) * steps // parts - step,
            a_outer=layout.pixels,
            a_row=2 * layout.row,
            b_outer=layout.pairs * width,
            b_row=width,
            c_row=layout.channels,
        )
        left = advance(a, image * layout.pixels + step * TERMS)
        # First all taps that read even pairs, then the others.
        for turn in range(2 * (end - first)):
            odd, tap = turn // (end - first), first + turn % (end - first)
            ky, kx = tap // kw, tap % kw
            shift = ky // stride * layout.pitch + kx // stride
            if shift % 2 != odd:
                continue
            plane = 2 * (ky % stride * across + kx % stride) + odd
            pair = image * layout.pairs + step * SIDE + shift // 2
            b = advance(panel, plane * layout.plane + pair * width)
            c = advance(sums, tap * layout.filters * layout.channels)
            if added or item > 0:
                _multiply_add(left, b, c, strides, rows, width)
            else:
                multiply(left, b, c, strides, rows, width)


@njit(**INNER)
def _write_taps(sums, tile, taps, corner, counts, layout, out):
    """Write a block's sums of some taps, transposed, to the filters' gradient (kh, kw, c, k).
    counts: (c, k). tile: SIDE times SIDE elements.
    """
    (c, k), (column, channel) = counts, corner
    for tap in range(taps[0], taps[1]):
        for i in range(0, min(layout.width, c - channel), SIDE):
            for j in range(0, min(ROWS, k - column), SIDE):
                at = (tap * layout.filters + j) * layout.channels + i
                transpose_block(advance(sums, at), layout.channels, tile, SIDE)
                for line in range(min(SIDE, c - channel - i)):
                    to = (tap * c + channel + i + line) * k + column + j
                    store(out, to, load(tile, line * SIDE, SIDE), min(SIDE, k - column - j))


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


@njit(**INNER)
def _sum_images(inputs, gradient, tile, sums, first, end, form, layout):
    """Write the sums of the images first .. end. tile: with a frame and planes behind."""
    image_size, slope_size = form.h * form.w * form.c, form.oh * form.ow * form.k
    planes = advance(tile, SIDE * SIDE + _frame_size(form, layout))
    taps = form.kh * form.kw
    for start in range(first, end, layout.images):
        images = min(layout.images, end - start)
        for image in range(images):
            slope = advance(gradient, (start + image) * slope_size)
            _lay_out(slope, tile, planes, -1, image, form, layout)
            source = advance(inputs, (start + image) * image_size)
            for phase in range(_phases(form)):
                _lay_out(source, tile, planes, phase, image, form, layout)
        slopes = advance(planes, layout.gradients_at)
        start_tiles()
        for row in range(0, layout.filters, ROWS):
            for column in range(0, layout.channels, layout.width):
                to, corner = advance(sums, row * layout.channels + column), (row, column)
                added = start > first
                _add_taps(planes, slopes, to, (0, taps), corner, added, images, form, layout)
        end_tiles()


@njit(parallel=True, **KERNEL)
def _sum_by_parts(inputs, gradient, stride, padding, parts, scratch, out):
    """Write the filters' gradient, by so many parts of the images."""
    (n, h, w, c), (oh, ow, k), (kh, kw) = inputs.shape, gradient.shape[1:], out.shape[:2]
    top, left = padding
    most = (n + parts - 1) // parts
    form_of = Form(h, w, c, kh, kw, oh, ow, k, stride, top, left)
    all_of = _layout(most, form_of)
    filters, channels, share = all_of.filters, all_of.channels, _share(form_of, all_of)
    size = kh * kw * filters * channels
    for part in prange(parts):
        form = Form(h, w, c, kh, kw, oh, ow, k, stride, top, left)
        _sum_images(
            pointer(inputs, 0),
            pointer(gradient, 0),
            pointer(scratch, parts * size + numba.get_thread_id() * share),
            pointer(scratch, part * size),
            part * n // parts,
            (part + 1) * n // parts,
            form,
            _layout(most, form),
        )
    for tap in prange(kh * kw):
        at, length = tap * filters * channels, filters * channels
        for part in range(1, parts):
            add_to(pointer(scratch, part * size + at), pointer(scratch, at), length)
        layout = _layout(most, Form(h, w, c, kh, kw, oh, ow, k, stride, top, left))
        tile = pointer(scratch, parts * size + numba.get_thread_id() * share)
        for row in range(0, filters, ROWS):
            for column in range(0, channels, layout.width):
                sums, corner = pointer(scratch, row * channels + column), (row, column)
                _write_taps(sums, tile, (tap, tap + 1), corner, (c, k), layout, pointer(out, 0))


@njit(parallel=True, **KERNEL)
def _sum_by_blocks(inputs, gradient, stride, padding, scratch, out, threads):
    """Write the filters' gradient, of which so many threads share the blocks: a thread takes some
    filters, and for each panel of channels all of these.
    """
    (n, h, w, c), (oh, ow, k), (kh, kw) = inputs.shape, gradient.shape[1:], out.shape[:2]
    top, left = padding
    form_of = Form(h, w, c, kh, kw, oh, ow, k, stride, top, left)
    all_of, layouts = _layout(n, form_of), _phases(form_of) + 1
    together, filters, channels = all_of.images, all_of.filters, all_of.channels
    gradients_at, sums_at, frames_at = all_of.gradients_at, all_of.sums_at, all_of.frames_at
    share = _frame_size(form_of, all_of) + SIDE * SIDE
    panels, heights = channels // all_of.width, (filters + ROWS - 1) // ROWS
    groups = min(threads, heights)
    tall, blocks = (heights + groups - 1) // groups, heights * panels
    taps = kh * kw if blocks >= threads else kw if blocks * kh >= threads else 1
    parts = kh * kw // taps
    for start in range(0, n, together):
        images = min(together, n - start)
        for item in prange(images * layouts):
            image, phase = item // layouts, item % layouts - 1
            form = Form(h, w, c, kh, kw, oh, ow, k, stride, top, left)
            layout = _layout(n, form)
            tile = pointer(scratch, frames_at + numba.get_thread_id() * share)
            if phase < 0:
                slope = pointer(gradient, (start + image) * oh * ow * k)
                _lay_out(slope, tile, pointer(scratch, 0), phase, image, form, layout)
            else:
                source = pointer(inputs, (start + image) * h * w * c)
                _lay_out(source, tile, pointer(scratch, 0), phase, image, form, layout)
        for item in prange(groups * panels * tall * parts):
            block, part = item // parts, item % parts
            height, panel = block // (panels * tall) * tall + block % tall, block // tall % panels
            if height >= heights:
                continue
            form = Form(h, w, c, kh, kw, oh, ow, k, stride, top, left)
            layout = _layout(n, form)
            taps_of, corner = (
                (part * taps, (part + 1) * taps),
                (height * ROWS, panel * layout.width),
            )
            sums = pointer(scratch, sums_at + corner[0] * channels + corner[1])
            start_tiles()
            _add_taps(
                pointer(scratch, 0),
                pointer(scratch, gradients_at),
                sums,
                taps_of,
                corner,
                start > 0,
                images,
                form,
                layout,
            )
            end_tiles()
            if start + together >= n:
                tile = pointer(scratch, frames_at + numba.get_thread_id() * share)
                _write_taps(sums, tile, taps_of, corner, (c, k), layout, pointer(out, 0))


@njit(**KERNEL)
def _phases(form):
    """Return the frames of an image: one for each place of the stride that the filter reads."""
    return min(form.stride, form.kh) * min(form.stride, form.kw)


@njit(**KERNEL)
def _frame_size(form, layout):
    """Return the elements of a thread's frame, of inputs and then of gradients, with what vectors
    read behind it.
    """
    most = max((2 * layout.pairs + 1) * form.c, layout.pixels * form.k)
    return whole(most + TERMS, 2 * SIDE) // 2


@njit(**KERNEL)
def _share(form, layout):
    """Return the elements of a thread that lays out some images for itself."""
    return SIDE * SIDE + _frame_size(form, layout) + layout.sums_at


def filter_gradient(
    inputs: np.ndarray,
    gradient: np.ndarray,
    stride: int,
    padding: tuple[int, int],
    scratch: np.ndarray,
    out: np.ndarray,
) -> None:
    """Write the filters' gradient to out (kh, kw, c, k). Inputs and gradient: float32 or bf16."""
    form = Form(*inputs.shape[1:], *out.shape[:2], *gradient.shape[1:], stride, *padding)
    parts = gradient_parts(len(inputs), form)
    if parts > 1:
        _sum_by_parts(inputs, gradient, stride, padding, parts, scratch, out)
    else:
        _sum_by_blocks(inputs, gradient, stride, padding, scratch, out, get_threads())


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
    form, threads = Form(*image, *taps, *outputs, stride, *padding), numba.config.NUMBA_NUM_THREADS
    layout = _layout.py_func(max(rows, 1), form)
    size = layout.frames_at + threads * (_frame_size.py_func(form, layout) + SIDE * SIDE)
    parts = gradient_parts(rows, form)
    if parts == 1:
        return size
    # Fewer images may have fewer parts, and more images in each.
    layout = _layout.py_func((rows + LEAST_PARTS - 1) // LEAST_PARTS, form)
    sums = taps[0] * taps[1] * layout.filters * layout.channels
    return max(size, parts * sums + threads * _share.py_func(form, layout))
