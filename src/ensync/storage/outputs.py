"""The outputs of a run's networks for the test and the validation images, in one file: what a study
fuses and compares without training or data.

The file has the layout of a checkpoint (checkpoint_format.py), checksum included, with these arrays
for each of the two splits, under /arrays/test and /arrays/validation:

    labels         int64 (rows,)
    probabilities  float32 (members, rows, classes)
    averaged       float32 (rows, classes), where the members share a start
    greedy_soup    the same

and beside them /arrays/members and /arrays/soup_members, int64.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

import numpy as np

from ensync import __version__
from ensync.core.errors import EnsyncError
from ensync.storage.checkpoint import load_checkpoint, save_checkpoint

FORMAT, VERSION = "ensync-outputs", 1
SPLITS = ("test", "validation")
Shape = tuple[int | None, ...]  # None: any length

_NUMBERS = ("members", "soup_members")
_EXPECTED = "the outputs of a cell, as Ensync writes them"
_ACTION = "delete this file and the cell.json beside it, and start the study again with --resume"


@dataclass(frozen=True)
class SplitOutputs:
    """What the networks answered for the images of one split.

    labels int64 `(rows,)`; probabilities float32 `(members, rows, classes)` of every usable member;
    averaged float32 `(rows, classes)`: of the network with the mean of all members' parameters;
    greedy_soup: of the mean of some of them. None where there is no such network.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    averaged: np.ndarray | None = None
    greedy_soup: np.ndarray | None = None


@dataclass(frozen=True)
class Outputs:
    """The outputs of one run for both splits; a dataset may have no images of one.

    members int64 `(members,)`: the numbers of the usable members, ascending; soup_members int64:
    the numbers of those in the greedy soup, the best by validation accuracy first; none where there
    is no soup.
    """

    members: np.ndarray
    test: SplitOutputs
    validation: SplitOutputs
    soup_members: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))

    def split(self, name: str) -> SplitOutputs:
        """Return those of a split by its name, "test" or "validation"."""
        return {"test": self.test, "validation": self.validation}[name]


def write_outputs(path: str | os.PathLike[str], outputs: Outputs) -> None:
    """Write outputs as one file that replaces `path` at once; in memory it takes their size again.

    Errors: EnsyncError when the file cannot be written; ValueError for arrays that are not as
    `Outputs` says.
    """
    arrays = _flat(outputs)
    if wrong := _difference(arrays):
        raise ValueError(wrong)
    save_checkpoint(path, {"format": FORMAT, "version": VERSION}, arrays)


def read_outputs(path: str | os.PathLike[str]) -> Outputs:
    """Return the outputs of a file, verified to the last byte.

    Errors: EnsyncError with the reason when it is absent, cut short, damaged, of another version or
    not of this kind.
    """
    attributes, arrays = load_checkpoint(path)
    if attributes.get("format") != FORMAT:
        raise EnsyncError(f"{path} holds no outputs", _EXPECTED, _ACTION)
    if attributes.get("version") != VERSION:
        raise EnsyncError(
            f"{path} has version {attributes.get('version')!r:.40} of the format {FORMAT}",
            f"version {VERSION}, that of this Ensync ({__version__})",
            "read it with the version of Ensync that wrote it",
        )
    if wrong := _difference(arrays):
        raise EnsyncError(f"{path} has {wrong}", _EXPECTED, _ACTION)
    return Outputs(
        arrays["members"],
        _split(arrays, "test"),
        _split(arrays, "validation"),
        arrays["soup_members"],
    )


def _split(arrays: Mapping[str, np.ndarray], split: str) -> SplitOutputs:
    return SplitOutputs(
        arrays[f"{split}/labels"],
        arrays[f"{split}/probabilities"],
        arrays.get(f"{split}/averaged"),
        arrays.get(f"{split}/greedy_soup"),
    )


def _flat(outputs: Outputs) -> dict[str, np.ndarray]:
    """Return the arrays by the names that they have in the file."""
    found = {name: getattr(outputs, name) for name in _NUMBERS}
    for split in SPLITS:
        for each in fields(SplitOutputs):
            values = getattr(outputs.split(split), each.name)
            if values is not None:
                found[f"{split}/{each.name}"] = values
    return found


def _difference(arrays: Mapping[str, np.ndarray]) -> str:
    """Return the first thing in which arrays are not as `Outputs` says, "" where all are."""
    wanted = _wanted(arrays)
    for name in sorted(arrays.keys() | wanted.keys()):
        if name not in wanted:
            return f"an array {name[:80]!r} that nobody knows"
        if name not in arrays:
            return f"no array {name!r}"
        kind = "float32" if len(wanted[name]) > 1 else "int64"
        found, shape = arrays[name], wanted[name]
        if found.dtype != kind or not _fits(found.shape, shape):
            return f"{name!r} of {found.dtype} {found.shape} instead of {kind} {_shown(shape)}"
    return ""


def _wanted(arrays: Mapping[str, np.ndarray]) -> dict[str, Shape]:
    """Return the shapes that fit the numbers of members, and to the probabilities of a split."""
    wanted: dict[str, Shape] = {name: (None,) for name in _NUMBERS}
    members = arrays["members"].size if "members" in arrays else None
    for split in SPLITS:
        answers = arrays.get(f"{split}/probabilities")
        rows, classes = (
            answers.shape[1:] if answers is not None and answers.ndim == 3 else (None, None)
        )
        wanted[f"{split}/labels"] = (rows,)
        wanted[f"{split}/probabilities"] = (members, rows, classes)
        networks = [f"{split}/{name}" for name in ("averaged", "greedy_soup")]
        wanted |= {name: (rows, classes) for name in networks if name in arrays}
    return wanted


def _fits(found: tuple[int, ...], wanted: Shape) -> bool:
    """Return whether a shape is the wanted one, in which None is any length."""
    return len(found) == len(wanted) and all(
        there is None or there == here for here, there in zip(found, wanted, strict=True)
    )


def _shown(shape: Shape) -> str:
    return f"({', '.join('any' if each is None else str(each) for each in shape)})"
