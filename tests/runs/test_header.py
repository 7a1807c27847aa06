"""What the header of a run advises."""

from types import SimpleNamespace

import numpy as np
import pytest
from training.test_training_features import epochs, make_trainee

from ensync.core.config.communication import Communication
from ensync.core.sharding import member_rows
from ensync.runs import header
from ensync.runs.header import start_kept
from ensync.strategies import strategy_of

LAYERS = [
    {"kind": "convolution", "filters": 2},
    {"kind": "batch_normalization", "momentum": 0.9},
    {"kind": "flatten"},
    {"kind": "dense"},
]

ALONE = SimpleNamespace(size=1, rank=0)


@pytest.mark.parametrize("training", [{"batch": 10}, {"batch": 50, "slice": 10}])
def test_what_moving_statistics_keep_of_their_start(training):
    """Told by variances: with weights of zero those of the batches are 0, so that only the start
    is left.
    """
    trainer = make_trainee(
        network={"layers": LAYERS, "hidden": None},
        training=training | {"epochs": 2},
        optimizer={"name": "sgd", "learning_rate": 1e-300},
    )
    trainer.network.parameters[:] = 0
    epochs(trainer, 2)
    np.testing.assert_allclose(
        trainer.network.layers[1].moving_variance, start_kept(trainer), rtol=1e-12
    )
    assert start_kept(trainer) == pytest.approx(0.9**10)


def test_networks_without_statistics_keep_nothing():
    assert start_kept(make_trainee()) == 0


def advice(trainer, threads=1, ranks=1):
    """What the header says to so many ranks on a node, each with so many threads."""
    said = []
    place = SimpleNamespace(threads=threads, topology=SimpleNamespace(ranks_on_node=ranks))
    session = SimpleNamespace(
        job=trainer.job, trainers={0: trainer}, mesh=SimpleNamespace(data=ALONE)
    )
    header._advise(SimpleNamespace(warn=said.append, advise=said.append), place, session)
    return said


@pytest.mark.parametrize(
    "gain,precision,told", [(0.4, "bf16", True), (1.9, "bf16", False), (0.4, "float32", False)]
)
def test_bf16_is_not_advised_where_it_is_slow(gain, precision, told, monkeypatch):
    monkeypatch.setattr(header, "bf16_gain", lambda: gain)
    trainer = make_trainee()
    trainer.job.training.precision = precision
    assert any("0.4 times" in text for text in advice(trainer)) == told


@pytest.mark.parametrize(
    ("precision", "optimizer", "batch", "told"),
    [
        ("bf16", "sgd", 1, True),
        ("bf16", "adam", 1, False),
        ("bf16", "sgd", 2, False),
        ("float32", "sgd", 1, False),
    ],
)
def test_steps_of_one_sample_are_advised_to_be_in_float32(precision, optimizer, batch, told):
    trainer = make_trainee(training={"batch": batch}, optimizer={"name": optimizer})
    trainer.job.training.precision = precision
    assert any("steps of one sample" in text for text in advice(trainer)) == told


@pytest.mark.parametrize("threads,advised", [(1, False), (4, True)])
def test_fewer_threads_are_advised_only_where_there_are_more_than_one(
    threads, advised, monkeypatch
):
    monkeypatch.setattr(header.os, "cpu_count", lambda: 2)
    said = advice(make_trainee(), threads=threads, ranks=5)
    assert "start fewer ranks" in said[0] and ("training.threads=1" in said[0]) == advised


@pytest.mark.parametrize(
    ("data", "rows", "told"),
    [
        ("shards", 20, True),
        ("bootstrap", 20, True),
        ("shards", 2000, False),
        ("full", 20, False),
        ("label_skew", 20, False),
    ],
)
def test_members_that_never_see_a_class_are_told_of(data, rows, told):
    trainer, said = make_trainee(), []
    trainer.job.training.strategy, trainer.job.ensemble.data = "ensemble", data
    place = SimpleNamespace(
        loaders=SimpleNamespace(train=SimpleNamespace(labels=np.arange(rows) % 10))
    )
    session = SimpleNamespace(
        context=SimpleNamespace(strategy=strategy_of(trainer.job)),
        comm=SimpleNamespace(rank=0),
        mesh=SimpleNamespace(members=4),
    )
    header._warn_of_classes(SimpleNamespace(warn=said.append), place, session)
    assert len(said) == told
    if data == "shards" and told:
        seen = [
            len(
                set(
                    (
                        member_rows(
                            "shards", np.arange(rows) % 10, 4, member, trainer.job.training.seed
                        )
                        % 10
                    ).tolist()
                )
            )
            for member in range(4)
        ]
        assert said[0].startswith(
            f"4 of 4 members have no training image of some classes: member 0 of {10 - seen[0]} "
            f"classes, member 1 of {10 - seen[1]} classes"
        )


@pytest.mark.parametrize(
    ("given", "ranks", "said"),
    [
        ({"every": 4}, 3, "meet every 4 steps"),
        ({"every": "never", "start": 7}, 3, "never meet after 7 common steps"),
        ({"every": 4, "growth": 0.02}, 3, "meet every 4 steps, rarer at learning rates below 0.01"),
        ({"partners": "butterfly"}, 4, "average every step with one partner of a butterfly"),
        ({"partners": "butterfly"}, 3, "average every step with one partner of a ring"),
        ({"partners": "ring"}, 4, "average every step with one partner of a ring"),
        (
            {"every": "never", "start_accuracy": 0.9, "start": 50},
            3,
            "never meet, apart from a training accuracy of 0.9 on or after 50 steps",
        ),
        ({"every": 9, "outer_momentum": 0.9}, 3, "steps, outer rate 1 and momentum 0.9"),
    ],
)
def test_replicas_that_meet_are_described(given, ranks, said):
    data = SimpleNamespace(size=ranks)
    session = SimpleNamespace(
        job=SimpleNamespace(communication=Communication(**given)),
        comm=data,
        mesh=SimpleNamespace(members=1, data=data),
    )
    assert header._meetings(session).endswith(said)
    session.mesh.members = ranks
    assert header._meetings(session) == ""
