"""A validation split drawn anew from the training and validation images of a dataset together."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ensync.core.errors import EnsyncError
from ensync.core.sharding import Purpose, generator
from ensync.storage.dataset import Dataset
from ensync.storage.splitting import stratified

REDRAWN = 2  # a stream of random numbers, beside those of `ensync data prepare`


@dataclass(frozen=True)
class Redraw:
    """Which images change places, int64 (rows,) each: of training with as many of validation."""

    training: np.ndarray
    validation: np.ndarray

    def labels(self, dataset: Dataset) -> dict[str, np.ndarray]:
        """Return the labels int64 (rows,) of both splits as they are then."""
        train, validation = dataset.labels("train"), dataset.labels("validation")
        train[self.training], validation[self.validation] = (
            validation[self.validation],
            train[self.training],
        )
        return {"train": train, "validation": validation}

    def fill(self, dataset: Dataset, split: str) -> Callable[[np.ndarray], None]:
        """Return what fills an array uint8 (rows, features) with a split as it is then."""
        own, rows = (
            (self.training, ("validation", self.validation))
            if split == "train"
            else (self.validation, ("train", self.training))
        )

        def read(out: np.ndarray) -> None:
            dataset.read_into(split, 0, dataset.sizes[split], out)
            out[own] = dataset.rows(*rows)

        return read


def redraw(dataset: Dataset, seed: int) -> Redraw:
    """Return a split of as many validation images as there are, with the classes in proportion, as
    `ensync data prepare` draws it.

    Errors: EnsyncError where classes of one image leave too few.
    """
    train, validation = dataset.labels("train"), dataset.labels("validation")
    labels = np.concatenate([train, validation])
    part = len(validation) / max(1, len(labels))
    chosen = stratified(labels, part, generator(seed, Purpose.SPLIT, REDRAWN))
    if chosen.sum() != len(validation):
        raise EnsyncError(
            f"data.validation_seed with {dataset.path}, of whose images {int(chosen.sum()):,} can "
            f"be drawn for validation in place of {len(validation):,}",
            "classes of several images",
            "leave data.validation_seed out",
        )
    first, rest = chosen[: len(train)], chosen[len(train) :]
    return Redraw(np.flatnonzero(first), np.flatnonzero(~rest))
