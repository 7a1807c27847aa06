"""The verb: runs are found, their filters looked at, and the files written. One process, no MPI."""

from collections.abc import Iterator
from pathlib import Path

from ensync.core.errors import EnsyncError
from ensync.report import tables
from ensync.report.filters.results import FiltersResult
from ensync.runs.below import directory_of, runs_below
from ensync.runs.filters.reading import seen
from ensync.runs.filters.towers import result_of
from ensync.runs.study.files import read_cell
from ensync.runs.study.origin import NAME as STARTED
from ensync.storage.checkpoint import checkpoints


def filters_in(thing: str) -> tuple[FiltersResult, Path, list[str]]:
    """Return the filters of a run, or of all runs in a directory; the directory where their files
    belong; and a line for each run that is left out.

    Errors: EnsyncError where there is none, or a network does not begin with filters that are
    pictures.
    """
    path = directory_of(Path(thing))
    left_out: list[str] = []
    if path.is_file() and path.suffix == ".h5" and path.parent.name == "checkpoints":
        directory, runs = path.parent.parent, [path]
    elif checkpoints(path / "checkpoints"):
        directory, runs = path, [path]
    else:
        directory, runs = path, [run for run in runs_below(path) if _counts(run, left_out)]
    if not runs:
        left = f" ({left_out[0]})" if left_out else ""
        raise EnsyncError(
            f"--filters with '{thing}', which holds no trained run{left}",
            "the directory of a run, of a study, or of several runs",
            "give what `ensync train` or `ensync compare` wrote",
        )
    return result_of([seen(run) for run in runs]), directory, left_out


def _counts(run: Path, left_out: list[str]) -> bool:
    """Return whether a run is none of a study's that is not done, or a trial; note why not."""
    if not (run / STARTED).exists():
        return True
    cell = read_cell(run)
    if cell is not None and cell.trial is None:
        return True
    left_out.append(f"left out: {run}, {'not done yet' if cell is None else 'a trial'}")
    return False


def describe_filters(thing: str) -> Iterator[str]:
    """Yield what the filters of a run, or of all runs in a directory, are, once their files are
    written there. Errors: EnsyncError.
    """
    from ensync.report.filters.page import write_filters
    from ensync.report.filters.words import filter_lines

    result, directory, left_out = filters_in(thing)
    files = write_filters(result, directory)
    yield "\n".join([*left_out, *filter_lines(result), "", *tables.pairs(files)])
