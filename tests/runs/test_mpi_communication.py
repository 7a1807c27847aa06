"""Every way of communicating beside everything that can happen to a run. A new one adds a row.

No number of ranks but one divides its batches, whose last has a single row; run it on 3 ranks, too.
What a killed process leaves behind is in tests/launched/test_cli_interruptions.py.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from runs.helpers import COMM, StopAt, begin, common_digits, gathered, job_maker, resume, run

from ensync.nn.step_metrics import LOSS_SUM
from ensync.runs import lifecycle, state
from ensync.runs.stopped import Stopped

pytestmark = [pytest.mark.mpi, pytest.mark.usefixtures("one_thread")]
ROWS = 407  # of the digits: 293 for training, in batches of 73
STEPS = 10  # two epochs of five
NORMALIZED = [
    {"kind": "dense", "units": 6},
    {"kind": "batch_normalization", "activation": "relu", "momentum": 0.8},
    {"kind": "dense"},
]


def normalized(**communication: Any) -> dict[str, Any]:
    """Return the sections of a job with such meetings, and batch normalisation."""
    return {"network": {"layers": NORMALIZED, "hidden": None}, "communication": communication}


def ensemble(**communication: Any) -> dict[str, Any]:
    """Return the sections of a job with two members, which groups of ranks train so."""
    return {
        "training": {"strategy": "ensemble", "best_weights": True},
        "ensemble": {"members": 2, "data": "full"},
        "communication": communication,
    }


STRATEGIES: dict[str, dict[str, Any]] = {
    "synchronous": {"network": {"hidden": [7], "dropout": 0.2}},
    "ensemble": ensemble(),
    "local SGD": {"communication": {"every": 4}},
    "post-local SGD": {"communication": {"every": 3, "start": 2}},
    "DiLoCo": {"communication": {"every": 4, "outer_learning_rate": 0.7, "outer_momentum": 0.9}},
    "never": normalized(every="never"),
    "averaged momentum": ensemble(every=4, average_optimizer=True),
    "bf16 words": normalized(compression="bf16"),
    "PowerSGD": {"communication": {"compression": "powersgd", "compression_start": 0.3}},
    "PowerSGD meetings": {"communication": {"every": 3, "compression": "powersgd"}},
    "overlapped sums": normalized(overlap=True, bucket_megabytes=5e-4),
    "QSR": {
        "communication": {"every": 2, "growth": 0.05},
        "schedule": {"name": "step", "step_epochs": 0.4, "factor": 0.5},
    },
    "SWAP": normalized(every="never", start_accuracy=0.05, estimate_statistics=True),
    "butterfly": normalized(partners="butterfly", estimate_statistics=True),
    "ring": {"communication": {"every": 2, "partners": "ring", "start": 1}},
    "server": normalized(server="seeded", max_staleness=2),
}
each = pytest.mark.parametrize("strategy", STRATEGIES)


class Whole(NamedTuple):
    """What a run that nothing happened to left: its vectors, and sums of its last epoch."""

    vectors: dict[str, np.ndarray]
    sums: list[tuple[float, int]]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return common_digits(tmp_path_factory, ROWS)


@pytest.fixture
def make_job(dataset, tmp_path, monkeypatch):
    """Return a function from a strategy, and settings of sections, to a job in which all ranks hear
    of a wish in the step after it.
    """
    monkeypatch.setattr("ensync.mpi.wishes.LONGEST", 1)
    make = job_maker(
        dataset,
        tmp_path,
        network={"hidden": []},
        training={"epochs": 2, "batch": 73},
        optimizer={"name": "momentum", "learning_rate": 0.05},
    )

    def of(strategy, name="run", **sections):
        merged = dict(STRATEGIES[strategy])
        for section, values in sections.items():
            merged[section] = merged.get(section, {}) | values
        return make(name, **merged)

    return of


WHOLE: dict[str, Whole] = {}


def left_by(session) -> Whole:
    vectors, positions = gathered(session)
    return Whole(vectors, [(p["loss_sum"], p["correct"]) for p in positions])


def whole(make_job, strategy) -> Whole:
    """Return what the run that nothing happens to leaves: it learned, and its replicas are equal at
    the end (runs.session).
    """
    if strategy not in WHOLE:
        trained = run(COMM, make_job(strategy, "whole"))
        losses = [
            [r["train_loss"] for r in trained.state.history if r["epoch"] == e] for e in (1, 2)
        ]
        assert 0 < max(losses[1]) < min(losses[0]), losses
        WHOLE[strategy] = left_by(trained)
    return WHOLE[strategy]


def assert_same(found: Whole, expected: Whole) -> None:
    assert set(found.vectors) == set(expected.vectors)
    for name, values in expected.vectors.items():
        assert np.array_equal(found.vectors[name], values), name
    assert found.sums == expected.sums


class Killed(BaseException):
    """The end of a process: nothing handles it."""


@each
def test_a_stop_signal_to_one_rank_stops_all_and_the_run_resumes_to_the_same_bits(
    make_job, strategy
):
    """Within the second epoch, with an exit code that asks to be started again."""
    job = make_job(strategy, "stopped")
    with pytest.raises(Stopped) as stopped:
        run(COMM, job, StopAt(6, rank=COMM.size - 1))
    assert COMM.allgather(stopped.value.exit_code) == COMM.size * [75]
    loaded = state.load_newest(COMM, Path(job.output.directory))
    assert any(position["step"] for position in loaded.attributes["positions"])
    assert_same(left_by(resume(COMM, loaded, job)), whole(make_job, strategy))


@each
def test_a_run_that_ends_anywhere_resumes_from_its_last_checkpoint_to_the_same_bits(
    make_job, strategy
):
    """Checkpoints of every second step leave what is trained as it is; those after an end are not
    there.
    """
    job = make_job(strategy, "killed", checkpoint={"every_steps": 2})
    trained = begin(COMM, job)
    for trainer in trained.trainers.values():
        end_after(trainer, 8)
    with pytest.raises(Killed):
        lifecycle.train(trained)
    loaded = state.load_newest(COMM, Path(job.output.directory))
    assert 0 < max(p["updates"] for p in loaded.attributes["positions"]) < STEPS
    assert_same(left_by(resume(COMM, loaded, job)), whole(make_job, strategy))


def end_after(trainer, steps):
    """Have the process end where a network has made so many steps."""

    def progress(trainer):
        if trainer.optimizer.steps == steps:
            raise Killed

    trainer.progress = progress


@each
def test_a_loss_that_is_not_finite_on_one_rank_ends_all(make_job, strategy):
    """With the same words on all ranks, of each network of which the rank has a part."""
    trained = begin(COMM, make_job(strategy))
    spoiled = COMM.size - 1
    for trainer in trained.trainers.values():
        spoil(trainer, 3, COMM.rank == spoiled)
    trained = lifecycle.train(trained)
    ended = trained.ended()
    assert COMM.allgather(ended) == COMM.size * [ended]
    members = COMM.bcast(sorted(trained.trainers), root=spoiled)
    assert members and all("diverged in epoch 1, step" in ended[m] for m in members)
    assert all("all 2 epochs" in why for m, why in ended.items() if m not in members)


def spoil(trainer, steps, here):
    """Have the loss of a network's part be not a number after so many steps."""
    reducer, reduce = trainer.reducer, trainer.reducer.reduce

    def spoiled(compute, stop_requested):
        def computed(network, part):
            rows = compute(network, part)
            if here and trainer.optimizer.steps == steps:
                network.metrics[LOSS_SUM] = np.nan
            return rows

        return reduce(computed, stop_requested)

    reducer.reduce = spoiled
