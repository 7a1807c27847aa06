"""What is validated, kept, tested, saved and fused are the same parameters and statistics, on
any number of ranks.
"""

from pathlib import Path

import numpy as np
import pytest
from runs.helpers import COMM, common_digits, gathered, job_maker, run

from ensync.core.errors import EnsyncError
from ensync.core.statistics.grouping import coarse_classes
from ensync.mpi.world import alone
from ensync.runs import results, state
from ensync.runs.groups import find_groups

pytestmark = [
    pytest.mark.mpi,
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.timeout(300),
]  # the first test may compile
LAYERS = [
    {"kind": "convolution", "filters": 4},
    {"kind": "batch_normalization", "activation": "relu", "momentum": 0.9},
    {"kind": "max_pooling"},
    {"kind": "flatten"},
    {"kind": "dense", "units": 12},
    {"kind": "batch_normalization", "activation": "relu"},
    {"kind": "dense"},
]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return common_digits(tmp_path_factory, 400)


@pytest.fixture
def make_job(dataset, tmp_path):
    return job_maker(
        dataset,
        tmp_path,
        network={"layers": LAYERS},
        training={"precision": "float64", "epochs": 4, "batch": 25},
        optimizer={"name": "momentum", "learning_rate": 0.02},
    )


def normalised(loader):
    values = (loader.images[: len(loader)].astype(float) - loader.mean) * loader.inverse_std
    framed = np.pad(values.reshape(-1, 8, 8, 1), ((0, 0), (1, 1), (1, 1), (0, 0)))
    return np.lib.stride_tricks.sliding_window_view(framed, (3, 3), axis=(1, 2))


def answers(comm, evaluator):
    """Return a jury's soft voting without the last digits, the same on all ranks."""
    figures = evaluator.fuse("soft_voting")
    return comm.bcast(figures and {"loss": f"{figures.loss:.9g}", "confusion": figures.confusion})


CASES = {
    "average": {},
    "best": {"best_weights": True},
    "deterministic": {"deterministic": True, "best_weights": True, "virtual_shards": 4},
    "local": {"best_weights": True},
}


