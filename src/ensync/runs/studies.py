"""`ensync compare` and `ensync sweep`: several runs of one job, side by side.

Collective throughout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ensync.core.activity import Doing, doing
from ensync.core.config.effects import without_effect
from ensync.core.config.job import STUDY_IS_FOR_COMPARE, load_job, without_study
from ensync.core.config.schema import Job
from ensync.core.errors import EnsyncError
from ensync.core.signals import stop_on_signals
from ensync.mpi.world import Comm, on_root
from ensync.report.console import Console, make_console
from ensync.report.results import Comparison
from ensync.runs import launch
from ensync.runs.compare import compare as run_comparison
from ensync.runs.compare import contestants, page_files
from ensync.runs.existing import refuse_earlier
from ensync.runs.options import RunOptions, StudyOptions
from ensync.runs.planned import PlannedRun
from ensync.runs.sweep import sweep as run_sweep
from ensync.runs.sweep import sweep_files
from ensync.runs.sweeping import swept
from ensync.storage.lock import confirm

if TYPE_CHECKING:
    from ensync.report.study_results import StudyResult
    from ensync.runs.study.execution import Execution

NO_STUDY = StudyOptions()


def compare(comm: Comm, path: str, options: RunOptions, wanted: StudyOptions = NO_STUDY) -> None:
    """Run both strategies and the baseline; write and show the comparison. A job with a section
    [study] is run as a study.
    """
    overrides = (*options.overrides, *wanted.overrides)
    job = on_root(comm, lambda: load_job(path, overrides))
    if job.study is not None:
        study(comm, job, options, wanted)
        return
    if wanted.actions:
        raise EnsyncError(
            f"{wanted.actions[0]} with {path}, which has no section [study]",
            "a study",
            "describe one in the job file, or give --seeds, --ranks, --budget, --contestants or "
            "--over",
        )
    compare_job(comm, job, options, make_console(comm.rank, options.verbose))


def compare_job(comm: Comm, job: Job, options: RunOptions, console: Console) -> Comparison | None:
    """Run both strategies and the baseline of a job without a study, the same on all ranks; write
    and show the comparison, and return it on rank 0.
    """
    from ensync.report.export import write_comparison

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
        console.files(_named(files) | {"runs": directories[0]})
    return comparison


def study(
    comm: Comm,
    job: Job,
    options: RunOptions,
    wanted: StudyOptions = NO_STUDY,
    console: Console | None = None,
) -> StudyResult | None:
    """Run the cells of a study that are missing; write, show and return what it found, None where
    only some cells are run or listed.
    """
    from ensync.runs.study import gathering

    if wanted.list_cells:
        _list_cells(comm, job)
        return None
    with held_study(comm, job, options, wanted, console) as run:
        if not wanted.gather:
            train_cells(run)
        if wanted.cell is None:
            return gathering.gather(comm, run.directory, run.console)
    return None


def _list_cells(comm: Comm, job: Job) -> None:
    from ensync.runs.study import execution

    console = make_console(comm.rank)
    facts = on_root(comm, lambda: execution.facts_of_file(job.data.path)).facts
    counts = job.study.ranks if job.study else []
    launched = max(comm.size, *counts, 1)  # the cells of any launch
    for number, names in enumerate(execution.units_of(job, launched, facts)):
        console.line(f"{number}  {', '.join(names)}")


@contextmanager
def held_study(
    comm: Comm,
    job: Job,
    options: RunOptions,
    wanted: StudyOptions,
    console: Console | None = None,
) -> Iterator[Execution]:
    """Hold the directory of a study within the block, but for one cell of it; give what runs its
    cells.
    """
    from ensync.runs.study import execution

    console = console or make_console(comm.rank, options.verbose)
    again = execution.Again(options.resume, options.overwrite, wanted.pack, wanted.cell)
    facts = on_root(comm, lambda: execution.facts_of_file(job.data.path))
    held = [] if wanted.cell is not None else [Path(job.output.directory)]
    with (
        launch.holding(comm, held, "compare", console),
        PlannedRun(without_study(job), comm).watched(console),
        stop_on_signals() as stop_request,
    ):
        yield execution.Execution(comm, job, console, stop_request, again, facts)


def train_cells(run: Execution) -> None:
    """Write the plan of a study, and train the cells that are missing."""
    from ensync.runs.study import gathering

    run.clear()
    gathering.note_plan(run.comm, run)
    run.prepare()
    run.run()
    run.data.close()


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
