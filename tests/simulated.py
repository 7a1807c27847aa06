"""Right and wrong answers of two simulated contestants whose true difference is known."""

from statistics import NormalDist
from typing import NamedTuple

import numpy as np

COMMON = 1.5  # how much harder an image is for either contestant


class Spread(NamedTuple):
    """Standard deviations of what a contestant's ability is made of, beside what both share: an
    image's, a seed's, and of one image with one seed.
    """

    image: float
    seed: float
    both: float


def accuracy(ability: float, spread: Spread) -> float:
    """Return the accuracy over all images and seeds: P(ability + all its parts > 0)."""
    return NormalDist().cdf(ability / np.sqrt(COMMON**2 + sum(np.square(spread))))


def answers(
    abilities: tuple[float, float], spread: Spread, shape: tuple[int, int, int], key: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return whether each of two contestants is right, bool (studies, seeds, images) each: a probit
    model with random effects of images and seeds.
    """
    generator = np.random.default_rng(key)
    studies, seeds, images = shape

    def normal(sd: float, *shape: int) -> np.ndarray:
        return np.float32(sd) * generator.standard_normal(shape, dtype=np.float32)

    common = normal(COMMON, studies, 1, images)
    first, second = (
        ability
        + common
        + normal(spread.image, studies, 1, images)
        + normal(spread.seed, studies, seeds, 1)
        + normal(spread.both, studies, seeds, images)
        > 0
        for ability in abilities
    )
    return first, second


def members(count: int, rows: int, classes: int, key: int) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities float32 (count, rows, classes) of overconfident members that share half
    of their errors, the first the best, and labels int64 (rows,).
    """
    generator = np.random.default_rng(key)
    labels = generator.integers(classes, size=rows)
    noise = generator.normal(0, 1.5, (count + 1, rows, classes))
    signal = 5 * (np.arange(classes) == labels[:, None])
    better = np.linspace(1.2, 0.8, count)[:, None, None]
    raised = np.exp(2 * (better * signal + noise[:-1] + noise[-1]))
    return (raised / raised.sum(axis=2, keepdims=True)).astype(np.float32), labels
