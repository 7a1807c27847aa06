"""Local response normalisation across channels (Krizhevsky et al. 2012, section 3.3).

    outputs[c] = inputs[c] * s[c]**-beta,   s[c] = k + alpha * sum of inputs[d]**2 over d from c - n
    // 2 to c + (n - 1) // 2

alpha is not divided by n, as in the paper (PyTorch divides it). Memory bounds the speed: the
backward pass computes s again, since a sum of squares from the first cache costs less than reading
it. Each thread has scratch for the squares of GROUP pixels and for what their gradients share, in
rows framed by zeros, so that windows at the edge need no masks.
"""

import numba
import numpy as np
from numba import njit, prange

from ensync.kernels.options import INNER, KERNEL
from ensync.kernels.simd.host import lanes_of
from ensync.kernels.simd.intrinsics import flush_tiny_numbers, lanes, pointer, restore
from ensync.kernels.simd.vectors import (
    advance,
    fetch,
    fma,
    load,
    power,
    splat,
    square_root,
    store,
    zeros,
)

BLOCK = 64  # pixels of one task
# Pixels between writing a row of scratch and reading it at other offsets, which has to wait for the
# writes.
GROUP = 8
# Pixels between a prefetch and its use; without it, reading and computing take turns (2.7 times
# slower).
AHEAD = 16


