"""Loss, its gradient and the number of correct answers in one pass; sums in an order that
depends on nothing but the batch.
"""

import math

import numba
import numpy as np

from ensync.kernels.elementwise.activations import SERIAL_BELOW, softmax_row
from ensync.kernels.options import INNER, KERNEL
from ensync.kernels.simd.intrinsics import flush_tiny_numbers, restore

BLOCK = 64  # rows of one partial sum


@numba.njit(**INNER)
def largest_index(row):
    """Return the place of the largest element, the first of equals."""
    best = 0
    for i in range(1, row.size):
        if row[i] > row[best]:
            best = i
    return best


@numba.njit(**INNER)
def cross_entropy_rows(logits, labels, scale, smoothing, gradient):
    """Cross-entropy of a block of rows: its gradient, sum and correct answers."""
    classes, loss, correct = logits.shape[1], 0.0, 0
    even = logits.dtype.type(smoothing / classes)
    chosen = logits.dtype.type(1 - smoothing)
    state = flush_tiny_numbers()
    for row in range(labels.size):
        label = labels[row]
        correct += largest_index(logits[row]) == label
        given, total_logit = logits[row, label], 0.0
        for i in range(classes):
            total_logit += logits[row, i]
        largest, total = softmax_row(logits[row], gradient[row])
        missing = math.log(total) + (1 - smoothing) * (
            largest - given
        )  # differences first: logits may be large beside their loss
        loss += missing + smoothing * (largest - total_logit / classes)
        for i in range(classes):
            gradient[row, i] = (gradient[row, i] - even) * scale
        gradient[row, label] -= chosen * scale
    restore(state)
    return loss, correct


@numba.njit(**INNER)
def squared_error_rows(outputs, labels, low, high, factor, scale, gradient):
    """Squared error of a block of rows: its gradient, sum and correct answers."""
    loss, correct = 0.0, 0
    step = outputs.dtype.type(2 * factor * scale)
    for row in range(labels.size):
        correct += largest_index(outputs[row]) == labels[row]
        for i in range(outputs.shape[1]):
            difference = outputs[row, i] - (high if i == labels[row] else low)
            gradient[row, i] = difference * step
            loss += difference * difference
    return factor * loss, correct


@numba.njit(parallel=True, **KERNEL)
def softmax_cross_entropy(
    logits: np.ndarray, labels: np.ndarray, scale: float, smoothing: float, gradient: np.ndarray
) -> tuple[float, int]:
    """Return (sum of the rows' cross-entropies in float64, number of correct answers); write
    (softmax - target) * scale.

    logits, gradient: (n, classes); labels: (n,) int64, unchecked; scale: 1 / global batch. The
    target is one-hot, or with smoothing s: 1 - s + s / classes for the label and s / classes
    elsewhere. n may be 0.
    """
    blocks = (labels.size + BLOCK - 1) // BLOCK
    losses, corrects = np.zeros(blocks), np.zeros(blocks, np.int64)
    factor = logits.dtype.type(scale)
    if logits.size < SERIAL_BELOW:
        for block in range(blocks):
            rows = slice(block * BLOCK, (block + 1) * BLOCK)
            losses[block], corrects[block] = cross_entropy_rows(
                logits[rows], labels[rows], factor, smoothing, gradient[rows]
            )
    else:
        for block in numba.prange(blocks):
            rows = slice(block * BLOCK, (block + 1) * BLOCK)
            losses[block], corrects[block] = cross_entropy_rows(
                logits[rows], labels[rows], factor, smoothing, gradient[rows]
            )
    return losses.sum(), corrects.sum()


@numba.njit(**KERNEL)
def squared_error(
    outputs: np.ndarray,
    labels: np.ndarray,
    low: float,
    high: float,
    factor: float,
    scale: float,
    gradient: np.ndarray,
) -> tuple[float, int]:
    """Return (sum over rows of factor * sum_j (o_j - t_j)^2 in float64, number of correct answers);
    write its gradient times scale.

    outputs, gradient: (n, classes); labels: (n,) int64, unchecked; t is `high` at the label and
    `low` elsewhere. n may be 0.
    """
    blocks = (labels.size + BLOCK - 1) // BLOCK
    loss, correct = 0.0, 0
    for block in range(blocks):
        rows = slice(block * BLOCK, (block + 1) * BLOCK)
        block_loss, block_correct = squared_error_rows(
            outputs[rows], labels[rows], low, high, factor, scale, gradient[rows]
        )
        loss, correct = loss + block_loss, correct + block_correct
    return loss, correct