@pytest.mark.parametrize("case", CASES)
def test_an_average_is_tested_with_statistics_of_its_own(make_job, case):
    job = make_job(
        training={"weight_average": 0.95} | CASES[case],
        network={"layers": LAYERS, "batch_norm": "local" if case == "local" else "synchronised"},
    )
    trained = run(COMM, job)
    before, positions = gathered(trained)
    evaluator = results.evaluator_of_session(trained)
    expected = answers(COMM, evaluator)
    after, _ = gathered(trained)
    assert all(np.array_equal(before[name], after[name]) for name in before), (
        "the test left the network in training as it was"
    )
    losses = COMM.bcast([record["validation_loss"] for record in trained.state.history])
    loss = evaluator.validation.loss_sum[0] / len(trained.loaders.validation)
    assert loss == pytest.approx(
        min(losses) if "best_weights" in CASES[case] else losses[-1], rel=1e-12
    )
    prefix = "members/0000/best/" if "best_weights" in CASES[case] else "members/0000/average/"
    parameters, statistics = before[f"{prefix}parameters"], before[f"{prefix}statistics"]
    outputs = (
        np.einsum(
            "nyxchw,hwck->nyxk",
            normalised(trained.loaders.train),
            parameters[:36].reshape(3, 3, 1, 4),
        )
        + parameters[36:40]
    )
    np.testing.assert_allclose(statistics[:4], outputs.mean((0, 1, 2)), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(statistics[4:8], outputs.var((0, 1, 2)), rtol=0.03)
    assert not np.allclose(statistics, before["members/0000/statistics"], rtol=0.05)
    for comm in (COMM, alone()):
        loaded = state.load_newest(comm, Path(job.output.directory))
        assert (
            answers(comm, results.evaluator_of_files(comm, loaded, job, trained.loaders))
            == expected
        )
    plain = make_job(
        "plain",
        training=job.training.model_dump() | {"weight_average": 0.0, "best_weights": False},
        network=job.network.model_dump(exclude_none=True),
    )
    for name, values in gathered(run(COMM, plain))[0].items():
        assert np.array_equal(values, before[name]), (
            f"{name} of the network in training does not know of its average"
        )


def test_views_are_averaged_before_members_are_fused(make_job):
    """In a run and from its files, on these ranks and on one; validation takes images alone."""
    job = make_job(
        training={"strategy": "ensemble", "epochs": 1},
        ensemble={"members": 2, "start": "shared"},
        evaluation={"augmentation": "mirror_shift"},
    )
    trained = run(COMM, job)
    evaluator = results.evaluator_of_session(trained)
    found = [answers(COMM, evaluator), evaluator.member_accuracies, evaluator.accuracies_alone]
    plain_job = job.model_copy(update={"evaluation": type(job.evaluation)()})
    for comm in (COMM, alone()):
        loaded = state.load_newest(comm, Path(job.output.directory))
        again, plain = (
            results.evaluator_of_files(comm, loaded, each, trained.loaders)
            for each in (job, plain_job)
        )
        assert [answers(comm, again), again.member_accuracies, again.accuracies_alone] == found
        assert plain.member_accuracies == evaluator.accuracies_alone
        assert plain.accuracies_alone == [] and answers(comm, plain) != found[0]
        assert plain.validation_accuracies == evaluator.validation_accuracies
        short = results.evaluator_of_files(comm, loaded, job, trained.loaders.without_validation())
        assert answers(comm, short) == found[0] and short.validated[1] == again.validated[1]
        assert np.array_equal(short.validated[0], again.validated[0]), "from the checkpoint"
        averaged = [each.fuse("weight_averaging") for each in (again, plain)]
        assert comm.rank or averaged[0].loss != averaged[1].loss


def test_exits_are_counted_as_the_test_goes(make_job):
    """On these ranks and from the files on one: the row of the job's own threshold is its test."""
    layers = [LAYERS[0], {"kind": "exit", "layers": [{"kind": "dense"}]}, *LAYERS[2:]]
    job = make_job(
        training={"strategy": "ensemble", "epochs": 1},
        ensemble={"members": 2},
        network={"layers": layers},
        evaluation={"exit_threshold": 0.55},
    )
    trained = run(COMM, job)
    evaluator = results.evaluator_of_session(trained)
    found = COMM.bcast(results.result_of(evaluator, ["soft_voting"], 1.0))
    own = [row for row in found.exits if row.threshold == 0.55]
    assert own[0].accuracy == pytest.approx(np.mean(found.members)) and 0 < own[0].shares[0] < 1
    loaded = state.load_newest(alone(), Path(job.output.directory))
    again = results.evaluator_of_files(alone(), loaded, job, trained.loaders)
    assert results.result_of(again, ["soft_voting"], 1.0).exits == found.exits


def test_groups_are_those_that_are_taken_for_each_other(make_job, capfd):
    job = make_job(training={"epochs": 1})
    scores = results.evaluator_of_session(run(COMM, job)).validation
    answered = scores.gathered(COMM)
    find_groups(COMM, job.output.directory, 3, ())
    shown = capfd.readouterr().out
    if COMM.rank == 0:
        counts = np.zeros((10, 10), int)
        np.add.at(counts, (scores.loader.labels, answered[0].argmax(1)), 1)
        assert shown.strip().endswith(f"groups = {coarse_classes(counts, 3)}")
    with pytest.raises(EnsyncError, match="--groups 11 of 10 classes"):
        find_groups(COMM, job.output.directory, 11, ())


def test_a_checkpoint_within_an_epoch_has_them_too(make_job):
    job = make_job(
        training={"weight_average": 0.9, "epochs": 1}, checkpoint={"every_steps": 5, "keep": 9}
    )
    trained = run(COMM, job)
    first = COMM.bcast(
        sorted(map(str, (Path(job.output.directory) / "checkpoints").iterdir()))
        if COMM.rank == 0
        else None
    )[0]
    loaded = state.load_newest(COMM, Path(first))
    assert loaded.attributes["positions"][0]["step"] == 5
    found = loaded.member(COMM, 0)
    outputs = (
        np.einsum(
            "nyxchw,hwck->nyxk",
            normalised(trained.loaders.train),
            found["average/parameters"][:36].reshape(3, 3, 1, 4),
        )
        + found["average/parameters"][36:40]
    )
    np.testing.assert_allclose(
        found["average/statistics"][:4], outputs.mean((0, 1, 2)), rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_a_mean_of_weights_does_not_depend_on_the_ranks_that_fuse(make_job, average):
    job = make_job(
        training={"strategy": "ensemble", "epochs": 2, "weight_average": average},
        ensemble={"members": 3, "start": "shared"},
    )
    trained = run(COMM, job)
    together = results.evaluator_of_session(trained).fuse("weight_averaging")
    loaded = state.load_newest(alone(), Path(job.output.directory))
    single = results.evaluator_of_files(alone(), loaded, job, trained.loaders).fuse(
        "weight_averaging"
    )
    if COMM.rank == 0:
        assert together.confusion == single.confusion and together.top_k == single.top_k
        assert together.loss == pytest.approx(single.loss, rel=1e-9)
