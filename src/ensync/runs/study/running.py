"""One cell of a study: trained as any run is, tested, and its outputs and figures written.

cell.json is written last: a cell without it is not done, and is continued from its checkpoint.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ensync.core.activity import Doing, doing
from ensync.core.config.job import plain_settings
from ensync.core.errors import EnsyncError
from ensync.core.fusion import OF_ONE
from ensync.core.signals import ask_to_stop
from ensync.mpi.allreduce import sum_counts
from ensync.mpi.world import Comm, mpi_description, on_root, share
from ensync.report.console import SilentConsole
from ensync.report.results import CellResult, Record, to_json
from ensync.report.text import plural
from ensync.runs import launch, lifecycle, results
from ensync.runs.compare import CONTINUED, bytes_sent
from ensync.runs.data import SplitLoaders
from ensync.runs.ensemble_evaluator import EnsembleEvaluator
from ensync.runs.planned import PlannedRun, Study
from ensync.runs.session import Session
from ensync.runs.staleness import staleness_of
from ensync.runs.stopped import Stopped
from ensync.runs.study import answers
from ensync.runs.study.cells import Cell
from ensync.runs.study.files import OUTPUTS, RESULT, read_cell
from ensync.runs.study.origin import Origin, check_origin, read_origin, write_origin
from ensync.storage import lock
from ensync.storage.atomic import write_atomically
from ensync.storage.outputs import Outputs, write_outputs
from ensync.training.learning_rate import EpochPlan
from ensync.training.position import LOST

WHOLE = "`ensync compare --resume`"


@dataclass(frozen=True)
class Around:
    """What a cell is run in.

    study: its ranks, console, wish to stop, whether started cells are continued; loaders: of its
    dataset; threads: of a rank; packed: whether others run beside it; origin: what it rests on;
    target: a fused validation accuracy that is looked for, or None.
    """

    study: Study
    loaders: SplitLoaders
    threads: int
    packed: bool
    origin: Origin
    target: float | None = None


@contextmanager
def holding(comm: Comm, cell: Cell) -> Iterator[None]:
    """Hold the directory of a cell on rank 0 of its ranks while the block runs. Collective."""
    try:
        on_root(
            comm, lambda: lock.hold([cell.directory], "compare", lambda line: None, ask_to_stop)
        )
        yield
    finally:
        lock.let_go_of(cell.directory)


def run_cell(cell: Cell, around: Around) -> CellResult | None:
    """Train and test a cell, unless it is done; return its result on rank 0 of its ranks.
    Collective over these.
    """
    comm = around.study.comm
    with holding(comm, cell):
        done = on_root(comm, lambda: read_cell(cell.directory))  # meanwhile, by another process
        if done is None:
            try:
                done = _run(cell, around)
            except Stopped as stop:
                raise stop.of_part(f"the cell {cell.name}", WHOLE) from None
    return done if comm.rank == 0 else None


def _run(cell: Cell, around: Around) -> CellResult | None:
    session = begin(cell, around)
    continued = session.state.elapsed > 0
    trained = lifecycle.train(session)
    _refuse_lost(trained)
    tested = _test(trained)
    result = _result(cell, around, trained, tested)
    if continued:
        result = replace(result, bytes_sent=None, note=CONTINUED)
    lifecycle.close(trained)
    with doing(Doing.WRITING):
        on_root(around.study.comm, lambda: _write(cell.directory, tested.outputs, result))
    return result


def begin(cell: Cell, around: Around) -> Session:
    """Return the session of a cell, from its newest checkpoint where it has one. Collective over
    its ranks. EnsyncError where it was started with something else.
    """
    study = around.study
    run = PlannedRun(cell.job, study.comm)
    continued = run.is_continued(study)
    if continued:
        on_root(study.comm, lambda: _check(cell.directory, around.origin))
    else:
        run.take_directory(study.comm, SilentConsole())
        on_root(study.comm, lambda: write_origin(cell.directory, around.origin))
    return run.begin(study, around.loaders, continued)


def _check(directory: Path, origin: Origin) -> None:
    check_origin(directory, read_origin(directory), origin)


class Tested(NamedTuple):
    """What the test of a cell found: the members, the method that makes the result, its accuracy
    on the validation images, and on rank 0 what the members answered.
    """

    evaluator: EnsembleEvaluator
    fusion: str
    accuracy: float | None
    outputs: Outputs | None


def _test(trained: Session) -> Tested:
    """Test a trained cell. Collective over its ranks."""
    evaluator = results.evaluator_of_session(trained)
    fusion = trained.context.strategy.fusion_method if trained.mesh.members > 1 else OF_ONE
    if not answers.agree_on_members(evaluator):
        return Tested(evaluator, fusion, None, None)
    evaluator.fuse(fusion)  # what that sends is the contestant's
    outputs = answers.outputs_of(evaluator)
    accuracy = answers.fused_validation_accuracy(outputs, fusion)
    return Tested(evaluator, fusion, share(trained.comm, accuracy)[0], outputs)


def _result(cell: Cell, around: Around, trained: Session, tested: Tested) -> CellResult:
    """Return the figures of a tested cell. Collective over its ranks."""
    comm, evaluator = around.study.comm, tested.evaluator
    sent = bytes_sent(trained) + evaluator.sent.get(tested.fusion, 0)
    trainers = trained.trainers.values()
    return CellResult(
        contestant=cell.contestant,
        label=cell.label,
        ranks=cell.ranks,
        seed=cell.seed,
        trial=cell.trial,
        learning_rate_factor=cell.learning_rate_factor,
        job=plain_settings(cell.job),
        code=around.origin.code,
        dataset=launch.facts_of(around.loaders),
        versions=launch.versions() | {"MPI": mpi_description()},
        machine=launch.machine_of(comm, around.threads),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        seconds=trained.elapsed,
        threads=around.threads,
        packed=around.packed,
        samples=_samples(trained),
        steps=max(share(comm, max(trainer.optimizer.steps for trainer in trainers))),
        members=trained.mesh.members,
        parameters=len(evaluator.network.parameters),
        bytes_sent=sent,
        fusion=tested.fusion,
        validation_accuracy=tested.accuracy,
        seconds_to_target=_seconds_to(around.target, trained.state.history),
        staleness=staleness_of(trained),
        ended=list(evaluator.ended.values()),
        excluded={str(m): why for m, why in evaluator.test.excluded.items()},
    )


def _refuse_lost(trained: Session) -> None:
    """Refuse a cell in which ranks died: its members would not be those of the contestant."""
    if lost := [why for why in trained.ended().values() if why.startswith(LOST)]:
        raise EnsyncError(
            f"the cell {trained.directory} has lost {plural(len(lost), 'member')} ({lost[0]})",
            "all ranks of a study",
            f"{WHOLE} trains it to its end",
        )


def _samples(trained: Session) -> int:
    """Return the samples that all networks of a cell have trained on. Collective."""
    job, done, counted = trained.job, 0, 0
    *before, last = trained.context.strategy.phases(trained.comm.size)
    if before and trained.phase == last:
        done = before[0].last_epoch
        plan = EpochPlan(job, len(trained.loaders.train))
        counted += samples_of(plan, range(done)) if trained.comm.rank == 0 else 0
    for member, trainer in trained.trainers.items():
        if trained.mesh.owns(member):
            counted += samples_of(trainer.plan, range(done, trainer.position.epoch))
            counted += trainer.position.samples
    return int(sum_counts(trained.comm, np.array([counted]))[0])


def samples_of(plan: EpochPlan, epochs: range) -> int:
    """Return the samples of some epochs of one network."""
    return sum(min(plan.end(epoch) * plan.batch(epoch), plan.rows) for epoch in epochs)


def _seconds_to(target: float | None, history: Sequence[Record]) -> float | None:
    """Return the seconds after which the fused validation accuracy was first at the target, None
    where it never was.
    """
    reached = [
        record["elapsed"]
        for record in history
        if target is not None and (record.get("fused_validation_accuracy") or 0) >= target
    ]
    return min(reached, default=None)


def _write(directory: Path, outputs: Outputs | None, result: CellResult) -> None:
    """Write what a cell came to, the mark that it is done last."""
    lock.confirm(directory)
    if outputs is not None:
        write_outputs(directory / OUTPUTS, outputs)
    write_atomically(directory / RESULT, [to_json(result).encode()])
