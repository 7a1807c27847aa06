"""One part of a comparison or a sweep: started, or taken up where an earlier start left it."""

from pathlib import Path
from typing import Any

from ensync.core.config.schema import Job
from ensync.core.errors import EnsyncError
from ensync.core.signals import StopRequest
from ensync.mpi.world import Comm, on_root
from ensync.report.console import Console
from ensync.runs import launch, session, state
from ensync.runs.plan import settle_members

# What a part may have other than the job: it does not change what is trained.
FREE = ("output", "checkpoint", "data.path", "training.threads", "training.watchdog")


def begin(
    comm: Comm,
    job: Job,
    place: launch.Place,
    console: Console,
    stop_request: StopRequest,
    resume: bool,
) -> session.Session:
    """Return the session of a part whose directory is taken, or of what is there already.

    Collective.
    """
    directory = Path(job.output.directory)
    if not resume:
        return session.start(comm, job, place.loaders, console, stop_request)
    loaded = state.load_newest(comm, directory)
    for path, why in loaded.rejected:
        console.warn(f"{path} is left aside: {why}")
    _check_same(directory, loaded.state.job, settle_members(job, comm.size))
    begun = session.resume(
        comm, loaded, settle_members(job, comm.size), place.loaders, console, stop_request
    )
    console.line(f"continuing from {loaded.path}")
    return begun


def is_there(comm: Comm, job: Job) -> bool:
    """Return whether a part has been begun. Collective."""
    return on_root(comm, lambda: state.has_checkpoint(Path(job.output.directory)))


def _check_same(directory: Path, begun: Job, job: Job) -> None:
    """Refuse to take up a part that another job has begun.

    Its figures would stand beside those of this one.
    """
    old, new = _settings(begun), _settings(job)
    for name in sorted(old | new):
        if old.get(name) != new.get(name):
            raise EnsyncError(
                f"'{directory}' was trained with {name} = {old.get(name)!r}, and this job has "
                f"{new.get(name)!r}",
                "the job that it was begun with",
                "keep it by giving --set output.directory=DIR, or delete it and start afresh "
                "with --overwrite",
            )


def _settings(job: Job) -> dict[str, Any]:
    flat = {
        f"{section}.{key}": value
        for section, values in job.model_dump(mode="json").items()
        for key, value in values.items()
    }
    return {
        name: value
        for name, value in flat.items()
        if name not in FREE and name.partition(".")[0] not in FREE
    }
