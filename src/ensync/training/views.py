"""Views of an image: mirrored and moved copies. A test takes the mean of a network's outputs over
them (test-time augmentation, evaluation.augmentation).
"""

from dataclasses import dataclass

import numpy as np

from ensync.kernels.elementwise import augmentation
from ensync.training.batches import BatchLoader


@dataclass(frozen=True)
class View:
    """An image of shape (height, width, channels) moved by so many pixels up and left, its edges
    reflected, and then mirrored or not; share: of its outputs in the mean.
    """

    shape: tuple[int, ...]
    share: float
    moved: int
    mirrored: bool

    def __call__(
        self,
        images: np.ndarray,
        places: np.ndarray,
        rows: np.ndarray,
        loader: BatchLoader,
        out: np.ndarray,
    ) -> None:
        """Write this view of images, normalised (training.batches.Changes)."""
        changes = np.zeros((len(rows), augmentation.COLUMNS))
        changes[:, augmentation.FLIP] = self.mirrored
        changes[:, [augmentation.CROP_Y, augmentation.CROP_X]] = self.moved
        height, width, channels = self.shape
        augmentation.gather_change(
            *(images, places, changes, loader.mean, loader.inverse_std),
            (height, width, channels),
            True,
            out,
        )


def views_of(method: str, shape: tuple[int, ...]) -> tuple[View, ...]:
    """Return the views of evaluation.augmentation = `method` for images of shape (height, width,
    channels), the image itself first; none where a test is with that alone.

    The six views and their shares are those of K. Jordan, arXiv 2404.00498.
    """
    sides = (False, True)
    views = {
        "none": (),
        "mirror": [(1 / 2, 0, side) for side in sides],
        "mirror_shift": [
            *((1 / 4, 0, side) for side in sides),
            *((1 / 8, moved, side) for moved in (-1, 1) for side in sides),
        ],
    }
    return tuple(View(shape, *view) for view in views[method])
