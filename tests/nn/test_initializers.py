"""Start values: PyTorch's own bounds for its modules, Keras' fans for the rest."""

import math

import numpy as np
import pytest

from ensync.core.config.job import job_from_dict
from ensync.core.errors import EnsyncError
from ensync.nn.flat import views
from ensync.nn.layers.base import Step
from ensync.nn.models import zoo

LISTED = [
    {"kind": "convolution", "filters": 32, "size": 5, "groups": 4},
    {"kind": "depthwise", "size": 5},
    {"kind": "separable", "filters": 48},
    {"kind": "flatten"},
    {"kind": "dense", "units": 300},
    {"kind": "dense"},
]


def build(**settings):
    """A network on images of 6 x 7 x 16 and 100 classes, with its start values."""
    job = job_from_dict(
        {
            "data": {"path": "none"},
            "output": {"directory": "none"},
            "network": {"layers": LISTED, **settings},
        }
    )
    network = zoo.build(job, (6, 7, 16), 100, 3)
    network.initialize(1)
    return network


def starts(**settings):
    """The start values of each array of that network, by its name."""
    network = build(**settings)
    return views(network.parameters, network.layout)


def bounds(initializer):
    """The largest start value of each array of that network, by its name."""
    found = starts(initializer=initializer)
    return {name: float(np.abs(values).max()) for name, values in found.items()}


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


@pytest.mark.parametrize("size,filters", [(3, 24), (3, 16), (3, 5), (2, 24), (1, 40)])
def test_the_first_filters_of_dirac_are_those_of_pytorch(size, filters):
    torch = pytest.importorskip("torch")
    layers = [{"kind": "convolution", "filters": filters, "size": size}, *LISTED[3:]]
    found = starts(layers=layers, initializer="dirac")
    plain = starts(layers=layers, initializer="pytorch")
    expected = torch.from_numpy(plain["0.weights"].transpose(3, 2, 0, 1).copy())
    torch.nn.init.dirac_(expected[:16])
    assert np.array_equal(found["0.weights"], expected.permute(2, 3, 1, 0).numpy())
    for name in ("0.bias", "2.weights", "2.bias"):
        assert np.array_equal(found[name], plain[name])


def test_layers_may_start_otherwise_than_the_network():
    own = {"initializer": "pytorch", "use_bias": True}
    layers = [LISTED[0] | own, *LISTED[1:4], LISTED[4] | own, LISTED[5]]
    found = starts(layers=layers, initializer="he_normal", output_initializer="unit_variance")
    everywhere = starts(layers=layers[:4] + LISTED[4:], initializer="pytorch")
    for name in ("0.weights", "0.bias", "4.weights", "4.bias"):
        assert np.array_equal(found[name], everywhere[name]) and found[name].any()
    assert found["2.1.weights"].std() == pytest.approx(math.sqrt(2 / 32), rel=0.1)
    assert found["5.weights"].std() == pytest.approx(1, rel=0.02) and not found["5.bias"].any()


def test_the_outputs_may_be_scaled():
    plain, scaled = build(), build(output_scale=1 / 9)
    inputs = np.random.default_rng(1).standard_normal((3, 6 * 7 * 16)).astype(np.float32)
    expected = plain.forward(inputs, Step()) / 9
    np.testing.assert_allclose(scaled.forward(inputs, Step()), expected, rtol=1e-6)
    layers = [*LISTED, {"kind": "scaling", "factor": 2.0}]
    with pytest.raises(EnsyncError, match="ends in 'Scaling by 2'"):
        build(layers=layers)


def test_small_normal_weights_know_no_fans():
    found = starts(initializer="normal_0_01")
    weights = {name: values for name, values in found.items() if values.ndim > 1}
    for values in weights.values():
        sure = 4 / math.sqrt(2 * values.size)  # four standard errors
        assert values.std() == pytest.approx(0.01, rel=sure)
    assert weights and not any(found[name].any() for name in found if name not in weights)
