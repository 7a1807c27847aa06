"""The colours that images have in common: the principal components of their pixels, along which
augmentation.colour_noise changes images (Krizhevsky, Sutskever and Hinton 2012, section 4.1).
"""

from collections.abc import Iterator

import numpy as np

from ensync.nn.whitening import EXACT, eigenvectors

CHANNELS = 3  # red, green and blue


def colour_components(parts: Iterator[np.ndarray]) -> np.ndarray:
    """Return 255 p_i l_i, float64 (channels, components), the largest first: p_i and l_i are the
    eigenvectors and eigenvalues of the covariance of the pixels of images uint8 (n, height, width,
    3), which come in parts.

    A product of an eigenvalue depends on the unit of the pixels. It is 0..1 here, as in the
    programs that have followed the paper, and what is returned is for pixels of 0..255. Every rank
    computes the same bits, as in nn.whitening: sums of whole numbers, and rotations in one order.
    """
    products, sums, count = np.zeros((CHANNELS, CHANNELS)), np.zeros(CHANNELS), 0
    for part in parts:
        for image in part:
            pixels = image.reshape(-1, CHANNELS).astype(np.float64)
            products += pixels.T @ pixels
            sums += pixels.sum(axis=0)
            count += len(pixels)
    assert products.max() < EXACT, "too many pixels for exact sums"
    mean = sums / max(count, 1)
    covariance = (products / max(count, 1) - np.outer(mean, mean)) / 255**2
    values, vectors = eigenvectors(covariance)
    found: np.ndarray = 255 * vectors * np.maximum(values, 0.0)
    return found
