"""`ensync export`: write a trained run for other programs. Collective; rank 0 does the work."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ensync.core.errors import EnsyncError
from ensync.mpi.world import Comm, alone, on_root
from ensync.report.console import make_console
from ensync.runs import opening
from ensync.runs.export.formats import FORMATS, package_of, write
from ensync.runs.export.trained import trained_of
from ensync.runs.library.tester import Tester


@dataclass(frozen=True)
class ExportOptions:
    """What the verb is given: a format, the file (None: one in the run's directory), the fusion of
    an ensemble (None: the job's), and the number of a member that is to be exported alone.
    """

    form: str
    to: str | None = None
    method: str | None = None
    member: int | None = None


class _Written(NamedTuple):
    """The files, what each is, and sentences on what differs from the run."""

    files: dict[str, Path]
    notes: list[str]


def export(comm: Comm, directory: str, options: ExportOptions) -> None:
    """Write a run, or a member of one, in a format, and say where it is."""
    console = make_console(comm.rank)
    chosen = opening.choose_run(comm, directory, "export", console)
    written = on_root(comm, lambda: _write(chosen, options))
    for note in written.notes:
        console.warn(note)
    console.files(written.files)


def _write(directory: str, options: ExportOptions) -> _Written:
    package_of(options.form)
    tester = Tester(opening.load(alone(), directory))
    member = options.member
    if member is not None and not 0 <= member < tester.members:
        raise EnsyncError(
            f"--member {member} of a run with {tester.members}",
            f"a number from 0 to {tester.members - 1}",
            "change it, or leave it out",
        )
    only = None if member is None else [member]
    method = tester.method(options.method, only)
    run = tester.loaded.path.parent.parent
    trained = trained_of(tester.evaluator(method, only), method, str(run))
    name = "network" if member is None else f"member_{member}"
    path = Path(options.to) if options.to else run / f"{name}{FORMATS[options.form].suffix}"
    return _Written(dict(write(trained, options.form, path)), trained.notes)
