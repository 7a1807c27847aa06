"""Separable convolution with batch normalisation, image by image in the cache: what lies between two of them is never stored whole.

A unit reads x, or relu(scale * z + shift) of the unit before, convolves depthwise (stride 1) to d and pointwise to z' = d W + bias,
and sums z' and its squares, from which the caller gets the scale' and shift' of its normalisation. The way back starts from
the gradient g behind the normalisation and its ReLU, computes x and d anew and sums what the unit before needs.
Both directions touch a quarter of the memory of the kernels one after the other. c must be a multiple of two vectors' lanes, k too.
"""

import numba
import numpy as np
from numba import njit, prange

from ensync.kernels.depthwise import add_line_gradient, correlate_line
from ensync.kernels.normalization import add_partial, block_gradient_sums, block_sums, normalize_backward_rows, normalize_rows
from ensync.kernels.panels import ROWS, VECTORS, panel
from ensync.kernels.simd import SIMD, lanes, lanes_of, pointer
from ensync.kernels.vectors import advance, load, store, zeros

OPTIONS = {"cache": True, "error_model": "numpy", "nogil": True}
FILTER_ROWS = {"avx512": 8}.get(SIMD, 4)
PANEL, BIAS_PANEL, ADD_PANEL = panel(started=False), panel(started=True), panel(started=True, rows=FILTER_ROWS)
PARTS = 16      # sums of the weights' gradients, added in their order
STRETCH = 64    # pixels of one product of the weights' gradient, so that its operands stay in the first cache


def fits(shape: tuple[int, int, int], filters: int, itemsize: int) -> bool:
    """Return whether the kernels here apply to images (h, w, c) and so many filters."""
    width = VECTORS * lanes_of(itemsize)
    return shape[0] * shape[1] >= ROWS and shape[2] % width == 0 and filters % width == 0


def scratch_size(shape: tuple[int, int, int], size: int, filters: int) -> int:
    """Return the elements of scratch for images (h, w, c), depthwise filters (size, size, c) and pointwise ones (c, filters)."""
    h, w, c = shape
    sums = PARTS * c * (size * size + filters)
    return 2 * c * filters + sums + numba.config.NUMBA_NUM_THREADS * h * w * (2 * c + max(c, filters))


@njit(**OPTIONS)
def _pack(weights, c, k, turned, target):
    """Write weights (c, k), or their transposed, as panels (panels, rows, width)."""
    (rows, columns), width = (k, c) if turned else (c, k), VECTORS * lanes(target)
    for first in range(0, columns, width):
        for i in range(rows):
            for j in range(width):
                value = weights[first + j, i] if turned else weights[i, first + j]
                target[first * rows + i * width + j] = value


@njit(**OPTIONS)
def _multiply(a, packed, bias, has_bias, target, rows, inner, columns):
    """Write A (rows, inner) times packed panels, plus bias, to target (rows, columns); the last tile may repeat rows."""
    width = VECTORS * lanes(a)
    for block in range(0, rows, 8 * ROWS):
        for first in range(0, columns, width):
            for row in range(block, min(rows, block + 8 * ROWS), ROWS):
                at = min(row, rows - ROWS)
                left, b, to = advance(a, at * inner), advance(packed, first * inner), advance(target, at * columns + first)
                if has_bias:
                    BIAS_PANEL(left, b, advance(bias, first), to, inner, inner, 1, width, 0, columns)
                else:
                    PANEL(left, b, to, to, inner, inner, 1, width, 0, columns)


@njit(**OPTIONS)
def _add_product(a, b, target, rows, c, k):
    """Add A' B, of A (rows, c) and B (rows, k), to target (c, k)."""
    width = VECTORS * lanes(a)
    for start in range(0, rows, STRETCH):
        for first in range(0, k, width):
            for row in range(0, c, FILTER_ROWS):
                to = advance(target, row * k + first)
                ADD_PANEL(advance(a, start * c + row), advance(b, start * k + first), to, to, min(STRETCH, rows - start), 1, c, k, k, k)


@njit(**OPTIONS)
def _add_rows(source, target, elements):
    full = lanes(source)
    for at in range(0, elements, full):
        count = min(full, elements - at)
        store(target, at, load(source, at, count) + load(target, at, count), count)


@njit(**OPTIONS)
def _clear(target, elements):
    full = lanes(target)
    for at in range(0, elements, full):
        store(target, at, zeros(target), min(full, elements - at))


