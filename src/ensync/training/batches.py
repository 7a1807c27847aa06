"""How images reach a network: rows of a split, from memory or from the file, normalised on the
way into the batch.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol

import numpy as np

from ensync.core.activity import tick
from ensync.core.config.augmentation import Augmentation
from ensync.core.sharding import Purpose, Window, key64
from ensync.kernels.elementwise import augmentation, inputs, rand_augment
from ensync.nn.whitening import IMAGES, Images
from ensync.training.colours import colour_components

BLOCK = Window(
    rows=1024, blocks=16
)  # streamed datasets: 16 blocks of 1,024 neighbouring rows are shuffled together


class Reader(Protocol):
    """What reads a split that does not fit into memory (storage.dataset.BlockReader)."""

    def batch(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return images uint8 `(m, features)` and the place int64 of each row among them."""
        ...


class Changes(Protocol):
    """What changes images on their way into a batch."""

    def __call__(
        self,
        images: np.ndarray,
        places: np.ndarray,
        rows: np.ndarray,
        loader: "BatchLoader",
        out: np.ndarray,
    ) -> None:
        """Write the changed and normalised images of dataset rows int64 `(n,)`, which lie at
        `places` of `images` uint8.
        """
        ...


class Augmenter:
    """The random changes of one epoch's images of shape (height, width, channels); the keys and
    an image's row decide on its own.

    key_of(epoch): the key of an epoch; alternating flips follow that of the first one.
    """

    def __init__(
        self,
        settings: Augmentation,
        shape: tuple[int, ...],
        epoch: int,
        key_of: Callable[[int], np.uint64],
    ) -> None:
        self.settings, self.shape, self.epoch = settings, shape, epoch
        self.key, self.key_of = key_of(epoch), key_of

    def __call__(
        self,
        images: np.ndarray,
        places: np.ndarray,
        rows: np.ndarray,
        loader: "BatchLoader",
        out: np.ndarray,
    ) -> None:
        """Write the changed and normalised images of dataset rows int64 `(n,)`, which lie at
        `places` of `images`.
        """
        s, extents = self.settings, extents_of(self.shape, out.shape[1])
        changes = np.empty((len(rows), augmentation.COLUMNS))
        settings = augmentation.ChangeSettings(
            *(s.flip is True, s.random_crop > 0, s.crop, s.shift, s.rotation, s.cutout, s.erasing)
        )
        augmentation.draw_changes(rows, self.key, extents, settings, changes)
        if s.flip == "alternating":
            augmentation.draw_flips(rows, self.key_of(0), self.epoch % 2 == 1, changes)
        if s.colour_noise:
            assert loader.colours is not None, "colours are found before they are changed"
            augmentation.draw_colours(rows, self.key, s.colour_noise * loader.colours, changes)
        if s.rand_augment:
            images, places = self._operated(images, places, rows)
        augmentation.gather_change(
            *(images, places, changes, loader.mean, loader.inverse_std, extents),
            s.crop_edge == "reflect",
            out,
        )

    def _operated(
        self, images: np.ndarray, places: np.ndarray, rows: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return copies of the images to which RandAugment's operations were done, and their
        places.
        """
        height, width, channels = self.shape
        s = self.settings
        operations = np.empty((len(rows), s.rand_augment, 2))
        rand_augment.draw_operations(
            rows, self.key, s.rand_augment_magnitude, (height, width), operations
        )
        out = np.empty((len(rows), images.shape[1]), np.uint8)
        rand_augment.gather_operate(images, places, operations, (height, width, channels), out)
        return out, np.arange(len(rows), dtype=np.int64)


def extents_of(shape: tuple[int, ...], values: int) -> augmentation.Extents:
    """Return which part of images of shape (height, width, channels) goes into inputs of so many
    values: a square, or all of it.
    """
    height, width, channels = shape
    if values == height * width * channels:
        return augmentation.Extents(height, width, channels, height, width)
    side = math.isqrt(values // channels)
    assert side * side * channels == values, "a square is cut out"
    return augmentation.Extents(height, width, channels, side, side)


def unmoved(extents: augmentation.Extents, rows: int) -> np.ndarray:
    """Return the table of changes (rows, COLUMNS), float64, that takes the middle of each image."""
    changes = np.zeros((rows, augmentation.COLUMNS))
    changes[:, augmentation.CROP_Y] = (extents.height - extents.tall) // 2
    changes[:, augmentation.CROP_X] = (extents.width - extents.wide) // 2
    return changes


UNCHANGED = Augmentation()


def augmenter_of(
    given: Augmentation, seed: int, member: int, shape: tuple[int, ...], epoch: int
) -> Augmenter | None:
    """Return the random changes of a member's images of shape (height, width, channels) in an
    epoch, None where the job wants none.
    """
    settings = given.of_epoch(epoch).of_one()
    if settings == UNCHANGED:
        return None
    key_of = partial(key64, seed, Purpose.AUGMENTATION, member)
    return Augmenter(settings, shape, epoch, key_of)


class BatchLoader:
    """One split: labels int64 `(n,)`, and images uint8 `(n, features)` either in memory or
    behind a reader.

    shape: height, width and channels of an image, where networks may take a part of it. colours:
    the components (3, 3) of training.colours, where images are changed along these.
    """

    def __init__(
        self,
        images: np.ndarray | Reader,
        labels: np.ndarray,
        mean: np.ndarray,
        inverse_std: np.ndarray,
        shape: tuple[int, int, int] | None = None,
    ) -> None:
        self.images, self.labels = images, labels
        self.mean, self.inverse_std, self.shape = mean, inverse_std, shape
        self._values = math.prod(shape) if shape else 0  # of an image
        self.in_memory = isinstance(images, np.ndarray)
        self.colours: np.ndarray | None = None
        self.watcher: Callable[[int], None] | None = None  # told of the rows of each batch

    def with_images(self, images: np.ndarray | Reader, labels: np.ndarray) -> "BatchLoader":
        """Return a loader of other images of the same shape, which reach a network alike."""
        loader = BatchLoader(images, labels, self.mean, self.inverse_std, self.shape)
        loader.colours = self.colours
        return loader

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def window(self) -> Window | None:
        """How the order of an epoch must be blocked so that each block is read once."""
        return None if self.in_memory else BLOCK

    def raw(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return uint8 images `(m, features)` and the places int64 `(len(rows),)` of these rows
        in them.
        """
        images = self.images
        return (images, rows) if isinstance(images, np.ndarray) else images.batch(rows)

    def load(
        self, rows: np.ndarray, out: np.ndarray, changes: Changes | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Normalise the images of rows int64 `(n,)`, changed where asked, into `out[:n]`; return
        that and the labels `(n,)`. Of larger images than `out` has room for, their middle.
        """
        tick()
        if self.watcher is not None:
            self.watcher(len(rows))
        images, places = self.raw(rows)
        filled = out[: len(rows)]
        if changes is not None:
            changes(images, places, rows, self, filled)
        elif out.shape[1] < self._values:
            self._cut(images, places, filled)
        else:
            inputs.gather_normalize(images, places, self.mean, self.inverse_std, filled)
        return filled, self.labels[rows]

    def _cut(self, images: np.ndarray, places: np.ndarray, out: np.ndarray) -> None:
        """Write the normalised middle of images."""
        assert self.shape is not None
        extents = extents_of(self.shape, out.shape[1])
        table = unmoved(extents, len(places))
        augmentation.gather_change(
            *(images, places, table, self.mean, self.inverse_std, extents, False, out)
        )

    def find_colours(self) -> None:
        """Find the principal components of the colours of the first images, once."""
        if self.colours is None:
            assert self.shape is not None
            self.colours = colour_components(first_images(self, self.shape).parts)


def first_images(loader: BatchLoader, shape: tuple[int, int, int]) -> Images:
    """Return the first images of a split, of shape (height, width, channels), as whitening takes
    them.
    """
    rows = np.arange(min(len(loader), IMAGES), dtype=np.int64)

    def parts() -> Iterator[np.ndarray]:
        for first in range(0, len(rows), BLOCK.rows):
            images, places = loader.raw(rows[first : first + BLOCK.rows])
            yield images[places].reshape(-1, *shape)

    return Images(parts(), loader.mean, loader.inverse_std)


def normalization(
    name: str, mean: np.ndarray, std: np.ndarray, dtype: np.dtype
) -> tuple[np.ndarray, np.ndarray]:
    """Return (mean, 1/std) `(channels,)` in units of 0..255 pixels for a normalisation of the
    job file.
    """
    pairs: dict[str, Callable[[], tuple[np.ndarray, np.ndarray]]] = {
        "standard": lambda: (mean, 1.0 / np.maximum(std, 1e-6)),
        "unit": lambda: (np.zeros_like(mean), np.full_like(std, 1 / 255)),
        "signed": lambda: (np.full_like(mean, 127.5), np.full_like(std, 1 / 127.5)),
        "none": lambda: (np.zeros_like(mean), np.ones_like(std)),
    }
    shift, scale = pairs[name]()
    return shift.astype(dtype), scale.astype(dtype)
