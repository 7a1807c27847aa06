"""Separable convolution with batch normalisation, image by image in the cache: what lies between
two of them is never stored whole.

A unit reads x, or relu(scale * (z - center) + shift) of the unit before, convolves depthwise
(stride 1) to d and pointwise to z' = d W + bias, and sums z' and its squares, from which the caller
gets the affine' of its normalisation (normalization.py). The backward pass starts from the gradient
of what follows the normalisation and its ReLU, computes x and d again and sums what the unit before
needs. Both directions touch a quarter of the memory of the kernels one after the other. c must be a
multiple of two vectors' lanes, k too. `bf16`: None, or a flag for products of bf16 numbers with
float32 sums (simd/operands.py); then x, z, their gradients and what is written may be bf16 (uint16)
too, which halves the memory that is touched, and x always goes through a thread's buffer, as
float32. `general`: as in depthwise.py.
"""

import math
from typing import NamedTuple

import numba
import numpy as np
from numba import njit, prange

from ensync.kernels.convolution.depthwise import add_line_gradient, correlate_line
from ensync.kernels.convolution.depthwise_framed import Window
from ensync.kernels.convolution.strips import (
    ROOM,
    ROWS,
    Ahead,
    Size,
    add_product,
    multiply,
    pack_panels,
)
from ensync.kernels.elementwise.normalization import (
    CHUNK,
    add_about_pivots,
    add_partial,
    block_gradient_sums,
    block_sums,
    keep_pivot,
    load_affine,
    normalize_backward_rows,
    normalize_rows,
)
from ensync.kernels.options import INNER, KERNEL
from ensync.kernels.simd.host import lanes_of
from ensync.kernels.simd.intrinsics import lanes, pointer
from ensync.kernels.simd.matrix_tiles import SIDE, TERMS
from ensync.kernels.simd.memory import add_to, clear, move_last_to_front
from ensync.kernels.simd.operands import as_operand, operands, terms_of
from ensync.kernels.simd.panels import VECTORS
from ensync.kernels.simd.vectors import (
    advance,
    choose,
    fma,
    greater,
    load,
    pair,
    splat,
    store,
    store_halves,
    zeros,
)

PARTS = 16  # sums of the weights' gradients, added in their order
# Elements between pixels of a thread's buffer (float32, float64; pairs of bf16 have none): lines
# of 512 bytes or a multiple, one below the other, would share an eighth of the first cache's sets.
GAP = 16


class Input(NamedTuple):
    """What a unit reads: values (n, h, w, c), which are x, or z of the unit before where
    `normalized`, with affine (3, c) of its normalisation, which a ReLU follows. Elsewhere affine
    changes nothing.
    """

    values: np.ndarray
    affine: np.ndarray
    normalized: bool


class Filters(NamedTuple):
    """The parameters of a unit: depthwise (size, size, c), weights (c, k), bias (k); no_bias:
    max(c, k) zeros.
    """

    depthwise: np.ndarray
    no_bias: np.ndarray
    weights: np.ndarray
    bias: np.ndarray


class Output(NamedTuple):
    """Gradient (n, h, w, k) of what follows a unit, its values z' (n, h, w, k), and the
    normalisation between: affine (3, k), whether a ReLU follows, coefficients (2, k) of its
    gradient.
    """

    gradient: np.ndarray
    values: np.ndarray
    affine: np.ndarray
    relu: bool
    coefficients: np.ndarray


class Gradients(NamedTuple):
    """Where the backward pass writes: the gradients of x (n, h, w, c) and of both filters."""

    inputs: np.ndarray
    depthwise: np.ndarray
    weights: np.ndarray


class Buffers(NamedTuple):
    """Scratch of `scratch_size` elements, and partial sums: (n, 3, k) forward, (n, 3, c)
    backward.
    """

    scratch: np.ndarray
    partial: np.ndarray


class Shape(NamedTuple):
    """Image (h, w, c), outputs' channels k, filter (kh, kw), and lines of a strip."""

    h: int
    w: int
    c: int
    k: int
    kh: int
    kw: int
    strip: int


class Source(NamedTuple):
    """`Input` of one image, by addresses; floor: of its normalisation."""

    values: int
    affine: int
    floor: float
    normalized: int