@njit(parallel=True, **OPTIONS)
def _forward(inputs, scale, shift, normalized, depth_weights, no_bias, weights, bias, scratch, outputs, partial, sums):
    (n, h, w, c), k, (kh, kw, _) = inputs.shape, outputs.shape[3], depth_weights.shape
    _pack(weights, c, k, False, scratch)
    for image in prange(n):
        window, source = (h, w, c, kh, kw, h, w, 1, kh // 2, kw // 2), pointer(inputs, image * h * w * c)
        room = pointer(scratch, c * k + numba.get_thread_id() * h * w * (2 * c + max(c, k)))
        if normalized:
            normalize_rows(source, source, 0, pointer(scale, 0), pointer(shift, 0), 0.0, room, c, h * w)
            source = room
        depth, target = advance(room, h * w * c), pointer(outputs, image * h * w * k)
        for y in range(h):
            correlate_line(source, pointer(depth_weights, 0), pointer(no_bias, 0), depth, 1, window, y)
        _multiply(depth, pointer(scratch, 0), pointer(bias, 0), 1, target, h * w, c, k)
        block_sums(target, pointer(partial, image * 2 * k), k, h * w)
    add_partial(partial, n, sums)


@njit(**OPTIONS)
def _image_backward(gradient, outputs, norm, inputs, before, normalized, depth_weights, no_bias, skip, has_skip, window, turned, k,
                    packed, room, out, partial, depth_sums, weight_sums):
    """The way back through one image; all arrays are addresses. norm = (scale, shift, floor, coefficients), before = (scale, shift)."""
    h, w, c = window[0], window[1], window[2]
    behind, depth, x = room, advance(room, h * w * max(c, k)), inputs
    normalize_backward_rows(gradient, outputs, norm[0], norm[1], norm[2], norm[3], advance(norm[3], k), behind, k, h * w)
    if normalized:
        x = advance(depth, h * w * c)
        normalize_rows(inputs, inputs, 0, before[0], before[1], 0.0, x, c, h * w)
    for y in range(h):
        correlate_line(x, depth_weights, no_bias, depth, 1, window, y)
    _add_product(depth, behind, weight_sums, h * w, c, k)
    _multiply(behind, packed, no_bias, 0, depth, h * w, k, c)
    for y in range(h):
        add_line_gradient(x, depth, depth_sums, window, y)
        correlate_line(depth, depth_weights, no_bias, out, -1, turned, y)
    if has_skip:
        _add_rows(skip, out, h * w * c)
    if normalized:
        block_gradient_sums(out, inputs, before[0], before[1], 0.0, partial, c, h * w)


@njit(parallel=True, **OPTIONS)
def _backward(gradient, outputs, scale, shift, floor, coefficients, inputs, before_scale, before_shift, normalized, depth_weights, no_bias,
              weights, skip, scratch, out, depth_gradient, weights_gradient, partial, sums):
    (n, h, w, c), k, (kh, kw, _) = inputs.shape, outputs.shape[3], depth_weights.shape
    _pack(weights, c, k, True, scratch)
    parts, taps, has_skip = min(n, PARTS), kh * kw * c, int(skip.size > 0)
    for part in prange(parts):
        mine = c * k + part * (taps + c * k)
        depth_sums, weight_sums = pointer(scratch, mine), pointer(scratch, mine + taps)
        _clear(depth_sums, taps + c * k)
        room = pointer(scratch, c * k + PARTS * (taps + c * k) + numba.get_thread_id() * h * w * (2 * c + max(c, k)))
        window = (h, w, c, kh, kw, h, w, 1, kh // 2, kw // 2)
        turned = (h, w, c, kh, kw, h, w, 1, kh - 1 - kh // 2, kw - 1 - kw // 2)
        norm = (pointer(scale, 0), pointer(shift, 0), floor, pointer(coefficients, 0))
        for image in range(n * part // parts, n * (part + 1) // parts):
            x, y = image * h * w * c, image * h * w * k
            _image_backward(pointer(gradient, y), pointer(outputs, y), norm, pointer(inputs, x), (pointer(before_scale, 0), pointer(before_shift, 0)),
                            normalized, pointer(depth_weights, 0), pointer(no_bias, 0), pointer(skip, x * has_skip), has_skip, window, turned, k,
                            pointer(scratch, 0), room, pointer(out, x), pointer(partial, image * 2 * c), depth_sums, weight_sums)
    depth_flat, weights_flat = depth_gradient.reshape(taps), weights_gradient.reshape(c * k)
    depth_flat[:] = 0
    weights_flat[:] = 0
    for part in range(parts):
        mine = c * k + part * (taps + c * k)
        depth_flat += scratch[mine : mine + taps]
        weights_flat += scratch[mine + taps : mine + taps + c * k]
    if normalized:
        add_partial(partial, n, sums)


def separable_forward(inputs: np.ndarray, scale: np.ndarray, shift: np.ndarray, normalized: bool, depth_weights: np.ndarray, no_bias: np.ndarray,
                      weights: np.ndarray, bias: np.ndarray, scratch: np.ndarray, outputs: np.ndarray, partial: np.ndarray, sums: np.ndarray) -> None:
    """Write z' to outputs (n, h, w, k) and (sum, sum of squares) of its channels to sums (2, k), float64.

    inputs (n, h, w, c): x, or z where `normalized`, with scale and shift (c) of its normalisation, which a ReLU follows.
    depth_weights (size, size, c), no_bias: (c) zeros, weights (c, k), bias (k), partial: scratch (n, 2, k). n may be 0.
    """
    _forward(inputs, scale, shift, int(normalized), depth_weights, no_bias, weights, bias, scratch, outputs, partial, sums)


def separable_backward(gradient: np.ndarray, outputs: np.ndarray, scale: np.ndarray, shift: np.ndarray, relu: bool, coefficients: np.ndarray,
                       inputs: np.ndarray, before: tuple[np.ndarray, np.ndarray], normalized: bool, depth_weights: np.ndarray, no_bias: np.ndarray,
                       weights: np.ndarray, skip: np.ndarray, scratch: np.ndarray, out: np.ndarray, depth_gradient: np.ndarray,
                       weights_gradient: np.ndarray, partial: np.ndarray, sums: np.ndarray) -> None:
    """Write the gradient of x to out (n, h, w, c), plus skip of that shape or of size 0, and those of both weights.

    gradient (n, h, w, k): behind the normalisation (scale, shift, coefficients (2, k)) of outputs z' and its ReLU, if one follows.
    inputs, before = (scale, shift), normalized: as given to `separable_forward`; where normalized, sums (2, c), float64, become those
    of `channel_gradient_sums` of the unit before; partial: scratch (n, 2, c). no_bias: max(c, k) zeros. The bias' gradient is 0 under
    statistics of the batch.
    """
    floor = outputs.dtype.type(0.0 if relu else -np.inf)
    _backward(gradient, outputs, scale, shift, floor, coefficients, inputs, *before, int(normalized), depth_weights, no_bias, weights, skip, scratch,
              out, depth_gradient, weights_gradient, partial, sums)
