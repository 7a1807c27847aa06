"""What a job needs of memory, and the sentence where a node has less."""

import math

import pytest

from ensync.core.config.job import job_from_dict
from ensync.core.resources import Memory
from ensync.runs.memory import Having, Need, need_of, shortage
from ensync.storage.dataset import open_dataset
from ensync.storage.sources.digits import read_digits
from ensync.storage.writing import write_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    path = tmp_path_factory.mktemp("memory") / "digits.h5"
    write_dataset(path, read_digits(), validation=0.1, seed=1)
    with open_dataset(path) as opened:
        yield opened


def job(**sections):
    return job_from_dict(
        {
            "data": {"path": "none.h5"},
            "output": {"directory": "none"},
            "network": {"name": "mlp", "hidden": [1000, 1000]},
            **sections,
        }
    )


VECTOR = 4 * (64 * 1000 + 1000 * 1000 + 1000 * 10 + 2010)  # bytes of all parameters


def test_weights_gradient_slots_and_copies_are_counted(dataset):
    plain = need_of(job(optimizer={"name": "sgd"}), dataset, 1)
    assert plain.weights == 5 * VECTOR and plain.images == 1797 * 64
    assert (
        need_of(
            job(optimizer={"name": "adam"}, training={"best_weights": True}), dataset, 1
        ).weights
        == 8 * VECTOR
    )
    assert need_of(job(optimizer={"name": "sgd"}), dataset, 1, trains=False).weights == 4 * VECTOR


def test_a_part_of_a_network_takes_less_but_for_its_test(dataset):
    """A half of all but the last bias; a spare network, a copy and a gathered vector are whole."""
    sections = {"optimizer": {"name": "adam"}, "training": {"best_weights": True}}
    half = need_of(job(**sections, parallel={"model": 2}), dataset, 2)
    assert half.weights == 5 * (VECTOR + 4 * 10) // 2 + 4 * VECTOR
    assert half.weights < need_of(job(**sections), dataset, 1).weights


def test_ranks_share_a_batch_and_members_do_not(dataset):
    full = {"training": {"batch": "full", "slice": 1024}}
    assert need_of(job(**full), dataset, 4).batches < 0.5 * need_of(job(**full), dataset, 1).batches
    members = {"training": {"strategy": "ensemble"}, "ensemble": {"members": 6}}
    assert (
        need_of(job(**members), dataset, 2).weights
        == 3 * need_of(job(training={"strategy": "ensemble"}), dataset, 2).weights
    )


def test_a_streamed_dataset_is_not_held(dataset):
    need = need_of(job(data={"path": "none.h5", "placement": "stream"}), dataset, 1)
    assert need.images == 0


def test_more_than_can_be_counted_is_too_much(dataset):
    assert (
        need_of(job(network={"name": "mlp", "hidden": [2**40, 2**40]}), dataset, 1).weights
        >= 1 << 60
    )


GB = 10**9
AMPLE = Memory(math.inf, "no limit")


def have(node, gigabytes, bound="the node", own=AMPLE):
    return Having(node, Memory(gigabytes * GB, bound), own)


@pytest.mark.parametrize(
    ("need", "ranks", "told"),
    [
        (Need(2, GB, GB, 0), [have("a", 4), have("a", 4)], ""),
        (
            Need(2, GB, 2 * GB, 0),
            [have("a", 4, "the control group job"), have("a", 9)],
            (
                "5.1 GB of memory on a (2 ranks x (2.0 GB",
                "at most 4.0 GB, which the control group job leaves",
                "smaller network, or start fewer ranks",
            ),
        ),
        (
            Need(2, 0, 0, 2 * GB),
            [have("a", 9), have("b", 1)],
            ("2.1 GB of memory on b (1 rank x", "lower training.batch"),
        ),
        (Need(1, 0, GB, 0), [have("a", 2)] * 8, ""),
        (
            Need(1, 5 * GB, 0, 0),
            [have("a", 9, own=Memory(GB, "ulimit -v"))],
            ("ulimit -v leaves", "data.placement = 'stream'"),
        ),
    ],
)
def test_the_node_or_process_with_too_little_is_named(need, ranks, told):
    refusal = shortage([Need(1, 0, 0, 0), need], ranks)
    assert (refusal is None) == (not told)
    for part in told:
        assert part in str(refusal)
