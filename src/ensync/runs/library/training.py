"""`ensync.job`, `ensync.train` and `ensync.compare`: a job from keywords, and its runs."""

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TypeAlias

from ensync.core import streams
from ensync.core.config.effects import refuse_without_effect
from ensync.core.config.job import job_from_dict, load_job
from ensync.core.config.schema import Job
from ensync.kernels.threads import get_threads
from ensync.mpi.abort import guard
from ensync.mpi.world import Comm, on_root, share, world
from ensync.report.callbacks import Callback
from ensync.report.console import Console, SilentConsole, make_console
from ensync.report.results import Comparison
from ensync.report.study_results import StudyResult
from ensync.runs import studies
from ensync.runs import train as runs
from ensync.runs.library.dataset import Dataset
from ensync.runs.library.trained import Run, open_with
from ensync.runs.options import RunOptions

Section: TypeAlias = str | os.PathLike[str] | Dataset | Mapping[str, object]
# The setting that a section's plain value stands for.
MEANT = {
    "data": "path",
    "network": "name",
    "optimizer": "name",
    "schedule": "name",
    "fusion": "method",
    "output": "directory",
}
ORIGIN = "the job given"


def job(**sections: Section) -> Job:
    """Return a job from the sections of a job file, each a dictionary of its settings.

    A plain value stands for a section's main setting: data="FILE.h5", or a Dataset; network="mlp",
    optimizer="adam", schedule="cosine", fusion="hard_voting", output="DIRECTORY". `ensync settings`
    explains all settings. Errors: EnsyncError naming the setting that is unknown, wrong or without
    effect.

    >>> digits = ensync.job(
    ...     data="data/digits.h5",
    ...     network=dict(name="mlp", hidden=[32]),
    ...     training=dict(epochs=3, batch=32),
    ...     output="runs/digits",
    ... )
    >>> digits.training.epochs, digits.optimizer.name
    (3, 'adam')
    """
    return _from_tables(sections)


def _from_tables(sections: Mapping[str, Section]) -> Job:
    made = job_from_dict({name: _table(name, value) for name, value in sections.items()}, ORIGIN)
    refuse_without_effect(made, (), ORIGIN)
    return made


def _table(name: str, value: Section) -> object:
    if isinstance(value, Dataset):
        value = value.path
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    plain = _plain(value)
    return {MEANT[name]: plain} if name in MEANT else plain


def _plain(value: object) -> object:
    """Return a value as a job file has it: paths as text, tuples as lists, numpy's numbers as
    Python's.
    """
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    tolist = getattr(value, "tolist", None)
    return tolist() if callable(tolist) else value


def train(
    job: Job | Mapping[str, Section] | str | os.PathLike[str],
    comm: Comm | None = None,
    *,
    overwrite: bool = False,
    resume: bool = False,
    quiet: bool = False,
    callbacks: Sequence[Callback] = (),
) -> Run:
    """Train a job as `ensync train` does, and return its run, loaded.

    job: what `job` returns, a dictionary of its sections, or the path of a job file. comm: a
    communicator of mpi4py [default: all ranks]; each of its ranks calls this with the same job.
    overwrite: delete an earlier run in output.directory; resume: continue it. quiet: print nothing.
    callbacks: what is told how it goes, on rank 0 alone (help(ensync.Callback)).
    Errors: EnsyncError; on several ranks one that fails ends them all, as under `ensync train`.

    >>> run = ensync.train("jobs/digits.toml", overwrite=True, quiet=True)
    >>> run.result.ended
    ['all 3 epochs']
    """
    ranks = world() if comm is None else comm
    options = RunOptions(resume=resume, overwrite=overwrite)
    with _together(ranks):
        wanted = on_root(ranks, lambda: _job_of(job))
        runs.train_job(ranks, wanted, options, _console(ranks, quiet), callbacks)
    return open_with(wanted.output.directory, get_threads() if ranks.size > 1 else 0)


def compare(
    job: Job | Mapping[str, Section] | str | os.PathLike[str],
    comm: Comm | None = None,
    *,
    overwrite: bool = False,
    resume: bool = False,
    quiet: bool = False,
) -> Comparison | StudyResult:
    """Compare one rank, synchronous training and an ensemble, as `ensync compare` does; return what
    each reached, on every rank. A notebook shows it as its page.

    job, comm, overwrite, resume, quiet: as for `train`. Each contestant is a run in a directory of
    its own below output.directory: one_rank, synchronous, ensemble. rows: one for each fusion of
    each contestant, with test_accuracy (a share of 1) and seconds. A job with a section [study] is
    run as a study, whose result has contestants and pairs instead, as in study.json. Errors:
    EnsyncError.

    >>> comparison = ensync.compare("jobs/digits.toml", overwrite=True, quiet=True)
    >>> [row.strategy for row in comparison.rows if row.test_accuracy > 0.5][:2]
    ['synchronous', 'ensemble']
    """
    ranks = world() if comm is None else comm
    options = RunOptions(resume=resume, overwrite=overwrite)
    with _together(ranks):
        wanted, console = on_root(ranks, lambda: _job_of(job)), _console(ranks, quiet)
        found: Comparison | StudyResult | None
        if wanted.study is not None:
            found = studies.study(ranks, wanted, options, console=console)
        else:
            found = share(ranks, studies.compare_job(ranks, wanted, options, console))[0]
    assert found is not None, "rank 0 has it"
    return found


def _together(ranks: Comm) -> AbstractContextManager[None]:
    """Return what ends all ranks where one of them fails; one rank by itself raises its error."""
    streams.check_files()
    return guard(ranks) if ranks.size > 1 else nullcontext()


def _console(ranks: Comm, quiet: bool) -> Console:
    return SilentConsole() if quiet else make_console(ranks.rank)


def _job_of(given: Job | Mapping[str, Section] | str | os.PathLike[str]) -> Job:
    if isinstance(given, Job):
        return given
    return _from_tables(given) if isinstance(given, Mapping) else load_job(os.fspath(given))
