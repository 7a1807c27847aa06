"""How images reach a network: rows of a split, from memory or from the file, normalised on the
way into the batch.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol

import numpy as np

from ensync.core.activity import tick
from ensync.core.config.schema import Augmentation
from ensync.core.sharding import Purpose, Window, key64
from ensync.kernels.elementwise import augmentation, inputs
from ensync.nn.whitening import IMAGES, Images

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
        s, (height, width, channels) = self.settings, self.shape
        shape, changes = (height, width, channels), np.empty((len(rows), augmentation.COLUMNS))
        settings = augmentation.ChangeSettings(
            s.flip is True, s.crop, s.shift, s.rotation, s.cutout, s.erasing
        )
        augmentation.draw_changes(rows, self.key, shape, settings, changes)
        if s.flip == "alternating":
            augmentation.draw_flips(rows, self.key_of(0), self.epoch % 2 == 1, changes)
        augmentation.gather_change(
            *(images, places, changes, loader.mean, loader.inverse_std, shape),
            s.crop_edge == "reflect",
            out,
        )


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
    """

    def __init__(
        self,
        images: np.ndarray | Reader,
        labels: np.ndarray,
        mean: np.ndarray,
        inverse_std: np.ndarray,
    ) -> None:
        self.images, self.labels = images, labels
        self.mean, self.inverse_std = mean, inverse_std
        self.in_memory = isinstance(images, np.ndarray)
        self.watcher: Callable[[int], None] | None = None  # told of the rows of each batch

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
        that and the labels `(n,)`.
        """
        tick()
        if self.watcher is not None:
            self.watcher(len(rows))
        images, places = self.raw(rows)
        filled = out[: len(rows)]
        if changes is not None:
            changes(images, places, rows, self, filled)
        else:
            inputs.gather_normalize(images, places, self.mean, self.inverse_std, filled)
        return filled, self.labels[rows]


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
