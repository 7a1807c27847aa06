"""Local response normalisation across channels (Krizhevsky et al. 2012, section 3.3).

    outputs[c] = inputs[c] * s[c]**-beta,   s[c] = k + alpha * sum of inputs[d]**2 over the n channels d nearest to c

alpha is not divided by n, as in the paper (PyTorch divides it).
"""

import math

import numpy as np
from numba import njit, prange

OPTIONS = {"cache": True, "error_model": "numpy", "nogil": True}
BLOCK = 64   # pixels of one task


@njit(**OPTIONS)
def power(scale, beta):
    """Return scale**-beta; the usual 3/4 by two square roots."""
    if beta == 0.75:
        root = np.sqrt(scale)
        return np.float32(1) / (root * np.sqrt(root))
    return math.pow(scale, -beta)


@njit(**OPTIONS)
def _window_sum(values, c, n):
    total = values.dtype.type(0)
    for d in range(max(0, c - n // 2), min(values.size, c + (n - 1) // 2 + 1)):
        total += values[d]
    return total


@njit(parallel=True, **OPTIONS)
def response_forward(inputs: np.ndarray, k: float, n: int, alpha: float, beta: float, scales: np.ndarray, outputs: np.ndarray) -> None:
    """Write the outputs (rows, c) of inputs (rows, c), and s (rows, c) to scales."""
    rows, channels = inputs.shape
    kind = inputs.dtype.type
    for block in prange((rows + BLOCK - 1) // BLOCK):
        squares = np.empty(channels, inputs.dtype)
        for row in range(block * BLOCK, min(rows, block * BLOCK + BLOCK)):
            x, s, y = inputs[row], scales[row], outputs[row]
            for c in range(channels):
                squares[c] = x[c] * x[c]
            for c in range(channels):
                s[c] = kind(k) + kind(alpha) * _window_sum(squares, c, n)
            for c in range(channels):
                y[c] = x[c] * power(s[c], beta)


@njit(parallel=True, **OPTIONS)
def response_backward(gradient: np.ndarray, inputs: np.ndarray, scales: np.ndarray, n: int, alpha: float, beta: float, out: np.ndarray) -> None:
    """Write the gradient of the inputs (rows, c), given that of the outputs: g s**-beta - 2 alpha beta x * sum of g x s**(-beta-1) over those that saw x."""
    rows, channels = inputs.shape
    factor = inputs.dtype.type(2 * alpha * beta)
    for block in prange((rows + BLOCK - 1) // BLOCK):
        shares = np.empty(channels, inputs.dtype)
        for row in range(block * BLOCK, min(rows, block * BLOCK + BLOCK)):
            g, x, s, to = gradient[row], inputs[row], scales[row], out[row]
            for c in range(channels):
                to[c] = g[c] * power(s[c], beta)
                shares[c] = to[c] * x[c] / s[c]
            for c in range(channels):
                to[c] -= factor * x[c] * _window_sum(shares[::-1], channels - 1 - c, n)
