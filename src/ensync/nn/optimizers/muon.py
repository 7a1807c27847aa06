"""Muon: momentum whose singular values are all brought near 1 (K. Jordan 2024)."""

import math

import numpy as np

from ensync.core.config.optimizers import Optimizer as Settings
from ensync.kernels.dense.matmul import (
    dense_forward,
    dense_input_gradient,
    dense_weight_gradient,
    packing_size,
)
from ensync.kernels.elementwise.activations import IDENTITY
from ensync.kernels.optim import updates
from ensync.nn.optimizers.update import Update, coupled_decay

# Of the odd polynomial a x + b x^3 + c x^5, which brings a singular value x in (0, 1] near 1 when
# it is taken again and again: within 0.7 and 1.2, in few steps.
COEFFICIENTS = 3.4445, -4.7750, 2.0315
TINY = 1e-7  # added to the norm that the matrix is divided by


def muon(settings: Settings, update: Update) -> None:
    """v = momentum * v + g; p -= rate * orthogonalize(g + momentum * v) for an array of several
    dimensions, as the matrix (all others, outputs); Nesterov's momentum for one of one dimension.
    """
    decay = coupled_decay(settings, update)
    start = 0
    for _, parameter in update.layout:
        part = slice(start, start := start + parameter.size)
        values, gradient, velocity = (
            vector[part] for vector in (update.parameters, update.gradient, *update.slots)
        )
        if len(parameter.shape) == 1:
            updates.momentum(
                values, gradient, velocity, update.rate, settings.momentum, decay, nesterov=True
            )
            continue
        keep, outputs = values.dtype.type(settings.momentum), parameter.shape[-1]
        velocity *= keep
        velocity += gradient
        gradient += keep * velocity
        if settings.rescale:
            _rescale(values, outputs)
        step = orthogonalize(gradient.reshape(-1, outputs), settings.newton_schulz).reshape(-1)
        step *= step.dtype.type(update.rate)
        values -= step


def _rescale(values: np.ndarray, outputs: int) -> None:
    """Give an array the norm sqrt(outputs), unless it is 0."""
    norm = math.sqrt(updates.sum_of_squares(values))
    if norm:
        values *= values.dtype.type(math.sqrt(outputs) / norm)


def orthogonalize(matrix: np.ndarray, steps: int) -> np.ndarray:
    """Return a matrix (rows, columns) with the singular vectors of this one and singular values
    near 1, by so many steps of Newton and Schulz's iteration.

    One of them is X = X (a + b X'X + c (X'X)^2), or with XX' from the left, whichever is smaller.
    The products are those of dense layers, whose bits depend on no number of threads.
    """
    norm = math.sqrt(updates.sum_of_squares(matrix.reshape(-1))) + TINY
    x: np.ndarray = matrix / matrix.dtype.type(norm)
    small, tall = min(x.shape), x.shape[0] >= x.shape[1]
    gram, square = np.empty((2, small, small), x.dtype)
    bias, following = np.zeros(max(x.shape), x.dtype), np.empty_like(x)
    scratch = np.empty(max(packing_size(n, small, max(x.shape)) for n in x.shape), x.dtype)
    first, third, fifth = map(x.dtype.type, COEFFICIENTS)
    for _ in range(steps):
        if tall:
            dense_weight_gradient(x, x, gram, np.empty(small, x.dtype), scratch)
        else:
            dense_input_gradient(x, x, gram, scratch)
        dense_forward(gram, gram, bias[:small], IDENTITY, square, scratch)
        square *= fifth
        square += third * gram
        square[np.diag_indices(small)] += first
        left, right = (x, square) if tall else (square, x)
        dense_forward(left, right, bias[: right.shape[1]], IDENTITY, following, scratch)
        x, following = following, x
    return x
