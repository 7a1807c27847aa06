"""One job, both strategies and the one-rank baseline, on the same data and seeds at equal
epochs.
"""

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ensync.core.config.job import Job, plain_settings
from ensync.core.config.parallel import Parallel
from ensync.core.errors import EnsyncError
from ensync.core.fusion import FUSIONS, OF_ONE
from ensync.core.signals import StopRequest
from ensync.mpi.allreduce import sum_counts
from ensync.mpi.world import Comm, alone, mpi_description, patient_barrier, share
from ensync.report.console import Console
from ensync.report.results import (
    Comparison,
    ComparisonRow,
    Contestant,
    DatasetFacts,
    FusionFigures,
    Pair,
    Record,
    Refused,
    with_speedup,
)
from ensync.runs import launch, lifecycle, results
from ensync.runs.ensemble_evaluator import EnsembleEvaluator
from ensync.runs.header import show_place, show_run
from ensync.runs.hearing import hearing_each_other
from ensync.runs.planned import PlannedRun, Study, check_memory
from ensync.runs.session import Session
from ensync.runs.stopped import Stopped
from ensync.training.position import ends_of

MEASURED = [
    "Seconds count training steps and the validation after each epoch; compiling kernels, "
    "loading the dataset, writing checkpoints and the test are left out.",
    "Sent counts the bytes that all ranks pass to others: of the gradients of every step, and of "
    "the members' votes or parameters.",
    "All rows have the same data, seeds, epochs and threads per rank; the test images play no "
    "part in training or in the choice of weights.",
]
CONTINUED = "continued: seconds are of several starts, the bytes sent by earlier ones unknown"


@dataclass(frozen=True)
class Outcome:
    """What a contestant left on rank 0: a row for each fusion (one where it is one network), and
    by the name of the row the test labels predicted int64 `(images,)` and the confusion counts.
    """

    contestant: Contestant
    rows: list[ComparisonRow]
    history: Sequence[Record]
    predictions: dict[str, np.ndarray]
    confusions: dict[str, list[list[int]]]
    accuracy_by_members: dict[str, list[float | None]]


def contestants(job: Job, ranks: int) -> dict[Contestant, Job]:
    """Return the jobs of a comparison on so many ranks, each with its strategy and a directory of
    its own below the job's. On one rank there is no synchronous training besides.
    """
    found = [each for each in Contestant if ranks > 1 or each is not Contestant.SYNCHRONOUS]
    return {each: _job_of(each, job) for each in found}


def _job_of(contestant: Contestant, job: Job) -> Job:
    strategy = "ensemble" if contestant is Contestant.ENSEMBLE else "synchronous"
    directory = str(Path(job.output.directory) / contestant.replace(" ", "_"))
    parallel = Parallel() if contestant is Contestant.ONE_RANK else job.parallel
    return job.model_copy(
        update={
            "training": job.training.model_copy(update={"strategy": strategy}),
            "parallel": parallel,
            "output": job.output.model_copy(update={"directory": directory}),
        }
    )


def page_files(directory: Path) -> list[Path]:
    """Return the files that a comparison writes into a directory, beside the runs of its
    contestants.
    """
    return [directory / f"comparison.{kind}" for kind in ("json", "csv", "html")]


def compare(
    comm: Comm, job: Job, console: Console, stop_request: StopRequest, resume: bool = False
) -> Comparison | None:
    """Train the job on one rank, synchronously and as an ensemble; return the comparison on rank
    0. Collective.

    resume: contestants that were started before are continued, and those that are finished only
    tested.
    """
    console.line("preparing: dataset, kernels of both strategies")
    study = Study(comm, console, stop_request, resume)
    runs = {
        who: PlannedRun(each, alone() if who is Contestant.ONE_RANK else comm)
        for who, each in contestants(job, comm.size).items()
    }
    check_memory(comm, list(runs.values()))
    whole = PlannedRun(job, comm)
    place = whole.prepare(comm, lambda: whole.open(comm))
    _check_test(place)
    show_place(console, place)
    continued = {who for who, run in runs.items() if run.is_continued(study)}
    # before any of them is trained: all ranks hear of a disk that refuses
    for who, run in runs.items():
        if who not in continued:
            run.take_directory(comm, console, page_files(whole.directory))

    def train_and_test(who: Contestant) -> Outcome | None:
        size = runs[who].ranks.size
        console.line()
        console.line(f"{who}: {size} rank{'s' * (size > 1)}", "bold")
        session = runs[who].begin(study, place.loaders, who in continued)
        show_run(console, place, session)
        return _outcome(who, session, who in continued)

    with hearing_each_other(comm, stop_request):
        outcomes = [_in_turn(comm, who, train_and_test, stop_request) for who in runs]
    labels = place.loaders.test.labels
    machine = launch.machine_of(comm, place.threads)
    place.loaders.close()
    if comm.rank:
        return None
    found = _comparison(place, job, [each for each in outcomes if each is not None], labels)
    return replace(found, machine=machine)


def _in_turn(
    comm: Comm,
    contestant: Contestant,
    work: Callable[[Contestant], Outcome | None],
    stop_request: StopRequest,
) -> Outcome | None:
    """Return work(contestant) on the ranks that train it, None on the others, which wait for them.
    Collective; a stop is raised on all ranks.
    """
    stopped = outcome = None
    if contestant is not Contestant.ONE_RANK or comm.rank == 0:
        try:
            outcome = work(contestant)
        except Stopped as stop:
            stopped = stop.of_part(
                f"the part '{contestant}' of the comparison", "`ensync compare --resume`"
            )
    patient_barrier(comm, meanwhile=stop_request)
    if heard := [stop for stop in share(comm, stopped) if stop is not None]:
        raise heard[0]
    return outcome


