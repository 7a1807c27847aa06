"""Views of an image: mirrored and moved copies, or parts of it. A test takes the mean of what a
network says of them (test-time augmentation, evaluation.augmentation).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ensync.kernels.elementwise import augmentation
from ensync.training.batches import BatchLoader, extents_of, unmoved


@dataclass(frozen=True)
class View:
    """What a network's input of shape (height, width, channels) shows of an image: its middle,
    moved by so many pixels down and right, edges reflected, and then mirrored or not.

    share: of its outputs in the mean. of_scores: whether the mean is of scores (probabilities under
    cross-entropy), else of outputs.
    """

    shape: tuple[int, ...]
    share: float
    moved: tuple[int, int]
    mirrored: bool
    of_scores: bool = False

    def __call__(
        self,
        images: np.ndarray,
        places: np.ndarray,
        rows: np.ndarray,
        loader: BatchLoader,
        out: np.ndarray,
    ) -> None:
        """Write this view of images, normalised (training.batches.Changes)."""
        extents = extents_of(loader.shape or self.shape, out.shape[1])
        changes = unmoved(extents, len(rows))
        changes[:, augmentation.FLIP] = self.mirrored
        changes[:, [augmentation.CROP_Y, augmentation.CROP_X]] += self.moved
        augmentation.gather_change(
            *(images, places, changes, loader.mean, loader.inverse_std, extents, True, out)
        )


SIDES = (False, True)


def views_of(method: str, shape: tuple[int, ...], image: tuple[int, ...]) -> tuple[View, ...]:
    """Return the views of evaluation.augmentation = `method` for inputs of shape (height, width,
    channels) and images of shape `image`, the middle of an image first; none where a test is with
    that alone.

    The six views and their shares are those of K. Jordan, arXiv 2404.00498; the ten are those of
    Krizhevsky, Sutskever and Hinton 2012, section 4.1.
    """
    if method == "none":
        return ()
    if method == "mirror":
        return tuple(View(shape, 1 / 2, (0, 0), side) for side in SIDES)
    if method == "ten_views":
        places = [(0, 0), *_corners(shape, image)]
        return tuple(View(shape, 1 / 10, place, side, True) for place in places for side in SIDES)
    still = [View(shape, 1 / 4, (0, 0), side) for side in SIDES]
    moved = [View(shape, 1 / 8, (by, by), side) for by in (-1, 1) for side in SIDES]
    return (*still, *moved)


def _corners(shape: tuple[int, ...], image: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Yield how far the parts of an image that lie in its corners are from that in its middle."""
    down, right = (image[axis] - shape[axis] for axis in (0, 1))
    for top in (0, down):
        for left in (0, right):
            yield top - down // 2, left - right // 2