class Operands(NamedTuple):
    """`Filters` by addresses; packed: the weights in panels."""

    depthwise: int
    no_bias: int
    packed: int
    bias: int


class Target(NamedTuple):
    """`Output` of one image, by addresses, with the gradient of its normalisation; floor: of the
    ReLU.
    """

    gradient: int
    values: int
    affine: int
    floor: float
    coefficients: int


class Skip(NamedTuple):
    """The address of what is added to the gradient of x, and whether there is any."""

    values: int
    exists: int


class Sums(NamedTuple):
    """Where the backward pass of one image writes, by addresses: the gradient of x, the sums for
    the unit before, and of both filters.
    """

    inputs: int
    partial: int
    depthwise: int
    weights: int


@njit(**INNER)
def pitch_of(channels, bf16):
    """Return the elements from one pixel to the next in a thread's buffer."""
    return channels + GAP if bf16 is None else channels


def fits(shape: tuple[int, int, int], filters: int, itemsize: int) -> bool:
    """Return whether the kernels here apply to images (h, w, c) and so many filters."""
    width = VECTORS * lanes_of(itemsize)
    return shape[0] * shape[1] >= ROWS and shape[2] % width == 0 and filters % width == 0


def strip_lines(w: int) -> int:
    """Return how many lines of an image to take at a time: whole tiles of pixels, few enough for
    the caches.
    """
    whole = ROWS // math.gcd(ROWS, w)
    return whole * -(-3 // whole)


@njit(**INNER)
def strip_end(y, strip, h, w):
    """Return the end of the strip that starts at line y; a rest too small for a tile belongs to
    it.
    """
    end = y + strip
    return h if (h - end) * w < ROWS else end


@njit(**KERNEL)
def buffer_size(w, c, k, kh, strip):
    """Elements of a thread's buffer: x and the gradient of d with the lines around a strip, d, the
    gradient behind it, sums; and what products by tiles need.
    """
    longest = strip + -(-ROWS // w)
    return (
        2 * (longest + kh - 1) * w * (c + GAP)
        + longest * w * (c + k + 2 * GAP + max(c, k) // 2)
        + 2 * max(c, k)
        + ROOM
        + c * (longest * w // 2 + TERMS)
        + k * SIDE
    )


def scratch_size(shape: tuple[int, int, int], size: int, filters: int) -> int:
    """Return the elements of scratch for images (h, w, c), depthwise filters (size, size, c) and
    pointwise ones (c, filters).
    """
    h, w, c = shape
    sums = PARTS * c * (size * size + filters)
    return (
        2 * c * filters
        + sums
        + numba.config.NUMBA_NUM_THREADS * buffer_size.py_func(w, c, filters, size, strip_lines(w))
    )


@njit(**INNER)
def _output_gradient_pairs(target, first_row, halves, pairs, k, rows):
    """As `normalize_backward_rows`, to `halves` as bf16 along the channels and to `pairs` as
    pairs of rows; an odd last row is paired with zeros.
    """
    gradient, values = advance(target.gradient, first_row), advance(target.values, first_row)
    affine, floor, coefficients = target.affine, target.floor, target.coefficients
    full, low, nothing = lanes(values), splat(values, floor), zeros(values)
    for first in range(0, rows, CHUNK):
        for j in range(0, k, full):
            (m, a, b), p, q = (
                load_affine(affine, k, j, full),
                load(coefficients, j, full),
                load(coefficients, k + j, full),
            )
            for row in range(first, min(rows, first + CHUNK), 2):
                at = row * k + j
                x = load(values, at, full) - m
                above = fma(
                    choose(greater(fma(x, a, b), low), load(gradient, at, full), nothing),
                    a,
                    fma(x, p, q),
                )
                store_halves(halves, at // 2, above)
                below = nothing
                if row + 1 < rows:
                    x = load(values, at + k, full) - m
                    below = fma(
                        choose(greater(fma(x, a, b), low), load(gradient, at + k, full), nothing),
                        a,
                        fma(x, p, q),
                    )
                    store_halves(halves, (at + k) // 2, below)
                store(pairs, row // 2 * k + j, pair(above, below), full)


@njit(**INNER)
def _output_gradient(target, start, to, halves, k, rows, pitch, bf16):
    """Write the gradient of z' of `rows` pixels from element `start` on to `to`, for the product
    with d. Return the address of the same as an operand of the product with the weights.
    """
    if bf16 is not None:
        _output_gradient_pairs(target, start, halves, to, k, rows)
        return halves
    normalize_backward_rows(
        advance(target.gradient, start),
        advance(target.values, start),
        target.affine,
        target.floor,
        target.coefficients,
        to,
        k,
        pitch,
        rows,
    )
    return to


@njit(**INNER)
def _input_lines(source, buffer, first, have, needed, shape, pitch, bf16):
    """Return the address of x, its first line and the number of its lines, up to `needed`, of which
    the buffer has the lines first .. first + have.

    Normalised lines, and those of bf16, are written to the buffer behind the last ones that the
    next strip reads too.
    """
    h, w, c, _, kh, _, _ = shape
    if bf16 is None:
        if not source.normalized:
            return source.values, 0, h
    kept, old = move_last_to_front(buffer, have, kh - 1, w * pitch), first + have
    normalize_rows(
        advance(source.values, old * w * c),
        source.values,
        0,
        source.affine,
        source.floor,
        advance(buffer, kept * w * pitch),
        c,
        pitch,
        (needed - old) * w,
    )
    return buffer, old - kept, needed - old + kept


@njit(forceinline=True, **INNER)
def _window(shape, lines, pitch, out_pitch):
    """Return the window of the depthwise convolution over so many lines."""
    _, w, c, _, kh, kw, _ = shape
    return Window(lines, w, c, kh, kw, lines, w, 1, kh // 2, kw // 2, pitch, out_pitch)


@njit(**INNER)
def _image_forward(source, filters, buffer, target, partial, shape, bf16, general):
    """Convolve one image, strip by strip; all arrays are addresses. buffer: the strip's lines of x
    with those around it, d, sums.
    """
    h, w, c, k, kh, kw, strip = shape
    pitch = pitch_of(c, bf16)
    # A line of the image, and of the buffer.
    line, wide, below, longest = w * c, w * pitch, kh - 1 - kh // 2, strip + -(-ROWS // w)
    depth = advance(buffer, (longest + kh - 1) * wide)
    sums = advance(buffer, (2 * longest + kh - 1) * wide)
    room = advance(sums, 2 * k)
    first = have = 0  # of the lines of x in the buffer, and their number
    end = 0
    while end < h:
        y, end = end, strip_end(end, strip, h, w)
        needed, pixels = min(h, end + below), (end - y) * w
        x, first, have = _input_lines(source, buffer, first, have, needed, shape, pitch, bf16)
        window = _window(shape, have, pitch if source.normalized else c, pitch)
        to = advance(target, y * w * k)
        coming = strip_end(end, strip, h, w) - end
        ahead = Ahead(
            advance(source.values, needed * line),
            min(coming, h - needed) * line,
            advance(to, pixels * k),
            coming * w * k,
        )
        for i in range(y, end):
            correlate_line(
                x,
                filters.depthwise,
                filters.no_bias,
                advance(as_operand(depth, bf16), (first - y) * wide),
                1,
                window,
                i - first,
                general,
            )
        size = Size(pixels, terms_of(c, bf16), k, terms_of(pitch, bf16), k)
        multiply(depth, filters.packed, filters.bias, np.int64(1), to, size, ahead, room, bf16)
        if y == 0:
            keep_pivot(target, advance(partial, 2 * k), k, end * w)
        block_sums(to, advance(partial, 2 * k), sums, k, pixels)
        add_to(sums, partial, 2 * k)


@njit(parallel=True, **KERNEL)
def _forward(given, filters, strip, outputs, sums, buffers, bf16, general):
    inputs, affine, normalized = given
    depth_weights, no_bias, weights, bias = filters
    scratch, partial = buffers
    (n, h, w, c), k, (kh, kw, _) = inputs.shape, outputs.shape[3], depth_weights.shape
    pack_panels(weights, c, k, False, scratch, bf16)
    share = buffer_size(w, c, k, kh, strip)
    for image in prange(n):
        mine = pointer(partial, image * 3 * k)
        clear(mine, 2 * k)
        _image_forward(
            Source(
                pointer(inputs, image * h * w * c),
                pointer(affine, 0),
                0.0 if normalized else -np.inf,
                normalized,
            ),
            Operands(
                pointer(depth_weights, 0),
                pointer(no_bias, 0),
                pointer(scratch, 0),
                pointer(bias, 0),
            ),
            pointer(scratch, c * k + numba.get_thread_id() * share),
            pointer(outputs, image * h * w * k),
            mine,
            Shape(h, w, c, k, kh, kw, strip),
            bf16,
            general,
        )
    add_about_pivots(partial, n, n * h * w, h * w, sums)


@njit(**INNER)
def _image_backward(target, source, filters, skip, shape, buffer, sums, bf16, general):
    """The backward pass of one image, strip by strip; all arrays are addresses.

    A line of the gradient of x follows when the gradient of d behind it is known, up to kh - 1
    lines later.
    """
    h, w, c, k, kh, kw, strip = shape
    pitch, k_pitch = pitch_of(c, bf16), pitch_of(k, bf16)
    # A line of the image, and of the buffer.
    line, wide, above, longest = w * c, w * pitch, kh // 2, strip + -(-ROWS // w)
    below = kh - 1 - above
    slope = advance(buffer, (longest + kh - 1) * wide)
    depth = advance(buffer, 2 * (longest + kh - 1) * wide)
    behind = advance(depth, longest * wide)
    channel_sums = advance(behind, longest * w * k_pitch + SIDE * k)
    halves = advance(channel_sums, 2 * max(c, k))
    room = advance(halves, longest * w * max(c, k) // 2)
    # Lines of x in the buffer: first .. first + have; of the gradient of d: at .. at + known; of
    # the gradient of x those before `done` are written.
    first = have = at = known = done = 0
    end = 0
    while end < h:
        y, end = end, strip_end(end, strip, h, w)
        needed, pixels = min(h, end + below), (end - y) * w
        operand = _output_gradient(target, y * w * k, behind, halves, k, pixels, k_pitch, bf16)
        x, first, have = _input_lines(source, buffer, first, have, needed, shape, pitch, bf16)
        window = _window(shape, have, pitch if source.normalized else c, pitch)
        for i in range(y, end):
            correlate_line(
                x,
                filters.depthwise,
                filters.no_bias,
                advance(depth, (first - y) * wide),
                1,
                window,
                i - first,
                general,
            )
        coming = strip_end(end, strip, h, w) - end
        outputs_ahead = Ahead(
            advance(target.gradient, end * w * k),
            coming * w * k,
            advance(target.values, end * w * k),
            coming * w * k,
        )
        inputs_ahead = Ahead(
            advance(source.values, needed * line),
            min(coming, h - needed) * line,
            advance(sums.inputs, end * line),
            coming * line,
        )
        kept = move_last_to_front(slope, known, kh - 1, wide)
        at, known = at + known - kept, kept + end - y
        size = Size(pixels, c, k, pitch, k)
        add_product(depth, behind, sums.weights, size, k_pitch, outputs_ahead, room, bf16)
        multiply(
            operand,
            filters.packed,
            filters.no_bias,
            np.int64(0),
            advance(slope, kept * wide),
            Size(pixels, terms_of(k, bf16), c, terms_of(k_pitch, bf16), pitch),
            inputs_ahead,
            room,
            bf16,
        )
        for i in range(y, end):
            add_line_gradient(
                x, advance(slope, (first - at) * wide), sums.depthwise, window, i - first, general
            )
        turned = Window(known, w, c, kh, kw, known, w, 1, below, kw - 1 - kw // 2, pitch, c)
        ready = h if end == h else end - above
        for i in range(done, ready):
            correlate_line(
                slope,
                filters.depthwise,
                filters.no_bias,
                advance(sums.inputs, at * line),
                -1,
                turned,
                i - at,
                general,
            )
        out = advance(sums.inputs, done * line)
        if skip.exists:
            add_to(advance(skip.values, done * line), out, (ready - done) * line)
        if source.normalized:
            block_gradient_sums(
                out,
                advance(source.values, done * line),
                source.affine,
                0.0,
                channel_sums,
                c,
                (ready - done) * w,
            )
            add_to(channel_sums, sums.partial, 2 * c)
        done = ready


@njit(parallel=True, **KERNEL)
def _backward(output, given, filters, skip, strip, gradients, sums, buffers, bf16, general):
    gradient, values, affine, relu, coefficients = output
    inputs, input_affine, normalized = given
    depth_weights, no_bias, weights, _ = filters
    out, depth_gradient, weights_gradient = gradients
    scratch, partial = buffers
    (n, h, w, c), k, (kh, kw, _) = inputs.shape, values.shape[3], depth_weights.shape
    floor = affine.dtype.type(0.0) if relu else affine.dtype.type(-np.inf)
    pack_panels(weights, c, k, True, scratch, bf16)
    parts, taps, has_skip = min(n, PARTS), kh * kw * c, int(skip.size > 0)
    share = buffer_size(w, c, k, kh, strip)
    for part in prange(parts):
        mine = c * k + part * (taps + c * k)
        clear(pointer(scratch, mine), taps + c * k)
        buffers_at = c * k + PARTS * (taps + c * k)
        for image in range(n * part // parts, n * (part + 1) // parts):
            x, y = image * h * w * c, image * h * w * k
            clear(pointer(partial, image * 3 * c), 2 * c)
            _image_backward(
                Target(
                    pointer(gradient, y),
                    pointer(values, y),
                    pointer(affine, 0),
                    floor,
                    pointer(coefficients, 0),
                ),
                Source(
                    pointer(inputs, x),
                    pointer(input_affine, 0),
                    0.0 if normalized else -np.inf,
                    normalized,
                ),
                Operands(
                    pointer(depth_weights, 0),
                    pointer(no_bias, 0),
                    pointer(scratch, 0),
                    pointer(no_bias, 0),
                ),
                Skip(pointer(skip, x * has_skip), has_skip),
                Shape(h, w, c, k, kh, kw, strip),
                pointer(scratch, buffers_at + numba.get_thread_id() * share),
                Sums(
                    pointer(out, x),
                    pointer(partial, image * 3 * c),
                    pointer(scratch, mine),
                    pointer(scratch, mine + taps),
                ),
                bf16,
                general,
            )
    depth_flat, weights_flat = depth_gradient.reshape(taps), weights_gradient.reshape(c * k)
    depth_flat[:] = 0
    weights_flat[:] = 0
    for part in range(parts):
        mine = c * k + part * (taps + c * k)
        depth_flat += scratch[mine : mine + taps]
        weights_flat += scratch[mine + taps : mine + taps + c * k]
    if normalized:
        add_partial(partial, n, sums)


def _general(depth_weights: np.ndarray, inputs: np.ndarray) -> bool | None:
    """Return True where depthwise filters need more than the code for 3x3, else None."""
    return None if depth_weights.shape[0] == 3 and inputs.shape[2] > 1 else True


def separable_forward(
    given: Input,
    filters: Filters,
    outputs: np.ndarray,
    sums: np.ndarray,
    buffers: Buffers,
    bf16: bool | None = None,
) -> None:
    """Write z' to outputs (n, h, w, k) and the sums of its channels to sums (2, k), float64, as
    `normalization.channel_sums` does. n may be 0.
    """
    strip, general = strip_lines(given.values.shape[2]), _general(filters.depthwise, given.values)
    _forward(given, filters, strip, outputs, sums, buffers, operands(bf16), general)


def separable_backward(
    output: Output,
    given: Input,
    filters: Filters,
    skip: np.ndarray,
    gradients: Gradients,
    sums: np.ndarray,
    buffers: Buffers,
    bf16: bool | None = None,
) -> None:
    """Write the gradient of x, plus skip of that shape or of size 0, and those of both filters.

    given, filters: as in `separable_forward`; where given is normalized, sums (2, c), float64,
    become those of `channel_gradient_sums` of the unit before. The bias' gradient is 0 under
    statistics of the batch.
    """
    strip, general = strip_lines(given.values.shape[2]), _general(filters.depthwise, given.values)
    _backward(
        output, given, filters, skip, strip, gradients, sums, buffers, operands(bf16), general
    )
