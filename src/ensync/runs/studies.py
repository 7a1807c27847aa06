"""`ensync compare` and `ensync sweep`: several runs of one job, side by side.

Collective throughout.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ensync.core.activity import Doing, doing
from ensync.core.config.effects import without_effect
from ensync.core.config.job import STUDY_IS_FOR_COMPARE, load_job, without_study
from ensync.core.signals import stop_on_signals
from ensync.mpi.world import Comm, on_root
from ensync.report.console import make_console
from ensync.runs import launch
from ensync.runs.compare import compare as run_comparison
from ensync.runs.compare import contestants, page_files
from ensync.runs.existing import refuse_earlier
from ensync.runs.options import RunOptions
from ensync.runs.planned import PlannedRun
from ensync.runs.sweep import sweep as run_sweep
from ensync.runs.sweep import sweep_files
from ensync.runs.sweeping import swept
from ensync.storage.lock import confirm


def compare(comm: Comm, path: str, options: RunOptions) -> None:
    """Run both strategies and the baseline; write and show the comparison."""
    from ensync.report.export import write_comparison

    job = on_root(comm, lambda: load_job(path, options.overrides))
    console = make_console(comm.rank, options.verbose)
    parts = contestants(job, comm.size).values()
    directories = [Path(each.output.directory) for each in (job, *parts)]
    with (
        launch.holding(comm, directories, "compare", console),
        PlannedRun(job, comm).watched(console),
        stop_on_signals() as stop_request,
    ):
        again = options.overwrite or options.resume
        refuse_earlier(comm, directories[1:], page_files(directories[0]), again)
        comparison = run_comparison(comm, job, console, stop_request, options.resume)
        with doing(Doing.WRITING):
            files = on_root(comm, lambda: _while_held(directories[0], write_comparison, comparison))
    if comparison is not None:
        console.comparison(comparison)
        console.files(_named(files) | {"checkpoints": directories[0] / "*" / "checkpoints"})


def sweep(comm: Comm, path: str, over: str, options: RunOptions) -> None:
    """Train the job once for each value of one setting; write and show the sweep."""
    from ensync.report.export import write_sweep

    key = over.partition("=")[0].strip()
    found_jobs = on_root(comm, lambda: swept(path, over, options.overrides))
    jobs = [(one.value, without_study(one.job)) for one in found_jobs]
    console = make_console(comm.rank, options.verbose)
    if found_jobs[0].job.study:
        console.line(STUDY_IS_FOR_COMPARE)
    runs = [job for _, job in jobs]
    for line in dict.fromkeys(line for job in runs for line in without_effect(job)):
        console.line(line)
    directories = [Path(job.output.directory) for job in runs]
    whole = directories[0].parent
    with (
        launch.holding(comm, [whole, *directories], "sweep", console),
        PlannedRun(runs[0], comm).watched(console),
        stop_on_signals() as stop_request,
    ):
        again = options.overwrite or options.resume
        refuse_earlier(comm, directories, sweep_files(whole), again)
        found = run_sweep(comm, jobs, key, console, stop_request, options.resume)
        with doing(Doing.WRITING):
            files = on_root(comm, lambda: _while_held(whole, write_sweep, found))
    if found is not None:
        console.sweep(found)
        console.files(_named(files))


def _while_held(directory: Path, write: Callable[[Path, Any], Any], found: object) -> Any:
    """Return write(directory, found), unless another process has taken the directory over."""
    confirm(directory)
    return write(directory, found)


def _named(files: Any) -> dict[str, object]:
    return (
        dict(files) if isinstance(files, dict) else {Path(f).suffix.lstrip("."): f for f in files}
    )
