"""What `ensync data prepare` is asked for: every option once, with its help."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol

BYTES = "B"  # a unit of progress


class Progress(Protocol):
    """Told now and then what is done, how much of it, of how much: pieces, or BYTES."""

    def __call__(self, what: str, done: int, total: int, unit: str = "", /) -> None: ...


@dataclass(frozen=True)
class Option:
    """How an option is given on the command line: its flag without dashes, type and help."""

    flag: str
    help: str
    kind: type = str
    metavar: str | None = None
    choices: tuple[str, ...] = ()


def _option(default: object, *settings: Any, **more: Any) -> Any:
    return field(default=default, metadata={"option": Option(*settings, **more)})


@dataclass(frozen=True)
class PrepareRequest:
    """One call of `ensync data prepare`. Options that a source does not take stay at their
    defaults; SOURCES says which it takes.
    """

    name: str
    directory: str | Path | None = _option(
        None, "from", "Read local files: the directory or the file that holds them.", metavar="DIR"
    )
    download: bool = _option(
        False, "download", "Fetch the published files and check their checksums.", bool
    )
    target: str | Path | None = _option(
        None, "to", "The HDF5 file to write [default: data/NAME.h5].", metavar="FILE"
    )
    validation: float | None = _option(
        None,
        "validation",
        "Share of the training images cut off for validation, stratified [default: 0.1].",
        float,
    )
    validation_from: str | Path | None = _option(
        None,
        "validation-from",
        "take the validation images from here instead.",
        metavar="DIR|FILE",
    )
    seed: int = _option(1, "seed", "Seed of the cut [default: 1].", int)
    size: int | None = _option(
        None,
        "size",
        "pixels of a side: the shorter one is brought to it, and the centre is cut out [default: "
        "256, or the shorter side where all pictures have the same and a smaller one].",
        int,
    )
    greyscale: bool = _option(False, "greyscale", "one channel.", bool)
    background: str | None = _option(
        None,
        "background",
        "behind transparent pixels, a name or #rrggbb [default: white].",
        metavar="COLOUR",
    )
    values: str | None = _option(
        None,
        "range",
        "values of pixels of more than 8 bits [default: as each file declares].",
        metavar="BLACK,WHITE",
    )
    image_column: str | None = _option(
        None,
        "image-column",
        "the column of the pictures, or in tar files their ending [default: found out, and shown].",
        metavar="NAME",
    )
    label_column: str | None = _option(
        None,
        "label-column",
        "the column of the labels, or in tar files their ending, or their key in .json files "
        "[default: found out, and shown].",
        metavar="NAME",
    )
    label: str | None = _option(
        None,
        "label",
        "the label's column by its name, or by number from 1 (-1 is the last) [default: found "
        "out, and shown].",
        metavar="COLUMN",
    )
    delimiter: str | None = _option(
        None,
        "delimiter",
        "between columns; a character, or tab, comma, semicolon, blank [default: found out].",
        metavar="CHARACTER",
    )
    header: str = _option(
        "auto",
        "header",
        "whether the first line names the columns [default: auto].",
        choices=("auto", "yes", "no"),
    )
    shape: str | None = _option(
        None,
        "shape",
        "of the pictures, such as 28x20 or 32x32x3, or 3x32x32 for planes of one colour "
        "[default: square].",
        metavar="HxWxC",
    )
    jobs: int | None = _option(
        None, "jobs", "threads that decode [default: one on each CPU at hand].", int
    )
    restart: bool = _option(
        False, "restart", "begin anew what was stopped, instead of going on with it.", bool
    )
    bad_rows: str = _option(
        "refuse",
        "bad-rows",
        "what to do with what cannot be read [default: refuse].",
        choices=("refuse", "skip"),
    )

    def given(self) -> list[tuple[Option, object]]:
        """Return the options that are not at their defaults, with their values."""
        return [
            (option, getattr(self, name))
            for name, (option, default) in OPTIONS.items()
            if getattr(self, name) != default
        ]

    def path(self) -> Path:
        """Return what --from gives."""
        return Path(self.directory or "")


# Each option with its default, by the name of its field.
OPTIONS: dict[str, tuple[Option, object]] = {
    one.name: (one.metadata["option"], one.default)
    for one in fields(PrepareRequest)
    if one.metadata
}
