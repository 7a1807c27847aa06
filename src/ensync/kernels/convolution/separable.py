"""Separable convolution with batch normalisation, image by image in the cache: what lies between
two of them is never stored whole.

A unit reads x, or relu(scale * (z - center) + shift) of the unit before, convolves depthwise
(stride 1) to d and pointwise to z' = d W + bias, and sums z' and its squares, from which the caller
gets the affine' of its normalisation (normalization.py). The way back starts from the gradient g
behind the normalisation and its ReLU, computes x and d anew and sums what the unit before needs.
Both directions touch a quarter of the memory of the kernels one after the other. c must be a
multiple of two vectors' lanes, k too. `bf16`: None, or a flag for products of bf16 numbers with
float32 sums; then x, z, their gradients and what is written may be bf16 (uint16) too, which halves
the memory that is touched, and x always goes through a thread's room, as float32. `general`: as in
depthwise.py.
"""

import math

import numba
import numpy as np
from numba import njit, prange

from ensync.kernels.convolution.depthwise import add_line_gradient, correlate_line
from ensync.kernels.convolution.strips import ROWS, add_product, multiply, pack_panels, pair_rows
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
from ensync.kernels.flags import flag
from ensync.kernels.options import INNER, KERNEL
from ensync.kernels.simd.host import lanes_of
from ensync.kernels.simd.intrinsics import lanes, pointer
from ensync.kernels.simd.memory import add_to, clear, keep_last
from ensync.kernels.simd.panels import VECTORS
from ensync.kernels.simd.vectors import (
    advance,
    as_bf16,
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
# Elements between pixels of a thread's room (float32 and float64; pairs of bf16 lie close): lines
# of 512 bytes and their like, one below the other, would meet in an eighth of the first cache's
# sets.
GAP = 16


@njit(**INNER)
def pitch_of(channels, bf16):
    """Return the elements from one pixel to the next in a thread's room."""
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
def room_size(w, c, k, kh, strip):
    """Elements of a thread's room: x and the gradient of d with the lines around a strip, d, the
    gradient behind it, sums.
    """
    longest = strip + -(-ROWS // w)
    return (
        2 * (longest + kh - 1) * w * (c + GAP)
        + longest * w * (c + k + 2 * GAP + max(c, k) // 2)
        + 2 * max(c, k)
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
        + numba.config.NUMBA_NUM_THREADS * room_size.py_func(w, c, filters, size, strip_lines(w))
    )


@njit(**INNER)
def _behind_pairs(gradient, values, norm, halves, pairs, k, rows):
    """As `normalize_backward_rows`, to `halves` as bf16 along the channels and to `pairs` as
    pairs of rows; an odd last row is paired with zeros.
    """
    affine, floor, coefficients = norm
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
def _next_lines(source, before, x, first, have, needed, around, w, c, pitch):
    """Have x hold the normalised lines up to `needed`, and `around` lines before those that are
    new; return its first line and their number.

    before: affine and the floor of the normalisation.
    """
    kept, old = keep_last(x, have, around, w * pitch), first + have
    normalize_rows(
        advance(source, old * w * c),
        source,
        0,
        before[0],
        before[1],
        advance(x, kept * w * pitch),
        c,
        pitch,
        (needed - old) * w,
    )
    return old - kept, needed - old + kept


@njit(**INNER)
def _image_forward(
    source,
    before,
    normalized,
    depth_weights,
    no_bias,
    packed,
    bias,
    room,
    target,
    partial,
    shape,
    bf16,
    general,
):
    """Convolve one image, strip by strip; all arrays are addresses. room: the strip's lines of x
    with those around it, d, sums.
    """
    h, w, c, k, kh, kw, strip = shape
    pitch = pitch_of(c, bf16)
    line, wide, below, longest = (
        w * c,
        w * pitch,
        kh - 1 - kh // 2,
        strip + -(-ROWS // w),
    )  # a line of the image, and of the room
    x, depth, sums = (
        room,
        advance(room, (longest + kh - 1) * wide),
        advance(room, (2 * longest + kh - 1) * wide),
    )
    first = have = 0  # of the lines of x at hand, and their number
    end = 0
    while end < h:
        y, end = end, strip_end(end, strip, h, w)
        needed = min(h, end + below)
        if bf16 is None:
            if normalized:
                first, have = _next_lines(
                    source, before, x, first, have, needed, kh - 1, w, c, pitch
                )
            else:
                x, have = source, h
        else:
            first, have = _next_lines(source, before, x, first, have, needed, kh - 1, w, c, pitch)
        window = (
            have,
            w,
            c,
            kh,
            kw,
            have,
            w,
            1,
            kh // 2,
            kw // 2,
            pitch if normalized else c,
            pitch,
        )
        to = advance(target, y * w * k)
        coming = strip_end(end, strip, h, w) - end
        ahead = (
            advance(source, needed * line),
            min(coming, h - needed) * line,
            advance(to, (end - y) * w * k),
            coming * w * k,
        )
        for i in range(y, end):
            if bf16 is None:
                correlate_line(
                    x,
                    depth_weights,
                    no_bias,
                    advance(depth, (first - y) * wide),
                    1,
                    window,
                    i - first,
                    general,
                )
            else:
                correlate_line(
                    x,
                    depth_weights,
                    no_bias,
                    advance(as_bf16(depth), (first - y) * wide),
                    1,
                    window,
                    i - first,
                    general,
                )
        if bf16 is None:
            multiply(
                depth, packed, bias, np.int64(1), to, (end - y) * w, c, k, (pitch, k), ahead, bf16
            )
        else:
            multiply(
                depth,
                packed,
                bias,
                np.int64(1),
                to,
                (end - y) * w,
                c // 2,
                k,
                (c // 2, k),
                ahead,
                bf16,
            )
        if y == 0:
            keep_pivot(target, advance(partial, 2 * k), k, end * w)
        block_sums(to, advance(partial, 2 * k), sums, k, (end - y) * w)
        add_to(sums, partial, 2 * k)


@njit(parallel=True, **KERNEL)
def _forward(
    inputs,
    affine,
    normalized,
    depth_weights,
    no_bias,
    weights,
    bias,
    strip,
    scratch,
    outputs,
    partial,
    sums,
    bf16,
    general,
):
    (n, h, w, c), k, (kh, kw, _) = inputs.shape, outputs.shape[3], depth_weights.shape
    pack_panels(weights, c, k, False, scratch, bf16)
    shape, share = (h, w, c, k, kh, kw, strip), room_size(w, c, k, kh, strip)
    for image in prange(n):
        mine = pointer(partial, image * 3 * k)
        clear(mine, 2 * k)
        _image_forward(
            pointer(inputs, image * h * w * c),
            (pointer(affine, 0), 0.0 if normalized else -np.inf),
            normalized,
            pointer(depth_weights, 0),
            pointer(no_bias, 0),
            pointer(scratch, 0),
            pointer(bias, 0),
            pointer(scratch, c * k + numba.get_thread_id() * share),
            pointer(outputs, image * h * w * k),
            mine,
            shape,
            bf16,
            general,
        )
    add_about_pivots(partial, n, n * h * w, h * w, sums)


@njit(**INNER)
def _image_backward(
    gradient,
    outputs,
    norm,
    inputs,
    before,
    normalized,
    depth_weights,
    no_bias,
    skip,
    has_skip,
    shape,
    packed,
    room,
    out,
    partial,
    depth_sums,
    weight_sums,
    bf16,
    general,
):
    """The way back through one image, strip by strip; all arrays are addresses. norm = (affine,
    floor, coefficients), before = (affine, floor).

    A line of `out` follows when the gradient of d behind it is known, up to kh - 1 lines later.
    """
    h, w, c, k, kh, kw, strip = shape
    pitch, k_pitch = pitch_of(c, bf16), pitch_of(k, bf16)
    line, wide, below, above, longest = (
        w * c,
        w * pitch,
        kh - 1 - kh // 2,
        kh // 2,
        strip + -(-ROWS // w),
    )  # a line of the image, and of the room
    x, slope, depth = (
        room,
        advance(room, (longest + kh - 1) * wide),
        advance(room, 2 * (longest + kh - 1) * wide),
    )
    behind, sums = advance(depth, longest * wide), advance(depth, longest * (wide + w * k_pitch))
    halves = advance(sums, 2 * max(c, k))
    first = have = at = known = done = (
        # x: lines first .. first + have are at hand; slope: at .. at + known; out: those before
        # `done` are written
        0
    )
    end = 0
    while end < h:
        y, end = end, strip_end(end, strip, h, w)
        needed = min(h, end + below)
        if bf16 is None:
            normalize_backward_rows(
                advance(gradient, y * w * k),
                advance(outputs, y * w * k),
                norm[0],
                norm[1],
                norm[2],
                behind,
                k,
                k_pitch,
                (end - y) * w,
            )
        else:
            _behind_pairs(
                advance(gradient, y * w * k),
                advance(outputs, y * w * k),
                norm,
                halves,
                behind,
                k,
                (end - y) * w,
            )
        if bf16 is None:
            if normalized:
                first, have = _next_lines(
                    inputs, before, x, first, have, needed, kh - 1, w, c, pitch
                )
            else:
                x, have = inputs, h
        else:
            first, have = _next_lines(inputs, before, x, first, have, needed, kh - 1, w, c, pitch)
        window = (
            have,
            w,
            c,
            kh,
            kw,
            have,
            w,
            1,
            kh // 2,
            kw // 2,
            pitch if normalized else c,
            pitch,
        )
        for i in range(y, end):
            correlate_line(
                x,
                depth_weights,
                no_bias,
                advance(depth, (first - y) * wide),
                1,
                window,
                i - first,
                general,
            )
        coming, pixels = strip_end(end, strip, h, w) - end, (end - y) * w
        given = (
            advance(gradient, end * w * k),
            coming * w * k,
            advance(outputs, end * w * k),
            coming * w * k,
        )
        ahead = (
            advance(inputs, needed * line),
            min(coming, h - needed) * line,
            advance(out, end * line),
            coming * line,
        )
        kept = keep_last(slope, known, kh - 1, wide)
        at, known = at + known - kept, kept + end - y
        if bf16 is None:
            add_product(depth, behind, weight_sums, pixels, c, k, (pitch, k_pitch), given, bf16)
            multiply(
                behind,
                packed,
                no_bias,
                np.int64(0),
                advance(slope, kept * wide),
                pixels,
                k,
                c,
                (k_pitch, pitch),
                ahead,
                bf16,
            )
        else:
            pair_rows(depth, pixels, c)
            add_product(depth, behind, weight_sums, (pixels + 1) // 2, c, k, (c, k), given, bf16)
            multiply(
                halves,
                packed,
                no_bias,
                np.int64(0),
                advance(slope, kept * wide),
                pixels,
                k // 2,
                c,
                (k // 2, c),
                ahead,
                bf16,
            )
        for i in range(y, end):
            add_line_gradient(
                x, advance(slope, (first - at) * wide), depth_sums, window, i - first, general
            )
        turned = (known, w, c, kh, kw, known, w, 1, below, kw - 1 - kw // 2, pitch, c)
        ready = h if end == h else end - above
        for i in range(done, ready):
            correlate_line(
                slope, depth_weights, no_bias, advance(out, at * line), -1, turned, i - at, general
            )
        if has_skip:
            add_to(advance(skip, done * line), advance(out, done * line), (ready - done) * line)
        if normalized:
            block_gradient_sums(
                advance(out, done * line),
                advance(inputs, done * line),
                before[0],
                0.0,
                sums,
                c,
                (ready - done) * w,
            )
            add_to(sums, partial, 2 * c)
        done = ready


@njit(parallel=True, **KERNEL)
def _backward(
    gradient,
    outputs,
    affine,
    floor,
    coefficients,
    inputs,
    before_affine,
    normalized,
    depth_weights,
    no_bias,
    weights,
    skip,
    strip,
    scratch,
    out,
    depth_gradient,
    weights_gradient,
    partial,
    sums,
    bf16,
    general,
):
    (n, h, w, c), k, (kh, kw, _) = inputs.shape, outputs.shape[3], depth_weights.shape
    pack_panels(weights, c, k, True, scratch, bf16)
    parts, taps, has_skip, share = (
        min(n, PARTS),
        kh * kw * c,
        int(skip.size > 0),
        room_size(w, c, k, kh, strip),
    )
    for part in prange(parts):
        mine = c * k + part * (taps + c * k)
        depth_sums, weight_sums = pointer(scratch, mine), pointer(scratch, mine + taps)
        clear(depth_sums, taps + c * k)
        room = pointer(scratch, c * k + PARTS * (taps + c * k) + numba.get_thread_id() * share)
        norm = (pointer(affine, 0), floor, pointer(coefficients, 0))
        before = (pointer(before_affine, 0), 0.0 if normalized else -np.inf)
        for image in range(n * part // parts, n * (part + 1) // parts):
            x, y = image * h * w * c, image * h * w * k
            clear(pointer(partial, image * 3 * c), 2 * c)
            _image_backward(
                pointer(gradient, y),
                pointer(outputs, y),
                norm,
                pointer(inputs, x),
                before,
                normalized,
                pointer(depth_weights, 0),
                pointer(no_bias, 0),
                pointer(skip, x * has_skip),
                has_skip,
                (h, w, c, k, kh, kw, strip),
                pointer(scratch, 0),
                room,
                pointer(out, x),
                pointer(partial, image * 3 * c),
                depth_sums,
                weight_sums,
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
    """Whether depthwise filters need more than the code for 3x3."""
    return None if depth_weights.shape[0] == 3 and inputs.shape[2] > 1 else True


def separable_forward(
    inputs: np.ndarray,
    affine: np.ndarray,
    normalized: bool,
    depth_weights: np.ndarray,
    no_bias: np.ndarray,
    weights: np.ndarray,
    bias: np.ndarray,
    scratch: np.ndarray,
    outputs: np.ndarray,
    partial: np.ndarray,
    sums: np.ndarray,
    bf16: bool | None = None,
) -> None:
    """Write z' to outputs (n, h, w, k) and the sums of its channels to sums (2, k), float64, as
    `normalization.channel_sums` does.

    inputs (n, h, w, c): x, or z where `normalized`, with affine (3, c) of its normalisation, which
    a ReLU follows; elsewhere affine changes nothing. depth_weights (size, size, c), no_bias: (c)
    zeros, weights (c, k), bias (k), partial: scratch (n, 3, k). n may be 0.
    """
    _forward(
        inputs,
        affine,
        int(normalized),
        depth_weights,
        no_bias,
        weights,
        bias,
        strip_lines(inputs.shape[2]),
        scratch,
        outputs,
        partial,
        sums,
        flag(bf16),
        _general(depth_weights, inputs),
    )


def separable_backward(
    gradient: np.ndarray,
    outputs: np.ndarray,
    affine: np.ndarray,
    relu: bool,
    coefficients: np.ndarray,
    inputs: np.ndarray,
    before: np.ndarray,
    normalized: bool,
    depth_weights: np.ndarray,
    no_bias: np.ndarray,
    weights: np.ndarray,
    skip: np.ndarray,
    scratch: np.ndarray,
    out: np.ndarray,
    depth_gradient: np.ndarray,
    weights_gradient: np.ndarray,
    partial: np.ndarray,
    sums: np.ndarray,
    bf16: bool | None = None,
) -> None:
    """Write the gradient of x to out (n, h, w, c), plus skip of that shape or of size 0, and those
    of both weights.

    gradient (n, h, w, k): behind the normalisation (affine (3, k), coefficients (2, k)) of outputs
    z' and its ReLU, if one follows. inputs, before (its affine), normalized: as given to
    `separable_forward`; where normalized, sums (2, c), float64, become those of
    `channel_gradient_sums` of the unit before; partial: scratch (n, 3, c). no_bias: max(c, k)
    zeros. The bias' gradient is 0 under statistics of the batch.
    """
    floor = affine.dtype.type(0.0 if relu else -np.inf)
    _backward(
        gradient,
        outputs,
        affine,
        floor,
        coefficients,
        inputs,
        before,
        int(normalized),
        depth_weights,
        no_bias,
        weights,
        skip,
        strip_lines(inputs.shape[2]),
        scratch,
        out,
        depth_gradient,
        weights_gradient,
        partial,
        sums,
        flag(bf16),
        _general(depth_weights, inputs),
    )