def _check_test(place: launch.Prepared) -> None:
    if not len(place.loaders.test):
        raise EnsyncError(
            f"a comparison on {place.loaders.dataset.path}, which has no test images",
            "a test split to compare by",
            "prepare the dataset with a test split (`ensync data prepare --help`), or `ensync "
            "train` each strategy and look at the validation accuracy",
        )


def _outcome(contestant: Contestant, session: Session, resumed: bool) -> Outcome | None:
    """Train a contestant to its end and test it, as an ensemble by every fusion; return on rank 0
    what it reached. Collective over its ranks.
    """
    trained = lifecycle.train(session)
    sent = bytes_sent(trained)
    common = _common_row(contestant, trained, None if resumed else sent)
    evaluator = results.evaluator_of_session(trained)
    trained.console.line(f"training ended: {ends_of(evaluator.ended)}")
    ensemble = contestant is Contestant.ENSEMBLE
    fused = {method: evaluator.fuse(method) for method in (FUSIONS if ensemble else [OF_ONE])}
    growth = _by_members(evaluator) if ensemble else {}
    lifecycle.close(trained)
    rows = {
        method: _row(replace(common, ended=list(evaluator.ended.values())), evaluator, method, each)
        for method, each in fused.items()
        if each is not None
    }
    if not rows:  # on the other ranks
        return None
    return Outcome(
        contestant,
        list(rows.values()),
        trained.state.history,
        {rows[method].name: labels for method, labels in evaluator.predictions.items()},
        {
            rows[method].name: each.confusion
            for method, each in fused.items()
            if isinstance(each, FusionFigures)
        },
        growth,
    )


def _common_row(contestant: Contestant, trained: Session, sent: int | None) -> ComparisonRow:
    """Return what all rows of a contestant share; sent: None where an earlier start sent more."""
    return ComparisonRow(
        name=contestant.value,
        strategy=trained.job.training.strategy,
        ranks=trained.comm.size,
        members=trained.mesh.members,
        seconds=trained.elapsed,
        bytes_sent=sent,
        note=CONTINUED if sent is None else "",
    )


def bytes_sent(trained: Session) -> int:
    """Return the bytes that all ranks passed to others in the training. Collective."""
    return int(sum_counts(trained.comm, np.array([trained.sent]))[0])


def _row(
    common: ComparisonRow,
    evaluator: EnsembleEvaluator,
    method: str,
    figures: FusionFigures | Refused,
) -> ComparisonRow:
    """Return the row of a fusion from what all rows of its contestant share."""
    if common.contestant is Contestant.ENSEMBLE:
        sent = None
        if common.bytes_sent is not None:
            sent = common.bytes_sent + evaluator.sent.get(method, 0)
        common = replace(
            common,
            name=f"{common.name}: {FUSIONS[method].label}",
            fusion=method,
            bytes_sent=sent,
        )
    if isinstance(figures, Refused):
        return replace(common, note="; ".join(filter(None, [figures.refused, common.note])))
    left_out = evaluator.left_out
    return replace(
        common,
        test_accuracy=figures.accuracy,
        test_loss=figures.loss,
        macro_f1=figures.macro_f1,
        weighted_f1=figures.weighted_f1,
        top_k=figures.top_k,
        note="; ".join(filter(None, [*left_out, common.note])),
    )


def _by_members(evaluator: EnsembleEvaluator) -> dict[str, list[float | None]]:
    """Return the test accuracy of the first 1, 2, ... members fused, for each fusion in which all
    weigh alike; on rank 0. Collective.
    """
    growth: dict[str, list[float | None]] = {}
    if not evaluator.test.present:
        return growth
    counts = [m + 1 for m in evaluator.test.present]
    for method in (name for name, fusion in FUSIONS.items() if fusion.weighs_alike):
        found = [evaluator.fuse(method, upto) for upto in counts]
        growth[method] = [f.accuracy for f in found if isinstance(f, FusionFigures)]
    return growth


def _comparison(
    place: launch.Prepared, job: Job, outcomes: Sequence[Outcome], labels: np.ndarray
) -> Comparison:
    """Return the comparison of what the contestants reached, but for the machine."""
    dataset = place.loaders.dataset
    rows = [row for outcome in outcomes for row in outcome.rows]
    return Comparison(
        job=plain_settings(job),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        versions=launch.versions() | {"MPI": mpi_description()},
        dataset=DatasetFacts(
            dataset.name,
            job.data.path,
            dict(dataset.sizes),
            list(dataset.shape),
            dataset.fingerprint,
        ),
        class_names=list(dataset.class_names),
        measured=MEASURED,
        rows=with_speedup(rows, rows[0]),
        histories={each.contestant.value: each.history for each in outcomes},
        confusions={k: v for each in outcomes for k, v in each.confusions.items()},
        accuracy_by_members={
            k: v for each in outcomes for k, v in each.accuracy_by_members.items()
        },
        paired=_pairs(
            {
                name: predicted == labels
                for each in outcomes
                for name, predicted in each.predictions.items()
            }
        ),
    )


def _pairs(right: dict[str, np.ndarray]) -> list[Pair]:
    """Return for any two rows how many images only one of them has right."""
    names = list(right)
    return [
        Pair((a, b), int((right[a] & ~right[b]).sum()), int((right[b] & ~right[a]).sum()))
        for i, a in enumerate(names)
        for b in names[i + 1 :]
    ]
