"""`ensync compare` and `ensync sweep`: several runs of one job, side by side.

Collective throughout.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ensync.core.activity import Doing, doing
from ensync.core.config.job import load_job
from ensync.core.signals import stop_on_signals
from ensync.mpi.world import Comm, on_root
from ensync.report.console import make_console
from ensync.runs import launch
from ensync.runs.compare import compare as run_comparison
from ensync.runs.compare import contestants, page_files
from ensync.runs.existing import refuse_earlier
from ensync.runs.options import RunOptions
from ensync.runs.sweep import sweep as run_sweep
from ensync.runs.sweep import sweep_files
from ensync.runs.sweeping import swept
from ensync.runs.train import say_without_effect, watched
from ensync.storage.lock import confirm


def compare(comm: Comm, path: str, options: RunOptions) -> None:
    """Run both strategies and the baseline; write and show the comparison."""
    from ensync.report.export import write_comparison

    job = on_root(comm, lambda: load_job(path, options.overrides))
    console = make_console(comm.rank, options.verbose)
    jobs = contestants(job, comm.size).values()
    directories = [job.output.directory, *(each.output.directory for each in jobs)]
    with (
        launch.holding(comm, directories, "compare", console),
        watched(comm, job, console),
        stop_on_signals() as stop_request,
    ):
        refuse_earlier(comm, jobs, page_files(job), options.overwrite or options.resume)
        comparison = run_comparison(comm, job, console, stop_request, options.resume)
        with doing(Doing.WRITING):
            files = on_root(
                comm, lambda: _while_held(job.output.directory, write_comparison, comparison)
            )
    if comparison is not None:
        console.comparison(comparison)
        console.files(
            _named(files) | {"checkpoints": Path(job.output.directory) / "*" / "checkpoints"}
        )


def sweep(comm: Comm, path: str, over: str, options: RunOptions) -> None:
    """Train the job once for each value of one setting; write and show the sweep."""
    from ensync.report.export import write_sweep

    key = over.partition("=")[0].strip()
    jobs = [
        (one.value, one.job) for one in on_root(comm, lambda: swept(path, over, options.overrides))
    ]
    console = make_console(comm.rank, options.verbose)
    runs = [job for _, job in jobs]
    say_without_effect(console, *runs)
    directories = [
        str(Path(runs[0].output.directory).parent),
        *(job.output.directory for job in runs),
    ]
    with (
        launch.holding(comm, directories, "sweep", console),
        watched(comm, runs[0], console),
        stop_on_signals() as stop_request,
    ):
        refuse_earlier(comm, runs, sweep_files(runs[0]), options.overwrite or options.resume)
        found = run_sweep(comm, jobs, key, console, stop_request, options.resume)
        with doing(Doing.WRITING):
            files = on_root(comm, lambda: _while_held(directories[0], write_sweep, found))
    if found is not None:
        console.sweep(found)
        console.files(_named(files))


def _while_held(directory: str, write: Callable[[Path, Any], Any], found: object) -> Any:
    """Return write(directory, found), unless another process has taken the directory over."""
    confirm(Path(directory))
    return write(Path(directory), found)


def _named(files: Any) -> dict[str, object]:
    return (
        dict(files) if isinstance(files, dict) else {Path(f).suffix.lstrip("."): f for f in files}
    )
