"""Start values: PyTorch's own bounds for its modules, Keras' fans for the rest."""

import math

import numpy as np
import pytest

from ensync.core.config.job import job_from_dict
from ensync.nn.models import zoo

LISTED = [
    {"kind": "convolution", "filters": 32, "size": 5, "groups": 4},
    {"kind": "depthwise", "size": 5},
    {"kind": "separable", "filters": 48},
    {"kind": "flatten"},
    {"kind": "dense", "units": 300},
    {"kind": "dense"},
]


def bounds(initializer):
    """The largest start value of each array of a network on images of 6 x 7 x 16 and 100
    classes, by its name.
    """
    job = job_from_dict(
        {
            "data": {"path": "none"},
            "output": {"directory": "none"},
            "network": {"layers": LISTED, "initializer": initializer},
        }
    )
    network = zoo.build(job, (6, 7, 16), 100, 1)
    network.initialize(1)
    ends = np.cumsum([p.size for _, p in network.layout])
    return {
        name: float(np.abs(network.parameters[end - p.size : end]).max())
        for end, (name, p) in zip(ends, network.layout, strict=True)
    }


def test_pytorchs_are_those_of_its_modules():
    torch = pytest.importorskip("torch")
    torch.manual_seed(1)
    nn = torch.nn
    modules = [
        nn.Conv2d(16, 32, 5, groups=4),
        nn.Conv2d(32, 32, 5, groups=32, bias=False),
        nn.Conv2d(32, 32, 3, groups=32, bias=False),
        nn.Conv2d(32, 48, 1),
        nn.Linear(6 * 7 * 48, 300),
        nn.Linear(300, 100),
    ]
    theirs = [tensor.abs().max().item() for module in modules for tensor in module.parameters()]
    ours = bounds("pytorch")
    assert len(ours) == len(theirs)
    for name, one, other in zip(ours, ours.values(), theirs, strict=True):
        assert one == pytest.approx(other, rel=0.2 if "bias" in name else 0.02), name


@pytest.mark.parametrize(
    "initializer,of_fans",
    [("glorot_uniform", lambda i, o: (i + o) / 2), ("he_uniform", lambda i, o: i / 2)],
)
def test_the_others_count_as_keras(initializer, of_fans):
    """keras.initializers.compute_fans: the last two axes of (5, 5, 4, 32), (5, 5, 32, 1), (3, 3,
    32, 1), times the pixels.
    """
    fans = {
        "0.weights": (25 * 4, 25 * 32),
        "1.weights": (25 * 32, 25),
        "2.0.weights": (9 * 32, 9),
        "2.1.weights": (32, 48),
        "4.weights": (2016, 300),
        "5.weights": (300, 100),
    }
    found = bounds(initializer)
    for name, (fan_in, fan_out) in fans.items():
        assert found[name] == pytest.approx(math.sqrt(3 / of_fans(fan_in, fan_out)), rel=0.02), name
    assert found["0.bias"] == 0
