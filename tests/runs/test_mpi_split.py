"""Runs of a network that several ranks hold together, beside those on one rank: trained, saved,
resumed on other ranks, tested, fused, stopped, and the bytes that it sends.
"""

import json
import re
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

from ensync.core.config.job import load_job
from ensync.core.errors import EnsyncError
from ensync.core.fusion import OF_ONE
from ensync.mpi.wire import passed
from ensync.mpi.world import alone, on_root, split
from ensync.runs import results, state
from ensync.runs.planned import PlannedRun
from ensync.runs.stopped import Stopped
from ensync.storage.sources.source import Source
from ensync.storage.writing import write_dataset

pytestmark = [
    pytest.mark.mpi(min_size=2),
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.timeout(300),
]
ROOT = Path(__file__).parents[2]
ROWS = 150  # of the digits: about 108 for training
LAYERS = [
    {"kind": "convolution", "filters": 12},
    {"kind": "batch_normalization", "activation": "relu", "momentum": 0.9},
    {"kind": "convolution", "filters": 12, "groups": 12, "activation": "relu"},
    {"kind": "max_pooling"},
    {"kind": "dropout", "rate": 0.2},
    {"kind": "convolution", "filters": 12, "size": 1, "activation": "relu"},
    {"kind": "flatten"},
    {"kind": "dense", "units": 12, "activation": "relu"},
    {"kind": "dropout", "rate": 0.2},
    {"kind": "dense"},
]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return common_digits(tmp_path_factory, ROWS)


@pytest.fixture
def make_job(dataset, tmp_path):
    return job_maker(
        dataset,
        tmp_path,
        network={"layers": LAYERS},
        training={"precision": "float64", "epochs": 2, "batch": 25},
        optimizer={"name": "momentum", "learning_rate": 0.02},
        parallel={"model": COMM.size},
    )


def whole_of(model=1):
    """The settings of a run whose ranks hold whole networks, or so many a network."""
    return {"parallel": {"model": model}}


def compare(ours, theirs):
    """Compare all vectors of two runs by their names."""
    assert ours.keys() == theirs.keys()
    for name, values in ours.items():
        np.testing.assert_allclose(values, theirs[name], rtol=1e-10, atol=1e-10, err_msg=name)


def assert_equal(trained, single):
    """Compare all vectors of two runs, gathered, and where they stand."""
    compare(trained[0], single[0])
    for mine, other in zip(trained[1], single[1], strict=True):
        assert mine["loss_sum"] == pytest.approx(other["loss_sum"], rel=1e-10)
        assert (mine["epoch"], mine["correct"]) == (other["epoch"], other["correct"])


KEPT = {"training": {"best_weights": True, "weight_average": 0.9}, "lookahead": {"every_steps": 3}}


def test_ranks_with_parts_equal_one_rank(make_job):
    """With all vectors that a trainer has, and the same figures of the test."""
    together = run(COMM, make_job("together", **KEPT))
    single = run(alone(), make_job(f"alone{COMM.rank}", **KEPT, **whole_of()))
    assert_equal(gathered(together), gathered(single))
    assert_tested_alike(together, single)
    assert len(next(iter(together.trainers.values())).network.parameters) < 0.6 * len(
        next(iter(single.trainers.values())).network.parameters
    )


def test_ranks_with_all_convolutions_equal_one_rank(make_job):
    """Each for its rows, before dense layers of which it has a part."""
    split_dense = {"model": COMM.size, "convolutions": "data"}
    together = run(COMM, make_job("together", parallel=split_dense))
    single = run(alone(), make_job(f"alone{COMM.rank}", **whole_of()))
    assert_equal(gathered(together), gathered(single))


def test_bytes_are_those_of_the_layers(make_job):
    """Two layers gather 4 x 4 x 12 values, of which a rank has a part, and scatter their gradients;
    the last one sums 10. A test is not counted.
    """
    trained, n = run(COMM, make_job(output={"profile": True})), COMM.size
    images, batch = len(trained.loaders.train), 25
    batches = [min(batch, images - first) for first in range(0, images, batch)]
    moved = 2 * 2 * 8 * images * 4 * 4 * 12 * (n - 1) // n
    assert trained.sent == 2 * (moved + sum(passed(8 * 10 * rows, n) for rows in batches))
    if COMM.rank == 0:
        profile = json.loads((trained.directory / "profile.json").read_text())
        names = [event["name"] for event in profile["traceEvents"]]
        steps = sum(name.startswith("step ") for name in names)
        assert steps and names.count("values of other ranks") == 5 * steps


TOWERS = ROOT / "jobs/cifar10/alexnet_towers.toml"
SOME = 20  # images of noise, 32 x 32 x 3


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    """Return the path of a dataset of noise, the same on all ranks."""
    path = COMM.bcast(str(tmp_path_factory.mktemp("noise") / "noise.h5"))

    def write():
        draw = np.random.default_rng(0)
        images = {"train": draw.integers(0, 256, (SOME, 32, 32, 3), np.uint8)}
        labels = {"train": np.arange(SOME) % 10}
        names = [str(number) for number in range(10)]
        source = Source("noise", images, labels, names, "drawn", "none")
        write_dataset(path, source)

    on_root(COMM, write)
    return path


