"""Networks with group normalisation: the same for any rows beside a sample, and in bf16."""

import numpy as np
import pytest

from ensync.core.config.job import job_from_dict
from ensync.core.errors import EnsyncError
from ensync.kernels.simd.host import bf16_missing
from ensync.nn.layers.base import Step
from ensync.nn.memory import BF16
from ensync.nn.models import zoo

NORM = {"kind": "group_norm", "groups": 4}
LAYERS = [
    {"kind": "convolution", "filters": 16},
    {**NORM, "activation": "relu"},
    {"kind": "convolution", "filters": 16},
    {"kind": "residual", "layers": [{"kind": "convolution", "filters": 16}, NORM]},
    {"kind": "global_average_pooling"},
    {"kind": "dense"},
]


def build(layers=LAYERS, rows=6, precision="float32"):
    job = job_from_dict(
        {
            "data": {"path": "none"},
            "output": {"directory": "none"},
            "network": {"layers": layers},
            "training": {"precision": precision},
        }
    )
    network = zoo.build(job, (16, 16, 3), 10, rows)
    network.initialize(3)
    return network


def images(rows):
    random = np.random.default_rng(2)
    return random.standard_normal((rows, 16 * 16 * 3)).astype(np.float32), np.arange(rows) % 10


def test_training_and_evaluation_are_alike_and_samples_do_not_see_each_other():
    network, (inputs, _) = build(), images(6)
    together = network.forward(inputs, Step(training=True)).copy()
    alone = [network.forward(inputs[i : i + 1], Step())[0].copy() for i in range(6)]
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)
    assert len(network.statistics) == 0


def test_groups_must_divide_the_channels():
    with pytest.raises(EnsyncError, match="16 channels in 5 groups"):
        build([LAYERS[0], {**NORM, "groups": 5}, *LAYERS[4:]])


@pytest.mark.skipif(bool(bf16_missing()), reason=f"no bf16: {bf16_missing()}")
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_bf16_is_near_float32(activation):
    found, given = {}, {"activation": activation}
    layers = [LAYERS[0], LAYERS[1] | given, LAYERS[2] | given, LAYERS[3] | given, *LAYERS[4:]]
    for precision in ("float32", "bf16"):
        network, (inputs, labels) = build(layers, precision=precision), images(6)
        network.backward(inputs, labels, 6, Step(training=True))
        found[precision] = network.gradient.copy()
    assert network.layers[1].outputs.dtype == BF16
    distance = np.linalg.norm(found["bf16"] - found["float32"])
    assert 1e-5 < distance / np.linalg.norm(found["float32"]) < 0.05
