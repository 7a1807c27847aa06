"""What an earlier run left where a new one is to write.

It is deleted only on request, and reported.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from ensync.core.errors import EnsyncError
from ensync.mpi.world import Comm, on_root
from ensync.report import tensorboard
from ensync.report.console import Console
from ensync.report.text import plural
from ensync.storage.checkpoint import checkpoints

RESULTS = ("result.json", "fusion.json", "fusion_on_*.json")
BESIDE = ("history.jsonl", "profile.json", "profile.html")  # what is deleted with them


def refuse_earlier(
    comm: Comm, directories: Iterable[Path], files: Sequence[Path], overwrite: bool
) -> None:
    """Refuse to train into directories where runs or `files` are already, unless they may be
    overwritten. Collective.
    """

    def look() -> None:
        found = [directory for directory in directories if holds_run(directory)]
        found += [file for file in files if file.exists()]
        if found and not overwrite:
            more = f" and {len(found) - 3} more" * (len(found) > 3)
            shown = ", ".join(f"'{path}'" for path in found[:3]) + more
            raise EnsyncError(
                f"earlier results are there already: {shown}",
                "a place without any",
                "continue them with --resume, keep them by giving --set output.directory=DIR, "
                "or delete them with --overwrite",
            )

    on_root(comm, look)


def holds_run(directory: Path) -> bool:
    """Whether a directory holds checkpoints or results of a run."""
    return bool(checkpoints(directory / "checkpoints")) or bool(_results(directory))


def _results(directory: Path) -> list[Path]:
    return [path for pattern in RESULTS for path in sorted(directory.glob(pattern))]


def remove_earlier(
    comm: Comm, directory: Path, console: Console, files: Sequence[Path] = ()
) -> None:
    """Make the run's directory, and delete what an earlier run left in it, and `files`.

    Say what that was. Collective.
    """

    def remove() -> str:
        try:
            (directory / "checkpoints").mkdir(parents=True, exist_ok=True)
            saved = checkpoints(directory / "checkpoints")
            single = [
                path
                for path in (*(directory / name for name in BESIDE), *_results(directory))
                if path.exists()
            ]
            beside = [path for path in files if path.exists()]
            events = sorted((directory / tensorboard.NAME).rglob("events.out.tfevents.*"))
            for path in (*saved, *single, *beside, *events):
                path.unlink(missing_ok=True)
        except OSError as error:
            raise EnsyncError(
                f"the output.directory '{directory}' cannot be made "
                f"({(error.strerror or str(error)).lower()})",
                "a directory that can be written",
                "check its path and permissions or give --set output.directory=DIR",
            ) from None
        inside = [plural(len(saved), "checkpoint")] * bool(saved) + [path.name for path in single]
        inside += [plural(len(events), "event file")] * bool(events)
        deleted = [f"in {directory}: {', '.join(inside)}"] * bool(inside) + [
            str(path) for path in beside
        ]
        return f"deleted {', '.join(deleted)}" if deleted else ""

    if report := on_root(comm, remove):
        console.line(report)
