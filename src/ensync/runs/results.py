"""The test result of a run, from the ranks that trained it or from its checkpoint: the members'
scores, fused.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ensync.core.config.job import Job, plain_settings
from ensync.core.errors import EnsyncError
from ensync.core.fusion import FUSIONS, OF_ONE
from ensync.mpi.world import Comm, on_root, share
from ensync.nn.network import Network
from ensync.report.results import FusionFigures, RunResult
from ensync.runs.data import SplitLoaders
from ensync.runs.ensemble_evaluator import (
    NOT_SELECTED,
    EnsembleEvaluator,
    Member,
    gather_evaluator,
)
from ensync.runs.exits import exit_figures
from ensync.runs.identity import Identity
from ensync.runs.networks import build_network
from ensync.runs.scores import SplitScores
from ensync.runs.session import Session
from ensync.runs.state import Loaded
from ensync.training.callbacks import TESTED, first_kept
from ensync.training.position import UNUSABLE, Position


class Prediction(NamedTuple):
    """On rank 0 the fused votes float64 (images, classes), and a line for each member left out."""

    votes: np.ndarray | None
    left_out: list[str]


def evaluator_of_session(session: Session) -> EnsembleEvaluator:
    """Return the evaluator of a trained session; each member is evaluated on the ranks that trained
    it. Collective.
    """

    return gather_evaluator(
        session.comm,
        session.job,
        session.loaders,
        session.ended(),
        _members_of(session),
        session.failed,
    )


def _members_of(session: Session) -> Iterator[Member]:
    """Yield this rank's members as they are tested, each until the next one. Collective over the
    ranks of each.
    """
    mesh, group = session.mesh, session.mesh.data
    for member, trainer in session.trainers.items():
        with trainer.using(TESTED) as network:
            whole = trainer.reducer.whole(
                {"parameters": network.parameters, "statistics": network.statistics}
            )
            vectors = None
            if mesh.owns(member):
                vectors = whole["parameters"].copy(), whole["statistics"].copy()
            counts = mesh.coordinates["model"] == 0
            yield Member(member, network, group.size, group.rank, vectors, counts)


def fused_on_validation(session: Session) -> float | None:
    """Return the validation accuracy of the members fused as the job says, as they are now, on
    every rank; None where they cannot be fused or there are no validation images. Collective.
    """
    images = session.loaders.validation
    deterministic, members = session.job.training.deterministic, session.mesh.members
    scores = SplitScores(images, members, session.loaders.identity.classes, deterministic)
    vectors = []
    for each in _members_of(session):
        scores.evaluate(each.member, each.network, each.size, each.rank, each.counts)
        if each.vectors:
            vectors.append((each.member, *each.vectors))
    scores.reduce(session.comm, session.failed)
    spare = build_network(session.job, session.loaders.identity, session.comm.size)
    evaluator = EnsembleEvaluator(
        session.comm, session.job, session.loaders, scores, scores, vectors, spare, session.ended()
    )
    found = evaluator.fuse(session.context.strategy.fusion_method if members > 1 else OF_ONE)
    accuracy = found.accuracy if isinstance(found, FusionFigures) else None
    return share(session.comm, accuracy)[0]


def evaluator_of_files(
    comm: Comm, loaded: Loaded, job: Job, loaders: SplitLoaders, only: Sequence[int] | None = None
) -> EnsembleEvaluator:
    """Return the evaluator of a checkpoint; each member is evaluated on all ranks of `comm`,
    whatever trained it. Collective.
    """
    state = loaded.state
    ended = {
        m: Position(p["epoch"], finished=p["finished"]).ended(job.training, p["updates"])
        for m, p in enumerate(loaded.attributes["positions"])
    }
    failed = {m: why for m, why in ended.items() if why.startswith(UNUSABLE)}
    if only is not None:
        failed |= {m: NOT_SELECTED for m in range(state.members) if m not in only}

    def members() -> Iterable[Member]:
        network = build_network(job, loaders.identity, comm.size)
        for member in range(state.members):
            fill_network(network, loaded, loaded.member(comm, member), loaders.identity)
            vectors = None
            if comm.rank == 0:
                vectors = network.parameters.copy(), network.statistics.copy()
            yield Member(member, network, comm.size, comm.rank, vectors)

    evaluator = gather_evaluator(comm, job, loaders, ended, members(), failed)
    if not len(loaders.validation) and loaders.identity.sizes["validation"]:
        evaluator.saved_validation = loaded.validated(comm), loaders.identity.sizes["validation"]
    return evaluator


def fill_network(
    network: Network, loaded: Loaded, found: dict[str, np.ndarray], identity: Identity
) -> None:
    """Give a like-built network the vectors that a member is tested with; EnsyncError when they do
    not fit.
    """
    chosen = first_kept(found)
    for name, target in (("parameters", network.parameters), ("statistics", network.statistics)):
        values = chosen.get(name)
        if values is None or values.shape != target.shape:
            shape = "none" if values is None else values.shape
            raise EnsyncError(
                f"{loaded.path} has {name} {shape}",
                f"{target.shape}, as its job describes the network for {identity}",
                "use the checkpoint with its own job",
            )
        target[:] = values


def result_of(
    evaluator: EnsembleEvaluator, methods: Sequence[str], seconds: float
) -> RunResult | None:
    """Return on rank 0 the result of a run whose training took so many seconds, by these fusions;
    None elsewhere. Collective.
    """
    fused = {method: evaluator.fuse(method) for method in methods}
    if evaluator.comm.rank:
        return None
    return RunResult(
        job=plain_settings(evaluator.job),
        seconds=seconds,
        test={method: figures for method, figures in fused.items() if figures is not None},
        members=evaluator.member_accuracies,
        members_without_views=evaluator.accuracies_alone,
        exits=exit_figures(evaluator.network, evaluator.exits),
        excluded={str(m): why for m, why in evaluator.test.excluded.items()},
        validation_accuracy=evaluator.validation_accuracies,
        ended=list(evaluator.ended.values()),
        dataset=evaluator.loaders.tested_on(),
    )


def predict(
    comm: Comm,
    loaded: Loaded,
    job: Job,
    loaders: SplitLoaders,
    method: str,
    only: Sequence[int] | None = None,
) -> Prediction:
    """Return what the members `only` or all answer to the test images of `loaders`. Collective."""
    evaluator = evaluator_of_files(comm, loaded, job, loaders, only)
    check_possible(evaluator, method)
    return Prediction(evaluator.votes(FUSIONS[method]).values, evaluator.left_out)


def check_possible(evaluator: EnsembleEvaluator, method: str) -> None:
    """Raise EnsyncError unless the members can be fused by `method`. Collective."""
    if why := evaluator.refusal(FUSIONS[method]):
        on_root(evaluator.comm, lambda: _refuse(method, why))


def _refuse(method: str, why: str) -> None:
    raise EnsyncError(
        f"fusion {method} is not possible ({why})",
        "members that can be fused",
        "choose another --method",
    )
