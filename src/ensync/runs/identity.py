"""The identity of a dataset: what a run keeps of the data it was trained on, to predict without
them and to tell others from them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from ensync.core.errors import EnsyncError, plural
from ensync.runs.schema import IdentityRecord
from ensync.storage.dataset import Dataset


@dataclass(frozen=True)
class Identity:
    """All that a run must know of a dataset.

    shape (height, width, channels); mean, std float32 (channels,) in units of 0..255; sizes {split:
    rows}; fingerprint of images, labels, split and class names (data/README.md); preparation {word:
    value}, how pictures became images.
    """

    name: str
    class_names: list[str]
    shape: tuple[int, int, int]
    mean: np.ndarray
    std: np.ndarray
    sizes: dict[str, int]
    fingerprint: str
    preparation: Mapping[str, str | bool | int | float | None]

    @classmethod
    def of(cls, dataset: Dataset) -> "Identity":
        """Return the identity of an open dataset."""
        return cls(
            dataset.name,
            list(dataset.class_names),
            dataset.shape,
            dataset.mean,
            dataset.std,
            dict(dataset.sizes),
            dataset.fingerprint,
            dataset.preparation,
        )

    @classmethod
    def from_dict(cls, values: IdentityRecord) -> "Identity":
        """Read what as_dict wrote and content.check has checked."""
        height, width, channels = values["shape"]
        return cls(
            values["name"],
            values["class_names"],
            (height, width, channels),
            np.array(values["mean"], np.float32),
            np.array(values["std"], np.float32),
            dict(values["sizes"]),
            values["fingerprint"],
            values["preparation"],
        )

    def as_dict(self) -> IdentityRecord:
        """Plain values for a checkpoint; float32 comes back from them to the bit."""
        return cast(
            IdentityRecord, {**vars(self), "mean": self.mean.tolist(), "std": self.std.tolist()}
        )

    @property
    def features(self) -> int:
        """Values of an image."""
        return int(np.prod(self.shape))

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)

    def __str__(self) -> str:
        """Return it in some words."""
        return (
            f"'{self.name}', {' x '.join(map(str, self.shape))}, {self.classes} classes, "
            f"{plural(sum(self.sizes.values()), 'image')}, {self.fingerprint[:15]}"
        )


def same(run: Path, trained_on: Identity | None, fingerprint: str, dataset: Dataset) -> Identity:
    """Return the identity of what a run was trained on when `dataset` is that, and raise
    EnsyncError when it is another.

    trained_on: None for runs of before, which carry the fingerprint only.
    """
    found = Identity.of(dataset)
    if dataset.fingerprint == fingerprint:
        if trained_on and (trained_on.shape, trained_on.class_names, trained_on.sizes) != (
            found.shape,
            found.class_names,
            found.sizes,
        ):
            raise EnsyncError(
                f"{run} describes its dataset otherwise than {dataset.path}, which has the "
                "fingerprint that it names",
                "the same of both",
                "use a checkpoint that `ensync train` wrote",
            )
        return trained_on or found
    difference = f" ({_difference(trained_on, found)})" if trained_on else ""
    raise EnsyncError(
        f"the dataset {dataset.path} is not the one that {run} was trained on{difference}",
        f"the file with fingerprint {fingerprint}",
        "put that file back, prepare it again as it was or give --set data.path=FILE; `ensync "
        "evaluate RUN --data FILE` tests on other images on purpose",
    )


def alike(run: Path, trained_on: Identity, dataset: Dataset) -> Identity:
    """Return the identity of what a run was trained on when its networks can be tested on
    another dataset, and raise EnsyncError otherwise.
    """
    other = Identity.of(dataset)
    if (
        other.shape == trained_on.shape
        and other.class_names == trained_on.class_names
        and other.sizes["test"]
    ):
        return trained_on
    what = _difference(trained_on, other) if other.sizes["test"] else "it has no test images"
    raise EnsyncError(
        f"{dataset.path} cannot test {run} ({what})",
        f"test images of {' x '.join(map(str, trained_on.shape))} pixels in the run's classes",
        "prepare the other images with the same size, colour and class names",
    )


def _difference(trained_on: Identity, other: Identity) -> str:
    """Return the first thing in which another dataset differs, in words."""
    if trained_on.shape != other.shape:
        return (
            f"images of {' x '.join(map(str, other.shape))}, the run's are "
            f"{' x '.join(map(str, trained_on.shape))}"
        )
    if trained_on.class_names != other.class_names:
        return _difference_of_names(trained_on.class_names, other.class_names)
    if trained_on.sizes != other.sizes:
        return "other numbers of images: " + ", ".join(
            f"{other.sizes[s]:,} {s} instead of {rows:,}"
            for s, rows in trained_on.sizes.items()
            if other.sizes[s] != rows
        )
    changed = [
        key
        for key in (trained_on.preparation.keys() | other.preparation) - {"program"}
        if trained_on.preparation.get(key) != other.preparation.get(key)
    ]
    if changed:
        return "prepared otherwise: " + ", ".join(
            f"{k} {other.preparation.get(k)} instead of {trained_on.preparation.get(k)}"
            for k in sorted(changed)
        )
    return (
        f"other images or labels: '{other.name}', the run's '{trained_on.name}'"
        if trained_on.name != other.name
        else "other images or labels"
    )


def _difference_of_names(ours: list[str], others: list[str]) -> str:
    if len(ours) != len(others):
        return f"{len(others)} classes, the run has {len(ours)}"
    place = next(n for n, (one, other) in enumerate(zip(ours, others, strict=True)) if one != other)
    return f"class {place} is {others[place]!r}, the run's is {ours[place]!r}"