def test_the_towers_send_what_their_job_says(noise, tmp_path):
    """One tower on each of two ranks, in a step, in numbers of twice the bytes."""
    where = [f"data.path={noise}", f"output.directory={COMM.bcast(str(tmp_path))}"]
    job = load_job(TOWERS, [*where, "training.precision=float64"])
    header = re.sub(r"\n# *", " ", TOWERS.read_text())
    formula, total = re.search(r"4 bytes x (\(.*?\)) = ([\d,]+) ", header).groups()
    each = int(total.replace(",", ""))
    assert each == 4 * eval(formula.replace("x", "*")), "the header's own arithmetic"
    two = split(COMM, COMM.rank // 2)
    if COMM.rank < 2:
        trained = begin(two, job)
        (trainer,) = trained.trainers.values()
        trainer.train(1)
        assert trained.sent == 2 * len(trained.loaders.train) * each
        count = trainer.network.parts.parameters.size
        assert f"gradient of all {count:,} parameters would be {4 * count / 1e6:.2f} MB" in header
    COMM.Barrier()


@pytest.mark.parametrize("parts", [(COMM.size, 1), (1, COMM.size)], ids=["apart", "together"])
def test_a_stopped_run_goes_on_on_other_ranks(make_job, parts):
    """A rank with a part hears the signal alone; the run is resumed on one rank, and the other
    way round.
    """
    before, after = parts
    whole, _ = gathered(run(alone(), make_job(f"whole{COMM.rank}", **whole_of())))
    ranks = COMM if before > 1 else alone()
    name = "stopped" if before > 1 else f"stopped{COMM.rank}"
    job = make_job(name, **whole_of(before))
    with pytest.raises(Stopped):
        run(ranks, job, StopAt(3, rank=COMM.size - 1 if before > 1 else COMM.rank))
    COMM.Barrier()
    if after == 1:
        if COMM.rank == 0:
            loaded = state.load_newest(alone(), Path(job.output.directory))
            assert loaded.attributes["positions"][0]["step"] == 3
            resumed = gathered(resume(alone(), loaded, make_job(name, **whole_of())))[0]
            compare(resumed, whole)
        COMM.Barrier()
        return
    name = COMM.bcast(name)
    job = make_job(name, **whole_of(after))
    loaded = state.load_newest(COMM, Path(job.output.directory))
    compare(gathered(resume(COMM, loaded, job))[0], whole)


def test_files_are_those_of_a_whole_network(make_job):
    """They are tested on all ranks, each with a whole network."""
    trained = run(COMM, make_job())
    loaded = state.load_newest(COMM, Path(trained.job.output.directory))
    job, loaders = trained.job, trained.loaders
    found = results.result_of(results.evaluator_of_files(COMM, loaded, job, loaders), [OF_ONE], 0.0)
    here = results.result_of(results.evaluator_of_session(trained), [OF_ONE], 0.0)
    if COMM.rank == 0:
        assert found.test[OF_ONE].confusion == here.test[OF_ONE].confusion


def test_a_part_that_is_not_finite_ends_all(make_job):
    """Parameters of the last rank that no loss has seen yet."""
    trained = begin(COMM, make_job(training={"epochs": 1}))
    (trainer,) = trained.trainers.values()
    trainer.train(1)
    if COMM.rank == COMM.size - 1:
        trainer.network.parameters[0] = np.nan
    trainer.check_parameters()
    assert "the parameters are not finite" in trainer.position.finished
    trainer.position.finished = ""
    trainer.train(1)
    assert "the loss is nan" in trainer.position.finished


def test_what_all_parts_have_stays_one(make_job):
    """The bias of the last layer, which differs by a digit on the last rank."""
    (trainer,) = begin(COMM, make_job()).trainers.values()
    network = trainer.network
    (bias,) = network.parts.parameters.everywhere(network.parameters)
    bias[:] = 1 + (COMM.rank == COMM.size - 1) * np.arange(10)
    with trainer.reducer:
        pass
    assert (bias == 1).all() and (network.layers[-1].bias == 1).all()


def test_ranks_that_parts_do_not_divide_are_refused(make_job):
    planned = PlannedRun(make_job(parallel={"model": COMM.size + 1}), COMM)
    with pytest.raises(EnsyncError, match=f"parallel.model = {COMM.size + 1} on {COMM.size} ranks"):
        planned.need()


TALL = {"parallel": {"model": 2}}


@pytest.mark.mpi(min_size=4)
@pytest.mark.parametrize("convolutions", ["model", "data"])
def test_replicas_of_two_parts_equal_one_rank(make_job, convolutions):
    """Two replicas, whose batch normalisation is over the rows of both: 25 and 8 rows a batch."""
    parallel = {"model": 2, "convolutions": convolutions}
    together = run(COMM, make_job("together", parallel=parallel))
    single = run(alone(), make_job(f"alone{COMM.rank}", **whole_of()))
    assert_equal(gathered(together), gathered(single))


@pytest.mark.parametrize(("members", "start"), [(0, "own"), (3, "shared"), (3, "synchronous")])
def test_members_of_two_parts_equal_those_of_one_rank(make_job, members, start):
    """As many members as replicas, or more, which a replica trains in turn, after a common start;
    fused by their weights where they may be.
    """
    if COMM.size % 2:
        pytest.skip("two ranks a network")
    fusion = {"method": "soft_voting" if start == "own" else "weight_averaging"}
    sections = {
        "training": {"strategy": "ensemble", "epochs": 2},
        "ensemble": {"members": members or COMM.size // 2, "start": start},
        "fusion": fusion,
    }
    together = run(COMM, make_job("together", **sections, **TALL))
    assert together.mesh.sizes["member"] == min(COMM.size // 2, sections["ensemble"]["members"])
    single = run(alone(), make_job(f"alone{COMM.rank}", **sections, **whole_of()))
    assert_equal(gathered(together), gathered(single))
    ours, theirs = (
        results.evaluator_of_session(each).fuse(fusion["method"]) for each in (together, single)
    )
    if COMM.rank == 0:
        assert ours.confusion == theirs.confusion
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-9)
