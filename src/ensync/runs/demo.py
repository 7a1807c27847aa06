"""`ensync demo`: the README's comparison and study, from the installed package alone. Collective
throughout.

Its job files lie in this package, beside this module, so that they are installed with it; those
of the repository's jobs/ are links to them.
"""

import shlex
from contextlib import chdir
from importlib.resources import files
from pathlib import Path

from ensync.core.errors import EnsyncError, printable
from ensync.mpi.world import Comm, on_root
from ensync.report.console import make_console
from ensync.runs import studies
from ensync.runs.options import RunOptions
from ensync.storage.atomic import write_atomically
from ensync.storage.prepare import prepare
from ensync.storage.request import PrepareRequest

COMPARISON, STUDY = "jobs/quickstart.toml", "jobs/studies/quickstart.toml"
FEWEST = 2  # networks of the ensemble where there are fewer ranks
NEXT = (
    "ensync evaluate runs/quickstart/ensemble       # test a run from its files",
    "ensync describe jobs/quickstart.toml           # its layers, and all settings",
    "ensync init my_job --data data/digits.h5       # a job of your own",
    "mpirun -n 2 ensync train my_job.toml",
)
ON_RANKS = "mpirun -n 2 ensync demo                        # on two ranks, and with a study"


def demo(comm: Comm, directory: str) -> None:
    """Write the demo's jobs and dataset into a directory, compare there what the job says, and on
    several ranks what the study says. What an earlier demo left is not trained again.

    Errors: EnsyncError for a directory that cannot be written, or one in which a file has the name
    of a job of the demo, and other content.
    """
    console, place = make_console(comm.rank), Path(directory)
    where = on_root(comm, lambda: _jobs_written(place))
    console.line(f"the demo writes jobs/, data/ and runs/ into {where}")
    with chdir(place):
        on_root(comm, lambda: prepare(PrepareRequest("digits")))
        members = f"ensemble.members={max(FEWEST, comm.size)}"
        studies.compare(comm, COMPARISON, RunOptions((members,), resume=True))
        if comm.size > 1:
            console.line()
            studies.compare(comm, STUDY, RunOptions(resume=True))
    console.lines(["", "next:", *(f"  {line}" for line in _next(place, comm.size))])


def _jobs_written(place: Path) -> Path:
    """Write the job files, and return the whole path of the directory."""
    for name in (COMPARISON, STUDY):
        content, path = (files("ensync.runs") / name).read_bytes(), place / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, [content])
        elif path.read_bytes() != content:
            raise EnsyncError(
                f"'{path}' is there already, and is not the demo's",
                "the demo's own file, or none",
                "have the demo write into another directory with --to DIR",
            )
    return place.resolve()


def _next(place: Path, ranks: int) -> list[str]:
    """Return the command lines that a user may type next."""
    enter = [] if place.samefile(".") else [f"cd {printable(shlex.quote(str(place)))}"]
    return [*enter, *NEXT, *([ON_RANKS] if ranks == 1 else [])]
