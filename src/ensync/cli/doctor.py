"""`ensync doctor`."""

from typing import TYPE_CHECKING

import click

from ensync.cli.options import PLACE, settings
from ensync.cli.ranks import on_ranks

if TYPE_CHECKING:
    from ensync.mpi.world import Comm


@click.command(short_help="Is this machine, launcher and file system fit?")
@click.argument("job", type=PLACE, metavar="[JOB.toml]", required=False)
@settings
def doctor(job: str | None, overrides: tuple[str, ...]) -> None:
    """Tell whether machine, launcher and file system are fit: green, yellow or red, one sentence
    each.

    \b
      mpirun -n 2 ensync doctor                        # or srun, with the options of the job
      mpirun -n 2 ensync doctor jobs/quickstart.toml   # also whether its memory is there

    Exit code 1 when something is red.
    """
    on_ranks(lambda comm: _doctor(comm, job, overrides))


def _doctor(comm: "Comm", path: str | None, overrides: tuple[str, ...]) -> None:
    from ensync.core.config.job import load_job
    from ensync.mpi.world import on_root
    from ensync.report.console import make_console
    from ensync.runs.fitness_facts import doctor

    job = on_root(comm, lambda: load_job(path, overrides)) if path else None
    if code := doctor(comm, job, make_console(comm.rank)):
        raise SystemExit(code)
