"""The end of a run: train what is left, test, show and write the result. Collective."""

import datetime
from dataclasses import replace
from pathlib import Path

import numpy as np

from ensync.core.activity import Doing, doing
from ensync.core.errors import EnsyncError
from ensync.core.fusion import FUSIONS
from ensync.kernels.threads import thread_limit
from ensync.mpi.allreduce import sum_counts
from ensync.mpi.world import mpi_description, on_root
from ensync.report.console import Console
from ensync.report.exits import exit_lines
from ensync.report.results import Refused, RunResult, to_json
from ensync.report.text import by_value, size
from ensync.runs import lifecycle, results, session
from ensync.runs.ensemble_evaluator import EnsembleEvaluator
from ensync.runs.launch import machine_of, versions
from ensync.runs.speeds import last_shares
from ensync.runs.staleness import staleness_of
from ensync.storage.atomic import write_atomically
from ensync.storage.lock import confirm
from ensync.training.position import ends_of


def complete(run: session.Session) -> None:
    """Train a session to its end, test it, show and write its result, without the ranks that die
    meanwhile where that is possible; give back what it holds, unless a dead rank would have to.
    """
    ranks = run.comm.size
    try:
        trained = lifecycle.train(run)
        lifecycle.retry(trained, lambda: _finish(trained))
    except Exception as error:
        run.context.callbacks.stop(error)
        raise
    if trained.comm.size == ranks:
        lifecycle.close(trained)
        trained.context.loaders.close()


def _finish(run: session.Session) -> None:
    """Test a trained session, show and write its result."""
    console = run.console
    evaluator = results.evaluator_of_session(run)
    for line in evaluator.left_out:
        console.warn(line)
    method = run.context.strategy.fusion_method
    result = _made_here(run, results.result_of(evaluator, [method], run.elapsed))
    console.lines(["", f"training ended: {ends_of(evaluator.ended)}"])
    if result is not None and result.bytes_sent:
        console.line(f"sent in sums: {size(result.bytes_sent)} by all ranks")
    if result is not None and result.staleness:
        behind = by_value(result.staleness)
        console.line(f"gradients by the steps that their network was behind: {behind}")
    for note in sorted({note for t in run.trainers.values() for note in t.reducer.notes}):
        console.line(note)
    with doing(Doing.WRITING):
        on_root(run.comm, lambda: write_json(run.directory / "result.json", result))
    show_scores(console, evaluator, result)
    run.context.callbacks.end(run.comm, result)
    console.files(
        {
            "result": run.directory / "result.json",
            "history": run.directory / "history.jsonl",
            "checkpoints": run.directory / "checkpoints",
        }
    )
    if not evaluator.test.present:
        why = next(iter(evaluator.test.excluded.values()))
        again = (
            f"train on from the last good state with {run.remedy}"
            if run.failed
            else "lower optimizer.learning_rate"
        )
        raise EnsyncError(
            f"training gave no usable network ({why})",
            "finite losses",
            f"{again}, or look at the data's normalization",
        )


def _made_here(run: session.Session, result: RunResult | None) -> RunResult | None:
    """Return a result with when, where and by what it was made. Collective."""
    machine, staleness = machine_of(run.comm, thread_limit()), staleness_of(run)
    sent = int(sum_counts(run.comm, np.array([run.sent]))[0])
    if result is None:
        return None
    made = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    made_by = versions() | {"MPI": mpi_description()}
    profile = run.context.profiler.found if run.context.profiler else None
    result = replace(result, created=made, versions=made_by, machine=machine, profile=profile)
    result = replace(result, staleness=staleness)
    if run.job.communication.by_speed:
        result = replace(result, shares=last_shares(run.state.history, run.mesh.members))
    return result if run.state.elapsed else replace(result, bytes_sent=sent)


def show_scores(console: Console, evaluator: EnsembleEvaluator, result: RunResult | None) -> None:
    """Show the test figures of a run on rank 0, which has the result."""
    if result is None:
        return
    members = [a for a in result.members if a is not None]
    if len(result.members) > 1 and members:
        console.line()
        console.line(
            f"members alone: test accuracy {100 * np.mean(members):.2f} % on average, "
            f"{100 * min(members):.2f} to {100 * max(members):.2f} %"
        )
    if alone := [a for a in result.members_without_views if a is not None]:
        views = result.job["evaluation"]["augmentation"]
        console.line()
        console.line(
            f"tested with evaluation.augmentation = '{views}'; without it: test accuracy "
            f"{100 * np.mean(alone):.2f} %" + " of a member on average" * (len(alone) > 1)
        )
    if result.exits:
        console.lines(["", *exit_lines(result.exits)])
    for method, figures in result.test.items():
        name = (
            f"{FUSIONS[method].label} of {len(members)} members"
            if len(result.members) > 1
            else "one network"
        )
        if isinstance(figures, Refused):
            console.warn(f"{FUSIONS[method].label}: {figures.refused}")
        else:
            console.test(
                name,
                np.array(figures.confusion),
                evaluator.loaders.identity.class_names,
                figures.loss,
                figures.top_k,
            )


def write_json(path: Path, result: RunResult | None) -> None:
    """Write a result, unless another process has taken the run's directory over."""
    confirm(path.parent)
    write_atomically(path, [to_json(result).encode()])
