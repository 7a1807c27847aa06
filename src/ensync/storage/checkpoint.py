"""Checkpoints: one HDF5 file per run state, whole or absent, refused with the reason when anything
in it is not as written.

A checkpoint knows no rank count. `attributes` is what JSON can say (job, epoch, step, history,
versions); `arrays` are the flat vectors. The layout of the file is in checkpoint_format.py.
"""

import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from ensync.core.errors import EnsyncError, reason
from ensync.storage import checkpoint_format
from ensync.storage.atomic import clean_temporaries, write_atomically

__all__ = [
    "checkpoint_name",
    "checkpoints",
    "clean_temporaries",
    "fill_arrays",
    "load_checkpoint",
    "load_newest_valid",
    "newest_valid",
    "position_of",
    "prune",
    "save_checkpoint",
    "verify_checkpoint",
]

T = TypeVar("T")


class Found(NamedTuple):
    """A checkpoint and what is in it."""

    path: Path
    attributes: Mapping[str, Any]
    arrays: dict[str, np.ndarray]


_NAME = re.compile(r"checkpoint-e(\d+)-s(\d+)\.h5")


def checkpoint_name(epoch: int, step: int) -> str:
    """Return the file name of the state after `step` updates, `epoch` of them whole epochs."""
    return f"checkpoint-e{epoch:05d}-s{step:09d}.h5"


class Named(NamedTuple):
    """What the name of a checkpoint tells: whole epochs, and the updates of all members."""

    epoch: int
    step: int


def position_of(path: Path) -> Named:
    """Return what checkpoint_name has put into the name of one of `checkpoints`."""
    match = _NAME.fullmatch(path.name)
    assert match is not None
    return Named(int(match[1]), int(match[2]))


def save_checkpoint(
    path: str | os.PathLike[str], attributes: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> None:
    """Write `attributes` and `arrays` as one file that replaces `path` at once.

    attributes: anything json can write, NumPy scalars included. arrays: integers and floats of 1 to
    8 bytes, any shape; names may contain "/". The HDF5 image is made in memory (as large as the
    arrays), then written: HDF5 itself never meets a full disk. Errors: EnsyncError when the file
    cannot be written; what stood at `path` and beside it is then intact.
    """
    write_atomically(path, checkpoint_format.encode(attributes, arrays))


def load_checkpoint(path: str | os.PathLike[str]) -> checkpoint_format.Content:
    """Return what a checkpoint holds, after verifying all of it.

    Errors: EnsyncError with the reason when the file is absent, cut short, damaged, from a newer
    version or not a checkpoint. Memory: no more than the size of the file, whatever the file
    claims.
    """
    return checkpoint_format.decode(path)


def verify_checkpoint(path: str | os.PathLike[str]) -> None:
    """Raise the EnsyncError that load_checkpoint would raise, without reading the arrays into
    memory.
    """
    checkpoint_format.decode(path, with_arrays=False)


def newest_valid(directory: str | os.PathLike[str]) -> tuple[Path | None, list[tuple[Path, str]]]:
    """Return the newest checkpoint of `directory` that verifies, and each newer one that does not
    with the reason.

    The path is None when there is none. Newest means most steps; times of files are not asked.
    """
    found, rejected = _newest(directory, verify_checkpoint)
    return found[0] if found else None, rejected


def load_newest_valid(
    directory: str | os.PathLike[str],
) -> tuple[Found | None, list[tuple[Path, str]]]:
    """Return the newest checkpoint of `directory` that is whole, read, and each newer one that
    is not with the reason; None when there is none.
    """
    found, rejected = _newest(directory, load_checkpoint)
    return Found(found[0], *found[1]) if found else None, rejected


def _newest(
    directory: str | os.PathLike[str], look: Callable[[Path], T]
) -> tuple[tuple[Path, T] | None, list[tuple[Path, str]]]:
    """Return the newest checkpoint that `look` does not refuse, with what it returns, and each
    newer one with its reason.

    A run that trains meanwhile may remove a file between our look at the directory and at the file.
    It has then written a newer one, so that we look again.
    """
    rejected: dict[Path, str] = {}
    gone: set[Path] = set()
    while left := [
        path for path in checkpoints(directory) if path not in rejected and path not in gone
    ]:
        try:
            return (left[-1], look(left[-1])), list(rejected.items())
        except checkpoint_format.Absent:
            gone.add(left[-1])
        except EnsyncError as error:
            rejected[left[-1]] = str(error)
    return None, list(rejected.items())


def prune(
    directory: str | os.PathLike[str], keep: int, protect: Iterable[str | os.PathLike[str]] = ()
) -> list[Path]:
    """Remove all but the newest `keep` (at least 1) checkpoints and those in `protect` (by file
    name); return the removed paths.

    Only files named by checkpoint_name are touched; temporaries of dead writers go as well.
    Errors: EnsyncError when the operating system refuses.
    """
    protected = {Path(name).name for name in protect}
    removed = [
        path for path in checkpoints(directory)[: -max(keep, 1)] if path.name not in protected
    ]
    try:
        for path in removed:
            path.unlink(missing_ok=True)
        clean_temporaries(directory)
    except OSError as error:
        raise EnsyncError(
            f"old checkpoints in {directory} cannot be removed because {reason(error)}",
            "a writable directory",
            "make it writable; the checkpoints are intact",
        ) from error
    return removed


def fill_arrays(
    path: str | os.PathLike[str],
    arrays: Mapping[str, np.ndarray],
    targets: Mapping[str, np.ndarray],
) -> None:
    """Copy `arrays`, loaded from `path`, into the like-built `targets` after checking every name,
    shape and type.

    Errors: EnsyncError naming the first difference; then no target is changed.
    """
    found = {name: f"{array.dtype} {array.shape}" for name, array in arrays.items()}
    wanted = {name: f"{array.dtype} {array.shape}" for name, array in targets.items()}
    for name in sorted(found.keys() | wanted.keys()):
        if found.get(name) != wanted.get(name):
            raise EnsyncError(
                f"{path} is from another network: {name[:80]!r} is {found.get(name, 'absent')}",
                f"{wanted.get(name, 'no such array')} as the job describes",
                "resume with the job stored in the checkpoint, or choose another output directory",
            )
    for name, target in targets.items():
        target[...] = arrays[name]


def checkpoints(directory: str | os.PathLike[str]) -> list[Path]:
    """Return the checkpoints of a directory, fewest steps first; none when there is no such
    directory.
    """
    try:
        names = os.listdir(directory)
    except OSError:
        return []
    matches = [match for match in map(_NAME.fullmatch, names) if match]
    matches.sort(key=lambda match: (int(match[2]), int(match[1])))
    return [Path(directory) / match[0] for match in matches]
