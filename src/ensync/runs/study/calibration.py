"""How fast a contestant trains on its ranks: some steps, timed before any cell counts.

The figure is kept in pace.json, so that a study that is resumed plans the same steps.
"""

import time
from pathlib import Path

from ensync.core.activity import Doing, doing, tick
from ensync.core.errors import EnsyncError
from ensync.core.signals import StopRequest
from ensync.mpi.world import Comm, on_root, share
from ensync.report.results import to_json
from ensync.runs import lifecycle
from ensync.runs.planned import PlannedRun
from ensync.runs.session import Session
from ensync.runs.start import start
from ensync.runs.study.cells import Cell, Pace
from ensync.runs.study.files import Refusal, read
from ensync.runs.study.origin import write_origin
from ensync.runs.study.running import Around, holding
from ensync.runs.validation import validate
from ensync.storage.atomic import write_atomically
from ensync.storage.lock import GONE, describe_holder
from ensync.training.trainer import Trainer

NAME = "pace.json"
WARM_UP = 3  # steps that are not timed
SECONDS = 1.0  # that are timed at least
PAUSE = 0.5  # seconds between two looks for a pace that another process finds
MOST = 4096  # steps that are timed at most


OF_PACE = Refusal(
    "the pace of a contestant, as Ensync writes it",
    "delete all cells with --overwrite: cells of another pace have other steps",
)


def read_pace(directory: Path) -> Pace | None:
    """Return the pace that a calibration found, None where there was none. Errors: EnsyncError
    where the file is damaged.
    """
    return read(Pace, directory / NAME, OF_PACE)


def calibrate(cell: Cell, around: Around) -> None:
    """Time steps of a cell and write its pace, unless that is known. Collective over its ranks."""
    study = around.study
    comm = study.comm
    on_root(comm, lambda: _wait_for_others(cell.directory, study.stop_request))
    with holding(comm, cell):
        if on_root(comm, lambda: read_pace(cell.directory)) is not None:
            return
        run = PlannedRun(cell.job, comm)
        session = start(run.context(around.loaders, study.console, study.stop_request))
        with doing(Doing.TRAINING):
            pace = pace_of(session, around.threads)
        lifecycle.close(session)

        def write() -> None:
            write_origin(cell.directory, around.origin)
            write_atomically(cell.directory / NAME, [to_json(pace).encode()])

        on_root(comm, write)


def _wait_for_others(directory: Path, stop_request: StopRequest) -> None:
    """Wait while another process, which runs other cells of the study, is about this pace."""
    while read_pace(directory) is None and not stop_request():
        if (describe_holder(directory) or GONE).startswith(GONE):
            return
        tick()
        time.sleep(PAUSE)


def pace_of(session: Session, threads: int) -> Pace:
    """Return how long a step of all networks of this session takes, and their validation: of the
    slowest rank, the members of a rank one after the other. Collective.
    """
    comm, trainers = session.comm, list(session.trainers.values())
    _time(comm, trainers, WARM_UP)
    steps, seconds = 4, 0.0
    while seconds < SECONDS and steps < MOST:
        steps = min(MOST, steps * 2)
        seconds = _time(comm, trainers, steps)
    validation = 0.0
    if len(session.loaders.validation):
        comm.Barrier()
        begun = time.perf_counter()
        for trainer in trainers:
            validate(trainer, session.loaders.validation, session.mesh.data)
        validation = max(share(comm, time.perf_counter() - begun))
    return Pace(seconds / steps, validation, threads)


def _time(comm: Comm, trainers: list[Trainer], steps: int) -> float:
    """Return the seconds of so many steps of each of these networks on the slowest rank.
    Collective.
    """
    comm.Barrier()
    begun = time.perf_counter()
    for trainer in trainers:
        _advance(trainer, steps)
    return max(share(comm, time.perf_counter() - begun))


def _advance(trainer: Trainer, steps: int) -> None:
    """Train for so many steps, from the start again where the training is over."""
    while steps > 0:
        before = trainer.position.step
        trainer.train(steps)
        done = trainer.position.step - before
        if trainer.position.finished or not done:
            raise EnsyncError(
                f"the calibration of {trainer.job.output.directory} "
                f"{trainer.position.finished or 'found no step to train'}",
                "some steps to time",
                "lower optimizer.learning_rate",
            )
        steps -= done
        if trainer.epoch_done:
            trainer.close_epoch()
            if trainer.position.epoch >= trainer.job.training.epochs:
                trainer.restart()
