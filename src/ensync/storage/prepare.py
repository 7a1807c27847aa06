"""`ensync data prepare`: from published or own files to one dataset file."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ensync.core.errors import EnsyncError, nearest
from ensync.storage import sources
from ensync.storage.downloads import fetch
from ensync.storage.published import PUBLISHED
from ensync.storage.writing import Progress, Written, check_target, write_dataset

OPTIONS: dict[str, tuple[str, ...]] = {  # of each dataset, beside those that all have
    "digits": (),
    **dict.fromkeys(PUBLISHED, ("from", "download")),
    "csv": ("from", "validation-from", "bad-rows", "label", "delimiter", "header", "shape"),
    "images": ("from", "validation-from", "bad-rows", "size", "greyscale", "background", "range"),
}
BAD_ROWS = ("refuse", "skip")  # the first is the default
SIZE = 32  # pixels on a side of pictures, when --size is not given


@dataclass(frozen=True)
class Prepared(Written):
    """What `prepare` has done, in words."""

    def __str__(self) -> str:
        if not self.changed:
            return f"{self.path} is there already and identical: nothing was changed"
        if self.before is None:
            return f"{self.path} is written"
        if self.before == self.fingerprint:
            return (
                f"{self.path} is written again: it had other notes, no digests or damage; for "
                "runs that were trained on it, it is the same"
            )
        was = (
            "another dataset that was there; runs that were trained on that one will refuse this"
            if self.before
            else "a damaged dataset"
        )
        return f"{self.path} is written in place of {was}"


def default_destination(name: str) -> Path:
    """Return where `prepare` puts a dataset when it is not told: data/NAME.h5."""
    return Path("data") / f"{name.replace('-', '_')}.h5"


def prepare(
    name: str,
    destination: str | os.PathLike[str] | None = None,
    from_directory: str | os.PathLike[str] | None = None,
    download: bool = False,
    validation: float | None = None,
    seed: int = 1,
    size: int | None = None,
    greyscale: bool = False,
    bad_rows: str = "refuse",
    validation_from: str | os.PathLike[str] | None = None,
    background: str | None = None,
    values: str | None = None,
    table: sources.Asked | None = None,
    progress: Progress = lambda *_: None,
) -> Prepared:
    """Write the dataset `name` to `destination` in one piece, from local files or the network. One
    process, safe to run twice.

    table: what the columns of a CSV are, where they are not to be found out. progress(what, done,
    total) is called now and then. Errors: EnsyncError for every mistake in the arguments, the
    files, the network or the disk; `destination` is then as it was.
    """
    if name not in OPTIONS:
        raise EnsyncError(
            f"the dataset '{name}'{nearest(name, OPTIONS)}",
            "one of " + ", ".join(OPTIONS),
            "choose one of them",
        )
    asked = table or sources.Asked()
    given = {
        "from": from_directory,
        "download": download,
        "size": size,
        "greyscale": greyscale,
        "bad-rows": bad_rows,
    }
    _check(
        name,
        {
            **given,
            **asked.given(),
            "validation-from": validation_from,
            "background": background,
            "range": values,
        },
    )
    target = Path(destination or default_destination(name))
    check_target(target)
    place = fetch(name, progress=progress) if download else Path(from_directory or "")
    own = None if validation_from is None else Path(validation_from)
    how = sources.recipe(background, values)
    pixels = SIZE if size is None else size
    readers: dict[str, Callable[[], sources.Source]] = {
        "digits": sources.read_digits,
        "cifar-10": lambda: sources.read_cifar10(place),
        "csv": lambda: sources.read_csv(place, bad_rows, own, asked),
        "images": lambda: sources.read_images(
            place, pixels, greyscale, bad_rows, own, how, progress
        ),
    }
    source = readers.get(name, lambda: sources.read_idx(place, name))()
    return Prepared(**vars(write_dataset(target, source, validation, seed, progress)))


def _check(name: str, given: dict[str, Any]) -> None:
    """Raise EnsyncError unless the options given are those the dataset has, and say where it
    comes from.
    """
    for option, value in given.items():
        if (
            value is not None
            and value is not False
            and value != BAD_ROWS[0]
            and option not in OPTIONS[name]
        ):
            raise EnsyncError(
                f"--{option} with the dataset '{name}'",
                "an option that this dataset has",
                f"leave --{option} out",
            )
    if given["bad-rows"] not in BAD_ROWS:
        raise EnsyncError(f"--bad-rows {given['bad-rows']}", "refuse or skip", "choose one of them")
    ways = [
        {"from": "--from DIR", "download": "--download"}[way]
        for way in OPTIONS[name]
        if way in ("from", "download")
    ]
    count = bool(given["from"]) + bool(given["download"])
    if ways and count != 1:
        both = f"with both {' and '.join(ways)}" if count else f"without {' or '.join(ways)}"
        raise EnsyncError(
            f"the dataset '{name}' {both}",
            "one of them" if count else " or ".join(ways),
            "say where its files come from",
        )
