"""What `ensync scale` measures and predicts on ranks: bytes beside those that training counts, and
the whole verb on a small job.
"""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from runs.helpers import COMM, begin, common_digits, job_maker

from ensync.core.config.job import dump_job
from ensync.core.scaling.links import Link, Network
from ensync.core.scaling.noise import parts_of
from ensync.core.scaling.passing import Sizes
from ensync.core.scaling.prediction import Calibration, Contestant, Model
from ensync.core.scaling.steps import StepTimes
from ensync.core.scaling.wires import NodeSum, Wires
from ensync.mpi.allreduce import sum_counts
from ensync.mpi.wire import passed
from ensync.nn.step_metrics import LOSS_SUM
from ensync.runs import lifecycle
from ensync.runs.scale import outcome, overlap, verb
from ensync.runs.scale.checking import read_prediction
from ensync.runs.scale.compression import with_compression
from ensync.runs.scale.noise import NoiseReducer, measure_noise
from ensync.runs.scale.steps import MANY, build, rows_to_time, steps_in
from ensync.training.reducers import Part
from ensync.training.runners import MiniBatchRunner

pytestmark = [pytest.mark.mpi, pytest.mark.usefixtures("one_thread")]
ROWS = 407  # of the digits: 293 for training, 6 batches of 50
WISH = 16  # bytes by which ranks between meetings hear of each other
NORMALIZED = [
    {"kind": "dense", "units": 6},
    {"kind": "batch_normalization", "activation": "relu", "momentum": 0.8},
    {"kind": "dense"},
]
JOBS = {
    "synchronous": {},
    "normalised over ranks": {"network": {"layers": NORMALIZED}},
    "normalised by rank": {"network": {"layers": NORMALIZED, "batch_norm": "local"}},
    "meetings": {  # whose checkpoints would sum the slots of other optimisers
        "communication": {"every": 3},
        "network": {"layers": NORMALIZED},
        "optimizer": {"name": "sgd"},
    },
    "gossip": {"communication": {"partners": "ring"}, "optimizer": {"name": "sgd"}},
    **{
        name: {"communication": {"compression": name, "compression_start": 0.0}}
        for name in ("bf16", "topk", "powersgd")
    },
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return common_digits(tmp_path_factory, ROWS)


@pytest.fixture
def make_job(dataset, tmp_path):
    return job_maker(dataset, tmp_path, training={"epochs": 2, "batch": 50})


@pytest.mark.parametrize("name", JOBS)
def test_bytes_are_those_that_training_counts(make_job, name):
    """But for the wishes of replicas, of which there is one sum a step at most, and the mean of
    those that gossip at the end of each epoch.
    """
    job = make_job(**JOBS[name])
    session = begin(COMM, job)
    bench = build(job, session.loaders)
    lifecycle.train(session)
    counted = int(sum_counts(COMM, np.array([session.sent]))[0])
    contestant = next(
        each
        for each in reversed(outcome.contestants(job.communication)[:-1])
        if each.every == job.communication.every
    )
    calibration = with_compression(COMM, calibrated(bench.sizes), bench, job)
    predicted = 2 * Model(calibration).predict(contestant, COMM.size).bytes
    wishes = COMM.size * WISH * 2 * 6 * job.communication.is_local
    if name == "gossip":
        predicted += 2 * COMM.size * passed(bench.sizes.gradient, COMM.size)
    rounded = predicted * 1e-3 if job.communication.compresses else 0  # blocks are not equal
    assert predicted - rounded <= counted <= predicted + rounded + wishes
    assert (predicted > 0) == (COMM.size > 1)


def calibrated(sizes):
    """A calibration of these sizes with made-up times."""
    network = Network(Link(1.0, 1.0), "MPICH")
    return Calibration(
        sizes=sizes,
        threads=1,
        ranks_on_node=COMM.size,
        cores_of_node=COMM.size,
        steps=(StepTimes(1, 50, 1, 1.0, (1.0,)),),
        freely=1.0,
        update=0.1,
        loop=0.0,
        meeting=0.1,
        wires=Wires(NodeSum(2, 1.0, 1.0), network, network),
    )


def test_what_sums_hide_is_measured_where_ranks_have_nodes_of_their_own(make_job, monkeypatch):
    """Which those of the tests have not: nothing is measured; taken for such, they are."""
    job = make_job(communication={"overlap": True}, network={"hidden": [9], "batch_norm": "local"})
    session = begin(COMM, job)
    bench = build(job, session.loaders)
    calibration = replace(calibrated(bench.sizes), ranks_on_node=1)
    assert overlap.with_overlap(COMM, calibration, bench, job) is calibration
    monkeypatch.setattr(overlap, "is_overlapped", lambda *given: COMM.size > 1)
    found = overlap.with_overlap(COMM, calibration, bench, job)
    assert (found.overlap is not None) == (COMM.size > 1)
    if found.overlap is not None:
        assert 0.25 <= found.overlap.longer <= 4.0 and 0.0 <= found.overlap.share <= 1.0
        assert COMM.bcast(found.overlap) == found.overlap
    bench.step(10)  # the network has memory of its own again


def test_timed_steps_leave_the_network_as_it_is(make_job):
    job = make_job(optimizer={"name": "adam", "weight_decay": 0.1})
    session = begin(COMM, job)
    bench = build(job, session.loaders)
    before = bench.network.parameters.copy()
    bench.step(50)
    bench.step(7)
    assert before.any() and np.array_equal(bench.network.parameters, before)
    assert bench.sizes.rows == 293 and bench.sizes.batch == 50


def test_rows_and_steps_that_are_timed():

    sizes = Sizes(
        **dict(rows=1000, batch=256, slice=512, itemsize=4),
        **dict(parameters=1, statistics=0, exact=4, slots=0),
    )
    found = rows_to_time(sizes, [2**k for k in range(11)], launched=3)
    assert len(found) == 6 and {1, 86, 256, 512} <= set(found) and found == sorted(found)
    assert rows_to_time(sizes, [1], launched=1) == [256, 512]
    assert rows_to_time(replace(sizes, batch=600), [1], launched=1) == [600]
    assert steps_in(10.0, 1.0) == 10 and steps_in(0.1, 1.0) == 5
    assert steps_in(100.0, 0.1) == MANY and steps_in(100.0, 1e-9) == 500


@pytest.mark.parametrize("batch", [48, 50])
def test_norms_are_those_of_each_part_by_itself(make_job, batch):
    """On any number of ranks: of 8 or 10 parts of a batch, one after the other on one rank."""
    job = make_job(training={"batch": batch, "precision": "float64"}, network={"hidden": [5]})
    session = begin(COMM, job)
    bench = build(job, session.loaders)
    parts = parts_of(batch, 512, COMM.size)
    assert parts == {48: 8, 50: 10}[batch]
    reducer = NoiseReducer(bench.network, COMM, parts, batch)
    rows = np.arange(batch)
    replica = bench.runner.replica
    compute = partial(MiniBatchRunner(replica)._compute, rows, 0)
    metrics = reducer.reduce(compute, lambda: 0)
    mean, found = bench.network.gradient.copy(), []
    for part in range(parts):
        compute(bench.network, Part(parts, part, alone=True))
        found.append(bench.network.gradient.copy())
    compute(bench.network, Part(1, 0))
    np.testing.assert_allclose(mean, bench.network.gradient, rtol=1e-9, atol=1e-12)
    assert metrics.loss_sum == pytest.approx(float(bench.network.metrics[LOSS_SUM]))
    ((of_parts, of_whole),) = reducer.norms
    assert of_parts == pytest.approx(np.mean([g @ g for g in found]))
    assert of_whole == pytest.approx(mean @ mean)


def test_a_short_training_gives_a_noise_scale(make_job):
    """The same on any number of ranks, to rounding; the last batch of an epoch, of 35 rows, is left
    out. Without a whole batch nothing is known.
    """
    job = make_job(training={"batch": 43, "precision": "float64", "epochs": 4})
    session = begin(COMM, job)
    bench = build(job, session.loaders)
    found = measure_noise(COMM, bench, session.loaders, 20, 60.0)
    assert (found.steps, found.parts, found.rows) == (10, 43, 1)
    assert 0 <= found.low < found.scale
    again = measure_noise(COMM, bench, session.loaders, 20, 60.0)
    assert again.scale == pytest.approx(found.scale, rel=1e-6)
    assert COMM.bcast(found.scale) == pytest.approx(found.scale)
    nothing = measure_noise(COMM, bench, session.loaders, 0, 60.0)
    assert not nothing.is_known and nothing.steps == 0


def test_the_verb_writes_what_it_predicts(make_job, capfd):
    """A link is given, since all ranks of the tests share a node."""
    job = make_job(network={"hidden": [6]})
    path = Path(job.output.directory).with_suffix(".toml")
    if COMM.rank == 0:
        path.write_text(dump_job(job))
    COMM.Barrier()
    options = verb.ScaleOptions(
        ranks=(1, COMM.size, 64), latency=0.01, bandwidth=1e9, seconds=0.1, noise_steps=4
    )
    verb.scale(COMM, str(path), options)
    COMM.Barrier()
    found = read_prediction(Path(job.output.directory))
    assert {row.ranks for row in found.rows} == {1, COMM.size, 64}
    assert found.calibration.wires.between.link.latency == 0.01
    assert (found.calibration.wires.node is None) == (COMM.size == 1)
    model = Model(found.calibration)
    for row in found.rows:
        every = float("inf") if row.every is None else row.every
        again = model.predict(Contestant(row.strategy, every), row.ranks)
        assert again.step == pytest.approx(row.step_seconds)
        assert sum(getattr(row.parts, name) for name in row.parts.__slots__) == pytest.approx(
            row.step_seconds
        )
    out = capfd.readouterr().out
    assert ("seconds of an epoch" in out and "latency" in out) == (COMM.rank == 0)
    if COMM.rank == 0:
        lines = Path(job.output.directory, "scale.csv").read_text().splitlines()
        assert len(lines) == 1 + len(found.rows)
        assert json.loads(Path(job.output.directory, "scale.json").read_text())["version"] == 1