def scratch_size(c: int, n: int, itemsize: int) -> int:
    """Return the elements of scratch for c channels, n of them in a window, on up to all threads
    of this process.
    """
    full = lanes_of(itemsize)
    front = -(-n // full) * full
    return numba.config.NUMBA_NUM_THREADS * 2 * GROUP * (front + -(-(c + n) // full) * full + full)


@njit(forceinline=True, **INNER)
def _frame(c, n, full):
    """Return the zeros before a row of scratch, and the elements from one row to the next."""
    front = (n + full - 1) // full * full
    return front, front + (c + n + full - 1) // full * full + full


@njit(forceinline=True, **INNER)
def _window_sum(values, at, n):
    """Return the sum of n neighbours from element `at` on, for a vector of channels."""
    full = lanes(values)
    if n == 5:  # the usual, without a loop
        outer = load(values, at, full) + load(values, at + 4, full)
        return (
            outer
            + (load(values, at + 1, full) + load(values, at + 3, full))
            + load(values, at + 2, full)
        )
    total = load(values, at, full)
    for d in range(1, n):
        total = total + load(values, at + d, full)
    return total


@njit(forceinline=True, **INNER)
def _raised(values, scale, beta, by_roots):
    """Return scale**beta; the usual 3/4 by two square roots."""
    if by_roots:
        root = square_root(scale)
        return root * square_root(root)
    return power(scale, splat(values, beta))


@njit(forceinline=True, **INNER)
def _scales(squares, at, shape):
    """Return s of a vector of channels. shape: (c, n, n // 2, k, alpha, beta, whether beta is
    3/4).
    """
    return fma(
        _window_sum(squares, at - shape[2], shape[1]),
        splat(squares, shape[4]),
        splat(squares, shape[3]),
    )


@njit(**INNER)
def _write_squares(source, squares, c, row, pixels):
    """Write the squares of some pixels (pixels, c) to rows `row` apart."""
    for pixel in range(pixels):
        for j in range(0, c, lanes(source)):
            count = min(lanes(source), c - j)
            x = load(source, pixel * c + j, count)
            store(squares, pixel * row + j, x * x, count)


@njit(forceinline=True, **INNER)
def _fetch_ahead(source, target, at):
    fetch(source, at)
    fetch(target, at)


@njit(**INNER)
def _outputs(source, squares, target, shape, row, pixels):
    """Write the outputs of some pixels whose squares are known."""
    c = shape[0]
    for pixel in range(pixels):
        for j in range(0, c, lanes(source)):
            at, count = pixel * c + j, min(lanes(source), c - j)
            scale = _scales(squares, pixel * row + j, shape)
            _fetch_ahead(source, target, at + AHEAD * c)
            store(
                target,
                at,
                load(source, at, count) / _raised(source, scale, shape[5], shape[6]),
                count,
            )


@njit(**INNER)
def _own_gradients(gradient, source, squares, shares, target, shape, row, pixels):
    """Write g s**-beta of some pixels whose squares are known to the target, and g x s**(-beta -
    1) to `shares`.
    """
    c = shape[0]
    for pixel in range(pixels):
        for j in range(0, c, lanes(source)):
            at, count = pixel * c + j, min(lanes(source), c - j)
            scale = _scales(squares, pixel * row + j, shape)
            _fetch_ahead(source, target, at + AHEAD * c)
            fetch(gradient, at + AHEAD * c)
            quotient = load(gradient, at, count) / (
                scale * _raised(source, scale, shape[5], shape[6])
            )
            store(target, at, quotient * scale, count)
            store(shares, pixel * row + j, quotient * load(source, at, count), count)


@njit(**INNER)
def _take_shares(source, shares, target, shape, factor, row, pixels):
    """Subtract factor * x * the sum of the shares of all channels whose windows hold x."""
    c, n = shape[0], shape[1]
    for pixel in range(pixels):
        for j in range(0, c, lanes(source)):
            at, count = pixel * c + j, min(lanes(source), c - j)
            seen = _window_sum(shares, pixel * row + j - (n - 1) // 2, n) * splat(source, factor)
            store(target, at, load(target, at, count) - seen * load(source, at, count), count)


@njit(forceinline=True, **INNER)
def _clear(target, elements):
    for at in range(0, elements, lanes(target)):
        store(target, at, zeros(target), lanes(target))


@njit(parallel=True, **KERNEL)
def _forward(inputs, n, k, alpha, beta, scratch, outputs):
    rows, c = inputs.shape
    front, row = _frame(c, n, lanes(inputs))
    shape = (c, n, n // 2, k, alpha, beta, beta == 0.75)
    for block in prange((rows + BLOCK - 1) // BLOCK):
        squares, state = (
            pointer(scratch, numba.get_thread_id() * 2 * GROUP * row),
            flush_tiny_numbers(),
        )
        _clear(squares, GROUP * row)
        squares = advance(squares, front)
        for first in range(block * BLOCK, min(rows, block * BLOCK + BLOCK), GROUP):
            pixels, source = min(GROUP, rows - first), pointer(inputs, first * c)
            _write_squares(source, squares, c, row, pixels)
            _outputs(source, squares, pointer(outputs, first * c), shape, row, pixels)
        restore(state)


@njit(parallel=True, **KERNEL)
def _backward(gradient, inputs, n, k, alpha, beta, factor, scratch, out):
    rows, c = inputs.shape
    front, row = _frame(c, n, lanes(inputs))
    shape = (c, n, n // 2, k, alpha, beta, beta == 0.75)
    for block in prange((rows + BLOCK - 1) // BLOCK):
        squares, state = (
            pointer(scratch, numba.get_thread_id() * 2 * GROUP * row),
            flush_tiny_numbers(),
        )
        _clear(squares, 2 * GROUP * row)
        squares = advance(squares, front)
        shares = advance(squares, GROUP * row)
        for first in range(block * BLOCK, min(rows, block * BLOCK + BLOCK), GROUP):
            pixels, source, target = (
                min(GROUP, rows - first),
                pointer(inputs, first * c),
                pointer(out, first * c),
            )
            _write_squares(source, squares, c, row, pixels)
            _own_gradients(
                pointer(gradient, first * c), source, squares, shares, target, shape, row, pixels
            )
            _take_shares(source, shares, target, shape, factor, row, pixels)
        restore(state)


def response_forward(
    inputs: np.ndarray,
    k: float,
    n: int,
    alpha: float,
    beta: float,
    scratch: np.ndarray,
    outputs: np.ndarray,
) -> None:
    """Write the outputs (rows, c) of inputs (rows, c); scratch of scratch_size(c, n, itemsize)
    elements. rows may be 0.
    """
    kind = inputs.dtype.type
    _forward(inputs, n, kind(k), kind(alpha), kind(beta), scratch, outputs)


def response_backward(
    gradient: np.ndarray,
    inputs: np.ndarray,
    k: float,
    n: int,
    alpha: float,
    beta: float,
    scratch: np.ndarray,
    out: np.ndarray,
) -> None:
    """Write the gradient of the inputs to out (rows, c), given that of the outputs (rows, c).

    It is g s**-beta - 2 alpha beta x * sum of g x s**(-beta - 1) over the channels whose windows
    hold x. Scratch as for `response_forward`.
    """
    kind = inputs.dtype.type
    _backward(
        gradient, inputs, n, kind(k), kind(alpha), kind(beta), kind(2 * alpha * beta), scratch, out
    )
