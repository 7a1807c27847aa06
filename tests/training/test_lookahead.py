"""Lookahead beside a plain numpy run of the same steps."""

import numpy as np
import pytest
from training.test_training_features import make_trainee

LAYERS = [
    {"kind": "dense", "units": 6},
    {"kind": "batch_normalization", "activation": "relu"},
    {"kind": "dense"},
]


def trainee(**lookahead):
    sections = {"lookahead": lookahead} if lookahead else {}
    return make_trainee(
        network={"layers": LAYERS, "hidden": None},
        training={"epochs": 3},
        optimizer={"name": "momentum", "learning_rate": 0.1},
        **sections,
    )


def step(trainer):
    trainer.train(1)
    if trainer.epoch_done:
        trainer.close_epoch()


@pytest.mark.parametrize("share,power", [(0.5, 0.0), (0.95**5, 3.0), (0.0, 0.0)])
@pytest.mark.parametrize("every", [1, 4, 99])
def test_steps_are_those_of_plain_numpy(share, power, every):
    """A network without it is set to what the formula says after each of 15 steps."""
    found, plain = trainee(every_steps=every, share=share, power=power), trainee()
    vectors = plain.network.parameters, plain.network.statistics
    slow = [vector.copy() for vector in vectors]
    assert len(slow[1])
    for done in range(1, 16):
        step(found)
        step(plain)
        if done % every == 0 or done == 15:
            kept = 1.0 if done == 15 else share * (done / 15) ** power
            for mean, trained in zip(slow, vectors, strict=True):
                mean[:] = kept * mean + (1 - kept) * trained
                trained[:] = mean
        for one, two in zip(vectors, (found.network.parameters, found.network.statistics)):
            np.testing.assert_allclose(two, one, rtol=1e-9, atol=1e-12)
    assert found.position.epoch == 3
    np.testing.assert_array_equal(found.network.parameters, found.vectors["lookahead/parameters"])
    found.restart()
    np.testing.assert_array_equal(found.network.parameters, found.vectors["lookahead/parameters"])


def test_without_it_nothing_is_kept():
    assert not [name for name in trainee().vectors if "lookahead" in name]
