"""Images and labels mixed with those of a partner: MixUp (Zhang et al. 2018, arXiv 1710.09412) and
CutMix (Yun et al. 2019, arXiv 1905.04899).

The partner of an image is the one before it in its global batch, and that of the first is the last.
The order of an epoch is random, so this is a random partner, and the same on any number of ranks.
"""

import math
from dataclasses import dataclass

import numpy as np

from ensync.core.config.augmentation import Augmentation
from ensync.core.sharding import Purpose, generator
from ensync.kernels.elementwise import mixing as kernels
from ensync.nn.loss import Partners
from ensync.training.batches import BatchLoader, Changes


@dataclass(frozen=True)
class Mixing:
    """How the images of one step are mixed, of shape (height, width, channels).

    share: that of the partner. box: (top, bottom, left, right) of what is cut from the partner;
    None where whole images are added up.
    """

    shape: tuple[int, ...]
    share: float
    box: tuple[int, int, int, int] | None = None

    def __call__(self, inputs: np.ndarray, before: np.ndarray) -> None:
        """Mix images `(rows, features)` in place; before `(features,)`: the one before the
        first.
        """
        if self.box is None:
            kernels.mix_with_previous(inputs, before, self.share)
            return
        top, bottom, left, right = self.box
        cut, first = (
            values.reshape(-1, *self.shape)[:, top:bottom, left:right]
            for values in (inputs, before)
        )
        cut[:] = np.concatenate([first, cut[:-1]])

    def partners(
        self,
        loader: BatchLoader,
        inputs: np.ndarray,
        labels: np.ndarray,
        before: int,
        changes: Changes | None,
    ) -> Partners:
        """Mix images `(rows, features)`, at least one, in place; return their partners' labels
        and share. before: the dataset row before the first in the batch, changed as these are.
        """
        image = np.empty((1, inputs.shape[1]), inputs.dtype)
        _, label = loader.load(np.array([before], np.int64), image, changes)
        self(inputs, image[0])
        return Partners(np.concatenate([label, labels[:-1]]), self.share)


def mixing_of(
    given: Augmentation,
    seed: int,
    member: int,
    shape: tuple[int, ...],
    epoch: int,
    step: int,
) -> Mixing | None:
    """Return how a member's images of shape (height, width, channels) are mixed in an epoch, in
    this step of the whole run; None where they are not.

    One draw for all images of the step, as the authors' programs do.
    """
    settings = given.of_epoch(epoch)
    if not (settings.mixup or settings.cutmix):
        return None
    random = generator(seed, Purpose.MIXING, member, step)
    cuts = random.random() < 0.5 if settings.mixup and settings.cutmix else settings.cutmix > 0
    alpha = settings.cutmix if cuts else settings.mixup
    share = random.beta(alpha, alpha)
    if not cuts:
        return Mixing(shape, share)
    box = _box(random, shape, share)
    area = (box[1] - box[0]) * (box[3] - box[2])
    return Mixing(shape, area / (shape[0] * shape[1]), box)


def _box(
    random: np.random.Generator, shape: tuple[int, ...], share: float
) -> tuple[int, int, int, int]:
    """Return a rectangle of that share of an image's area about any pixel, as far as it lies
    within the image.
    """
    sides = []
    for size in shape[:2]:
        half, middle = int(size * math.sqrt(share)) // 2, int(random.integers(size))
        sides += [max(middle - half, 0), min(middle + half, size)]
    top, bottom, left, right = sides
    return top, bottom, left, right
