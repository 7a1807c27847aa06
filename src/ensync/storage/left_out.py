"""The file beside a dataset that names every picture that was left out."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ensync.storage.atomic import write_atomically
from ensync.storage.sources.source import LISTED

BEGINNING = "# left out of "


def name_left_out(target: Path, problems: Sequence[str]) -> Path | None:
    """Write what was left out of the dataset `target` and why, a line each, where that is more than
    its notes name; return the file. One of an earlier preparation goes.

    Errors: EnsyncError when it cannot be written.
    """
    path = target.with_suffix(".left_out.txt")
    if len(problems) > LISTED:
        lines = [f"{BEGINNING}{target.name}", *(ascii(problem)[1:-1] for problem in problems)]
        write_atomically(path, ["\n".join([*lines, ""]).encode()])
        return path
    with suppress(OSError):
        with path.open() as file:
            ours = file.readline().startswith(BEGINNING)
        if ours:
            path.unlink()
    return None
