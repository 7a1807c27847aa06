"""Deterministic runs: the same bits on any number of ranks and threads, interrupted on some and
resumed on others.
"""

import hashlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from runs.helpers import COMM, StopAt, common_digits, gathered, job_maker, resume, run

from ensync.core.errors import EnsyncError
from ensync.core.fusion import FUSIONS
from ensync.kernels.simd.host import bf16_missing
from ensync.kernels.threads import set_threads
from ensync.mpi.world import alone, on_root, split
from ensync.runs import results, state
from ensync.runs.networks import build_network
from ensync.runs.stopped import Stopped

pytestmark = [
    pytest.mark.mpi,
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.timeout(300),
]  # the first test may compile
# all of whose parts must keep the bits: clipping, averages, growth, slices, decisions by validation
EVERYTHING = {
    "training": {
        "deterministic": True,
        "epochs": 3,
        "weight_average": 0.8,
        "best_weights": True,
        "slice": 20,
        "batch": 15,
        "early_stopping": 2,
    },
    "optimizer": {"name": "adam", "clip_norm": 0.5},
    "plateau": {"patience": 1, "threshold": 0.05},
    "lookahead": {"every_steps": 3, "share": 0.8, "power": 1.0},
    "growth": {"every_epochs": 1, "largest_batch": 30},
    "augmentation": {
        "flip": "alternating",
        "rotation": 20,
        "crop": 1,
        "crop_edge": "reflect",
        "cutout": 2,
        "mixup": 0.8,
        "cutmix": 1.0,
    },
    "schedule": {"name": "cosine", "warmup_epochs": 0.4},
}
RESIDUAL = [
    {"kind": "convolution", "filters": 5},
    {"kind": "batch_normalization", "activation": "relu", "momentum": 0.9},
    {
        "kind": "residual",
        "activation": "relu",
        "layers": [
            {"kind": "separable", "filters": 5},
            {"kind": "batch_normalization", "unbiased": True},
        ],
    },
    {"kind": "max_pooling"},
    {"kind": "dropout", "rate": 0.1},
    {"kind": "flatten"},
    {"kind": "dense"},
]
BLOCKS = [
    {"kind": "convolution", "filters": 32},
    {"kind": "batch_normalization", "activation": "relu"},
    {"kind": "global_average_pooling"},
    {"kind": "dense"},
]
CASES = {
    "mlp": {"network": {"hidden": [19, 12], "dropout": 0.2}},
    "mlp, a row per step": {
        "network": {"hidden": [9]},
        "training": {"deterministic": True, "batch": 1, "epochs": 1},
        "optimizer": {"name": "sgd"},
    },
    "mlp in slices": {
        "network": {"hidden": [19]},
        "training": {
            "deterministic": True,
            "batch": "full",
            "slice": 50,
            "epochs": 3,
            "virtual_shards": 11,
        },
    },
    "wide": {
        "network": {"hidden": [300, 200]},
        "training": {"deterministic": True, "batch": 108, "epochs": 2},
    },
    "convolutions": {
        "network": {
            "name": "layers",
            "layers": [
                {"kind": "convolution", "filters": 6, "size": 5},
                {"kind": "average_pooling"},
                {"kind": "convolution", "filters": 16, "activation": "tanh"},
                {"kind": "flatten"},
                {"kind": "dense", "units": 20, "activation": "tanh"},
                {"kind": "dense"},
            ],
        }
    },
    "residual": EVERYTHING | {"network": {"layers": RESIDUAL}},
    "separable blocks": {
        "network": {"name": "minixception"},
        "training": {"deterministic": True, "batch": 40, "epochs": 1},
    },
    "bf16": EVERYTHING
    | {"network": {"layers": RESIDUAL}, "training": EVERYTHING["training"] | {"precision": "bf16"}},
    "airbench": {
        "network": {"name": "airbench", "filters": [6], "depth": 5},
        "training": {"deterministic": True, "batch": 40, "epochs": 1, "slice": 30},
    },
    "blocks in bf16": {
        "network": {"name": "minixception"},
        "training": {"deterministic": True, "batch": 40, "epochs": 1, "precision": "bf16"},
    },
    "statistics of each shard": EVERYTHING
    | {"network": {"layers": RESIDUAL, "batch_norm": "local"}},
    "members": EVERYTHING
    | {
        "network": {"layers": RESIDUAL},
        "training": EVERYTHING["training"] | {"strategy": "ensemble"},
        "ensemble": {"members": 3, "start": "shared"},
    },
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """The first 150 digits: about 108 for training."""
    return common_digits(tmp_path_factory, 150)


@pytest.fixture
def make_job(dataset, tmp_path):
    return job_maker(
        dataset,
        tmp_path,
        training={"deterministic": True, "epochs": 2, "batch": 25},
        optimizer={"name": "momentum", "learning_rate": 0.02},
    )


def left(trained):
    """Return what a run leaves: a hash of each vector, positions and history without times; from
    rank 0 of its ranks on all of them.
    """
    arrays, positions = gathered(trained)
    vectors = {
        name: hashlib.sha256(values.tobytes()).hexdigest() for name, values in arrays.items()
    }
    times = {"seconds", "samples_per_second", "elapsed"}
    history = trained.comm.bcast(
        [{k: v for k, v in record.items() if k not in times} for record in trained.state.history]
    )
    return (
        vectors,
        [{k: v for k, v in p.items() if k not in times} for p in positions],
        sorted(history, key=lambda r: (r["epoch"], r["member"])),
    )


ALONE = {}  # by case, what one rank leaves


def left_alone(make_job, case):
    """Return what one rank leaves; the others sleep meanwhile. Run once for each case."""
    if case not in ALONE:
        job = make_job("alone", **CASES[case])
        ALONE[case] = on_root(COMM, lambda: left(run(alone(), job)))
    return ALONE[case]


def fused(trained):
    """Return the figures of every fusion, on rank 0."""
    evaluator = results.evaluator_of_session(trained)
    return {method: evaluator.fuse(method) for method in FUSIONS}


@pytest.mark.parametrize("case", CASES)
def test_ranks_leave_the_bits_of_one_rank(make_job, case):
    if "bf16" in case and bf16_missing():
        pytest.skip(bf16_missing())
    together = left(run(COMM, make_job("together", **CASES[case])))
    assert together == left_alone(make_job, case)


@pytest.mark.parametrize("case", ["wide", "residual", "statistics of each shard"])
def test_threads_leave_the_bits_of_one_thread(make_job, case):
    def compare():
        single = left(run(alone(), make_job("one", **CASES[case])))
        set_threads(2)
        try:
            return single == left(run(alone(), make_job("two", **CASES[case])))
        finally:
            set_threads(1)

    assert on_root(COMM, compare)


@pytest.mark.skipif(COMM.size == 1, reason="several ranks add in another order than one")
@pytest.mark.parametrize("case", ["mlp", "residual"])
def test_other_runs_are_merely_close(make_job, case):
    """What the tests above compare does differ where nothing keeps it."""
    sections = CASES[case] | {
        "training": {"deterministic": False, "epochs": 2, "batch": 25},
        "optimizer": {"name": "momentum", "learning_rate": 0.02},
    }
    together, single = (
        gathered(trained)[0]["members/0000/parameters"]
        for trained in (
            run(COMM, make_job("together", **sections)),
            run(alone(), make_job(f"alone{COMM.rank}", **sections)),
        )
    )
    np.testing.assert_allclose(together, single, rtol=1e-3, atol=1e-4)
    assert not np.array_equal(together, single)


INTERRUPTED = [(1, 2), (2, 1), (3, 2), (2, 4), (3, 5), (8, 3)]


@pytest.mark.parametrize(("before", "after"), INTERRUPTED)
@pytest.mark.parametrize("case", ["mlp", "residual"])
def test_a_run_goes_on_with_other_ranks_to_the_same_bits(make_job, case, before, after):
    """Stopped in the middle of the first epoch on some ranks and resumed on more or fewer of
    them.
    """
    if max(before, after) > COMM.size:
        pytest.skip("wants more ranks")
    job = make_job("parts", **CASES[case])
    some, others = (split(COMM, COMM.rank >= count) for count in (before, after))
    if COMM.rank < before:
        with pytest.raises(Stopped):
            run(some, job, StopAt(3, rank=before - 1))
    COMM.Barrier()
    whole = left_alone(make_job, case)
    if COMM.rank < after:
        loaded = state.load_newest(others, Path(job.output.directory))
        assert loaded.attributes["positions"][0]["step"] == 3
        assert left(resume(others, loaded, job)) == whole


def test_fusions_have_the_bits_of_one_rank(make_job):
    sections = CASES["members"] | {
        "ensemble": {"members": 5, "start": "shared"}
    }  # so many that two ranks group them in another way than one
    together = fused(run(COMM, make_job("together", **sections)))
    single = on_root(COMM, lambda: fused(run(alone(), make_job("alone", **sections))))
    assert COMM.rank or (together == single and "refused" not in str(single))


def test_more_ranks_than_shards_are_refused(make_job):
    job = make_job(training={"deterministic": True, "virtual_shards": max(1, COMM.size - 1)})
    if COMM.size == 1:
        run(COMM, job)
        return
    with pytest.raises(
        EnsyncError, match=f"{COMM.size} ranks for one network.*virtual_shards={COMM.size}"
    ):
        run(COMM, job)


@pytest.mark.parametrize("change", [{"deterministic": False}, {"virtual_shards": 4}])
def test_a_resumed_run_keeps_its_shards(make_job, change):
    training = {"deterministic": True, "epochs": 1}
    run(COMM, make_job(training=training))
    changed = make_job(training=training | change)
    with pytest.raises(EnsyncError, match=f"training.{next(iter(change))}"):
        resume(COMM, state.load_newest(COMM, Path(changed.output.directory)), changed)


def test_buffers_do_not_depend_on_the_ranks(make_job):
    """Their rows are evaluated together."""
    job = make_job(training={"deterministic": True, "batch": 4096, "slice": 4096})
    identity = SimpleNamespace(shape=(8, 8, 1), classes=10, sizes={"train": 5000})
    assert {build_network(job, identity, ranks).rows for ranks in (1, 3, 8)} == {512}
