"""Runs of a network whose layers lie on several ranks, stage after stage, beside those on one rank:
trained, saved, resumed on other ranks, tested, stopped, and the bytes that they send.
"""

from pathlib import Path

import numpy as np
import pytest
from runs.helpers import (
    COMM,
    StopAt,
    assert_tested_alike,
    begin,
    common_digits,
    gathered,
    job_maker,
    resume,
    run,
)
from runs.test_mpi_split import assert_equal, compare

from ensync.core.errors import EnsyncError
from ensync.mpi.world import alone
from ensync.report.results import PipelineTime
from ensync.runs import results, state
from ensync.runs.header import _stages
from ensync.runs.planned import PlannedRun
from ensync.runs.stopped import Stopped

pytestmark = [
    pytest.mark.mpi(min_size=2),
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.timeout(300),
]
ROWS = 150  # of the digits: about 108 for training
LAYERS = [
    {"kind": "convolution", "filters": 6},
    {"kind": "batch_normalization", "activation": "relu", "momentum": 0.9},
    {"kind": "convolution", "filters": 8, "activation": "relu"},
    {"kind": "max_pooling"},
    {"kind": "dropout", "rate": 0.2},
    {"kind": "convolution", "filters": 8, "size": 1, "activation": "relu"},
    {"kind": "flatten"},
    {"kind": "dense", "units": 12, "activation": "relu"},
    {"kind": "dropout", "rate": 0.2},
    {"kind": "dense"},
]
PLAIN = {"network": {"layers": [LAYERS[0], *LAYERS[2:]]}}  # without batch normalisation
BATCH, PARTS = 24, 3
SLICED = {"parallel": {}, "training": {"slice": BATCH // PARTS}}  # on one rank
ONE = {"parallel": {}}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return common_digits(tmp_path_factory, ROWS)


@pytest.fixture
def make_job(dataset, tmp_path):
    make = job_maker(
        dataset,
        tmp_path,
        network={"layers": LAYERS},
        training={"precision": "float64", "epochs": 2, "batch": BATCH},
        optimizer={"name": "momentum", "learning_rate": 0.02},
    )

    def of(name="run", **sections):
        given = {"parallel": {"stages": COMM.size, "micro_batches": PARTS}} | sections
        return make(name, **given)

    return of


def merged(*tables):
    """Return the sections of all tables, later settings before earlier ones."""
    found = {}
    for table in tables:
        for section, values in table.items():
            found[section] = found.get(section, {}) | values
    return found


KEPT = {"training": {"best_weights": True, "weight_average": 0.9}, "lookahead": {"every_steps": 3}}


def test_stages_equal_one_rank_that_takes_slices(make_job):
    """Batch normalisation takes micro-batches as it takes slices; with all vectors that a trainer
    has, and the same figures of the test.
    """
    together = run(COMM, make_job("together", **KEPT))
    single = run(alone(), make_job(f"alone{COMM.rank}", **merged(KEPT, SLICED)))
    assert_equal(gathered(together), gathered(single))
    assert_tested_alike(together, single)
    if COMM.rank == 0:
        loaded = [r["validation_loss"] for r in together.state.history]
        assert loaded == pytest.approx([r["validation_loss"] for r in single.state.history])
    own = len(next(iter(together.trainers.values())).network.parameters)
    assert 0 < own < len(next(iter(single.trainers.values())).network.parameters)


@pytest.mark.parametrize("optimizer", ["momentum", "lamb"])
def test_stages_equal_one_rank_that_takes_whole_batches(make_job, optimizer):
    """Where no layer looks at several images; images are changed and mixed alike."""
    changes = {"augmentation": {"flip": True, "mixup": 0.4, "crop": 1}}
    sections = PLAIN | changes | {"optimizer": {"name": optimizer}}
    if optimizer == "lamb":
        sections["optimizer"] |= {"learning_rate": 0.01}
    together = run(COMM, make_job("together", **sections))
    single = run(alone(), make_job(f"alone{COMM.rank}", **sections | ONE))
    assert_equal(gathered(together), gathered(single))


def test_bytes_are_those_between_the_stages(make_job):
    """Of each image the values at each border, and their gradient; a test is not counted."""
    trained = run(COMM, make_job(**PLAIN, output={"profile": True}))
    (trainer,) = trained.trainers.values()
    parts = trainer.network.parts
    passed = sum(int(np.prod(parts.shapes[each.stop - 1])) for each in parts.stages[:-1])
    images = len(trained.loaders.train)
    assert COMM.allreduce(trained.sent) == 2 * images * 2 * 8 * passed
    lines = _stages(trainer)
    assert list(lines) == [*(f"stage {n}" for n in range(COMM.size)), "pipeline"]
    share = (COMM.size - 1) / (PARTS + COMM.size - 1)
    assert f"{PARTS} micro-batches a batch" in lines["pipeline"]
    assert f" {100 * share:.1f} % of a step" in lines["pipeline"]

    if COMM.rank == 0:
        profiler = trained.context.profiler
        timed = profiler.found.pipeline
        assert isinstance(timed, PipelineTime) and timed.bubble == pytest.approx(share)
        assert len(timed.waits) == COMM.size and all(0 < each < 1 for each in timed.waits)
        assert len(profiler.found.layers) == len(LAYERS) - 1
        assert '"wait for a stage"' in (trained.directory / "profile.json").read_text()


@pytest.mark.parametrize("parts", [(COMM.size, 1), (1, COMM.size)], ids=["apart", "together"])
def test_a_stopped_run_goes_on_on_other_ranks(make_job, parts):
    """A stage hears the signal alone; the run is resumed on one rank, and the other way round."""
    before, after = parts

    def of(name, stages):
        return make_job(name, **merged(PLAIN, {"parallel": {"stages": stages}}))

    whole, _ = gathered(run(alone(), of(f"whole{COMM.rank}", 1)))
    ranks, name = (COMM, "stopped") if before > 1 else (alone(), f"stopped{COMM.rank}")
    rank = COMM.size - 1 if before > 1 else COMM.rank
    with pytest.raises(Stopped):
        run(ranks, of(name, before), StopAt(3, rank=rank))
    COMM.Barrier()
    if after == 1 and COMM.rank:
        COMM.Barrier()
        return
    name = name if after == 1 else COMM.bcast(name)
    job, ranks = of(name, after), alone() if after == 1 else COMM
    loaded = state.load_newest(ranks, Path(job.output.directory))
    assert loaded.attributes["positions"][0]["step"] == 3
    compare(gathered(resume(ranks, loaded, job))[0], whole)
    if after == 1:
        COMM.Barrier()


def test_a_stage_that_is_not_finite_ends_all(make_job):
    """Parameters of the first stage that no loss has seen yet, and a loss that the last one has."""
    trained = begin(COMM, make_job(training={"epochs": 1}))
    (trainer,) = trained.trainers.values()
    trainer.train(1)
    if COMM.rank == 0:
        trainer.network.parameters[0] = np.nan
    trainer.check_parameters()
    assert "the parameters are not finite" in trainer.position.finished
    trainer.position.finished = ""
    trainer.train(1)
    assert "the loss is nan" in trainer.position.finished


def test_ranks_that_stages_do_not_divide_are_refused(make_job):
    stages = COMM.size + 1
    planned = PlannedRun(make_job(parallel={"stages": stages}), COMM)
    with pytest.raises(EnsyncError, match=f"parallel.stages = {stages} on {COMM.size} ranks"):
        planned.need()


@pytest.mark.mpi(min_size=4)
def test_replicas_of_two_stages_equal_one_rank(make_job):
    """Two replicas, whose batch normalisation is over the rows of both in each micro-batch."""
    parallel = {"stages": 2, "micro_batches": PARTS}
    together = run(COMM, make_job("together", parallel=parallel))
    single = run(alone(), make_job(f"alone{COMM.rank}", **SLICED))
    assert_equal(gathered(together), gathered(single))


def test_members_of_two_stages_equal_those_of_one_rank(make_job):
    """Three members on pairs of ranks, after a common start, fused by their weights."""
    if COMM.size % 2:
        pytest.skip("two ranks a network")
    sections = {
        "training": {"strategy": "ensemble", "epochs": 2},
        "ensemble": {"members": 3, "start": "synchronous"},
        "fusion": {"method": "weight_averaging"},
    }
    stages = {"parallel": {"stages": 2, "micro_batches": PARTS}}
    together = run(COMM, make_job("together", **merged(sections, stages)))
    single = run(alone(), make_job(f"alone{COMM.rank}", **merged(sections, SLICED)))
    assert_equal(gathered(together), gathered(single))
    ours, theirs = (
        results.evaluator_of_session(each).fuse("weight_averaging") for each in (together, single)
    )
    if COMM.rank == 0:
        assert ours.confusion == theirs.confusion


def test_micro_batches_without_a_sample_for_each_replica_are_refused(make_job):
    if COMM.size % 4:
        pytest.skip("two replicas of two stages")
    with pytest.raises(EnsyncError, match="parallel.micro_batches = 24 .* on 2 replicas"):
        begin(COMM, make_job(parallel={"stages": 2, "micro_batches": 24}))
