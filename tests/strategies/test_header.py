"""What the header of a run advises."""

import numpy as np
import pytest
from test_training_features import epochs, make_trainee

from ensync.strategies.header import start_kept

LAYERS = [{"kind": "convolution", "filters": 2}, {"kind": "batch_normalization", "momentum": 0.9}, {"kind": "flatten"}, {"kind": "dense"}]


@pytest.mark.parametrize("training", [{"batch": 10}, {"batch": 50, "slice": 10}])
def test_what_moving_statistics_keep_of_their_start(training):
    """Told by variances: with weights of zero those of the batches are 0, so that only the start is left."""
    trainee = make_trainee(network={"layers": LAYERS, "hidden": None}, training=training | {"epochs": 2}, optimizer={"name": "sgd", "learning_rate": 1e-300})
    trainee.network.parameters[:] = 0
    epochs(trainee, 2)
    np.testing.assert_allclose(trainee.network.layers[1].moving_variance, start_kept(trainee), rtol=1e-12)
    assert start_kept(trainee) == pytest.approx(0.9**10)


def test_networks_without_statistics_keep_nothing():
    assert start_kept(make_trainee()) == 0
