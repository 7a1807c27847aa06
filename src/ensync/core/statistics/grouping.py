"""Groups of classes that are taken for each other, from a confusion matrix."""

import numpy as np


def similarity(confusion: np.ndarray) -> np.ndarray:
    """Return how often images of two classes are taken for each other, float64 `(classes,
    classes)`: the mean of both shares. confusion: counts, row = true class.
    """
    images = np.maximum(1, confusion.sum(axis=1, keepdims=True))
    shares = confusion / images
    return np.asarray((shares + shares.T) / 2)


def coarse_classes(confusion: np.ndarray, number: int) -> list[list[int]]:
    """Return so many groups of the classes, each sorted, in the order of their first ones.

    From groups of one class, the two whose classes are most often taken for each other, in the mean
    over all pairs, become one (average linkage, UPGMA). HD-CNN (Yan et al. 2015) clusters the same
    matrix by its spectrum.
    """
    alike = similarity(confusion)
    groups = [[label] for label in range(len(confusion))]
    while len(groups) > max(1, number):
        pairs = [(a, b) for b in range(len(groups)) for a in range(b)]
        first, second = max(pairs, key=lambda p: alike[np.ix_(groups[p[0]], groups[p[1]])].mean())
        groups[first] = sorted(groups[first] + groups.pop(second))
    return sorted(groups)
