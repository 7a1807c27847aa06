"""Filters that whiten the patches of images: fixed by the data, before anything is trained.

The filters are e_i / sqrt(l_i + epsilon), with e_i and l_i the eigenvectors and eigenvalues of
E[p p'] over all patches p (no mean is taken off), the largest first, and then their negatives, so
that a rectifier behind them loses nothing (D. Page, "How to train your ResNet"; K. Jordan, arXiv
2404.00498). Every rank computes the same bits: the sums are of whole numbers, which float64 holds
exactly, and what follows is elementwise arithmetic in one order, without a linear-algebra library
that may choose its order by the CPU.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

IMAGES = 5000  # of the training split, the first ones
EPSILON = 5e-4  # added to the eigenvalues
AT_ONCE = 100  # images
SWEEPS = 60  # of rotations, at most; some ten are enough
EXACT = 2.0**53  # whole numbers that float64 holds


class Images(NamedTuple):
    """Raw images and how they are normalised: parts of uint8 `(n, height, width, channels)`, of
    which each channel less the mean times inverse_std (channels,) goes into the network.
    """

    parts: Iterator[np.ndarray]
    mean: np.ndarray
    inverse_std: np.ndarray


def whitening(images: Images, shape: tuple[int, int, int, int]) -> np.ndarray:
    """Return filters `(height, width, channels, filters)`, float64; there are at most twice as
    many as values in a patch, and their number is even.
    """
    *window, filters = shape
    values, vectors = eigenvectors(covariance(images, (window[0], window[1], window[2])))
    scaled = vectors / np.sqrt(values + EPSILON)
    kept = scaled[:, : filters // 2]
    return np.concatenate([kept, -kept], axis=1).reshape(shape)


def covariance(images: Images, window: tuple[int, int, int]) -> np.ndarray:
    """Return the mean of p p' `(values, values)`, float64, over the normalised patches p of a
    window (height, width, channels).
    """
    size, count = math.prod(window), 0
    products, sums = np.zeros((size, size)), np.zeros(size)
    for part in images.parts:
        for first in range(0, len(part), AT_ONCE):
            patches = _patches(part[first : first + AT_ONCE], window)
            products += patches.T @ patches
            sums += patches.sum(axis=0)
            count += len(patches)
    assert products.max(initial=0) < EXACT, "too many patches for exact sums"
    places = math.prod(window[:2])
    mean, scale = (
        np.tile(given.astype(np.float64), places) for given in (images.mean, images.inverse_std)
    )
    crossed = np.outer(mean, sums)
    centred = products - crossed - crossed.T + count * np.outer(mean, mean)
    return centred * np.outer(scale, scale) / max(count, 1)


def _patches(images: np.ndarray, window: tuple[int, int, int]) -> np.ndarray:
    """Return the windows inside the images as rows of values, float64."""
    height, width, _ = window
    seen = np.lib.stride_tricks.sliding_window_view(images, (height, width), axis=(1, 2))
    return seen.transpose(0, 1, 2, 4, 5, 3).reshape(-1, math.prod(window)).astype(np.float64)


def eigenvectors(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the eigenvalues `(n,)`, largest first, and the eigenvectors `(n, n)`, one a column,
    of a symmetric matrix; the largest component of each is positive.

    By Jacobi's rotations in a fixed order (Golub and Van Loan, Matrix Computations, 8.5).
    """
    matrix, vectors = matrix.copy(), np.eye(len(matrix))
    for _ in range(SWEEPS):
        if not sum(_rotate(matrix, vectors, p, q) for q in range(len(matrix)) for p in range(q)):
            break
    order = np.argsort(-np.diag(matrix), kind="stable")
    values, vectors = np.diag(matrix)[order], vectors[:, order]
    largest = np.argmax(np.abs(vectors), axis=0)
    return values, vectors * np.sign(vectors[largest, range(len(largest))])


def _rotate(matrix: np.ndarray, vectors: np.ndarray, p: int, q: int) -> bool:
    """Make the element (p, q) zero by a rotation of the rows and columns p and q; return whether
    it was not so already, to rounding.
    """
    aside, a, b = matrix[p, q], matrix[p, p], matrix[q, q]
    if abs(aside) <= 1e-17 * math.sqrt(abs(a * b)):
        return False
    slope = (b - a) / (2 * aside)
    tangent = math.copysign(1.0, slope) / (abs(slope) + math.sqrt(1 + slope * slope))
    cosine = 1 / math.sqrt(1 + tangent * tangent)
    sine = tangent * cosine
    for array in (matrix, matrix.T, vectors):
        first, second = array[:, p].copy(), array[:, q].copy()
        array[:, p] = cosine * first - sine * second
        array[:, q] = sine * first + cosine * second
    matrix[p, q] = matrix[q, p] = 0.0
    return True
