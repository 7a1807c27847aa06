"""A network on several ranks, of which each holds a part, beside the whole one on one rank: every
kind of layer, forward and back, after several steps.
"""

import numpy as np
import pytest
from played_ranks import joined, play

from ensync.core.config.job import job_from_dict
from ensync.core.errors import EnsyncError
from ensync.nn.layers.base import Step
from ensync.nn.layers.response import LocalResponseNormalization
from ensync.nn.memory import Workspace, counted
from ensync.nn.models import zoo
from ensync.nn.optimizers import Optimizer
from ensync.nn.split.exchange import StandIn

ROWS, STEPS = 5, 3
CONVOLUTIONS = [
    {"kind": "convolution", "filters": 8, "activation": "relu"},
    {"kind": "batch_normalization", "activation": "relu", "momentum": 0.5},
    {"kind": "convolution", "filters": 8, "groups": 4, "use_bias": False},
    {"kind": "max_pooling"},
    {"kind": "convolution", "filters": 12, "size": 1, "groups": 2, "activation": "tanh"},
    {"kind": "scaling", "factor": 0.7},
    {"kind": "convolution", "filters": 8, "stride": 2},
    {"kind": "dropout", "rate": 0.3},
    {"kind": "flatten"},
    {"kind": "dense", "units": 12, "activation": "gelu"},
    {"kind": "dropout", "rate": 0.3},
    {"kind": "dense", "units": 8, "use_bias": False},
    {"kind": "dense"},
]
BLOCKS = [
    {"kind": "batch_normalization"},
    {"kind": "convolution", "filters": 16},
    {"kind": "local_response_normalization", "alpha": 0.1},
    {"kind": "depthwise"},
    {"kind": "group_norm", "groups": 8, "activation": "relu"},
    {
        "kind": "residual",
        "activation": "relu",
        "layers": [
            {"kind": "convolution", "filters": 16},
            {"kind": "batch_normalization"},
        ],
    },
    {
        "kind": "residual",
        "layers": [{"kind": "convolution", "filters": 8}],
        "shortcut": [{"kind": "convolution", "filters": 8, "size": 1}],
    },
    {"kind": "average_pooling"},
    {"kind": "local_response_normalization", "n": 3, "alpha": 0.2, "groups": 4},
    {"kind": "global_average_pooling"},
    {"kind": "dense"},
]
DENSE = [
    {"kind": "flatten"},
    {"kind": "dropout", "rate": 0.2},
    {"kind": "dense", "units": 8, "activation": "relu"},
    {"kind": "dense"},
]
CASES = {
    "convolutions": {"network": {"layers": CONVOLUTIONS}},
    "blocks": {"network": {"layers": BLOCKS}},
    "perceptron": {"network": {"hidden": [8, 16], "dropout": 0.4}},
    "squared error": {
        "network": {"name": "oregon-mlp", "hidden": [4, 8], "output_activation": "tanh"},
        "training": {"loss": "mean_squared_error"},
    },
    "rows": {
        "network": {"layers": [*CONVOLUTIONS[:4], {"kind": "dropout", "rate": 0.3}, *DENSE]},
        "parallel": {"convolutions": "data", "model": 2},
    },
    "rows of blocks": {
        "network": {"layers": [*BLOCKS[1:6], BLOCKS[-2], *DENSE[2:]]},
        "parallel": {"convolutions": "data", "model": 2},
    },
    "softmax": {
        "network": {"hidden": [8], "activation": "gelu", "output_activation": "softmax"},
        "training": {"loss": "mean_squared_error"},
    },
}


def job_of(**sections):
    tables = {"data": {"path": "none"}, "output": {"directory": "none"}, **sections}
    tables["training"] = {"precision": "float64"} | tables.get("training", {})
    return job_from_dict(tables)


def trained(job, shape, classes, exchange=None):
    """Return a network after some steps, what it was at the start, and outputs and gradient of
    the last step.
    """
    network = zoo.build(job, shape, classes, ROWS, exchange=exchange)
    network.initialize(3)
    start, random = network.parameters.copy(), np.random.default_rng(0)
    optimizer = Optimizer(job.optimizer, network.layout, network.dtype)
    for key in range(STEPS):
        inputs = random.standard_normal((ROWS, int(np.prod(shape))))
        labels = random.integers(0, classes, ROWS)
        network.backward(inputs, labels, ROWS, Step(training=True, key=key, first_row=7))
        gradient = network.gradient.copy()
        optimizer.step(network.parameters, network.gradient)
    outputs = network.evaluate(inputs, labels)[0].copy()
    return network, start, gradient, outputs


def assert_same(job, shape, ranks, classes=10):
    """Compare the whole network with its parts."""
    whole, start, gradient, outputs = trained(job, shape, classes)
    parts = play(ranks, lambda exchange: trained(job, shape, classes, exchange))
    networks = [each[0] for each in parts]
    np.testing.assert_array_equal(joined(networks, [each[1] for each in parts]), start)
    for own, same in (
        (joined(networks, [each[2] for each in parts]), gradient),
        (joined(networks, [n.parameters for n in networks]), whole.parameters),
        (joined(networks, [n.statistics for n in networks]), whole.statistics),
        *((each[3], outputs) for each in parts),
    ):
        np.testing.assert_allclose(own, same, rtol=1e-10, atol=1e-10)
    assert np.abs(gradient).max() > 1e-3


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("case", CASES)
def test_parts_are_the_whole(case, ranks):
    job = job_of(**CASES[case], optimizer={"name": "momentum", "learning_rate": 0.01})
    assert_same(job, (6, 6, 3), ranks)


REFUSED = [
    ({"hidden": [8, 7]}, 2, "layer 1, Dense 7.*a number of units that 2 divides"),
    ({"hidden": [2]}, 4, "layer 0, .*ense 2.*units that 4 divides"),
    ({"hidden": []}, 2, "a network without hidden layers"),
    (
        {"layers": [{"kind": "convolution", "filters": 6}, {"kind": "flatten"}, {"kind": "dense"}]},
        4,
        "layer 0, Convolution 3x3, 6.*filters that 4 divides",
    ),
    (
        {"layers": [{"kind": "convolution", "filters": 8, "groups": 4}, *BLOCKS[-2:]]},
        2,
        "one group of channels of the images",
    ),
    (
        {
            "layers": [
                {"kind": "convolution", "filters": 6},
                {"kind": "convolution", "filters": 6, "groups": 3},
                *BLOCKS[-2:],
            ]
        },
        2,
        "a number of groups that divides 2",
    ),
    (
        {"layers": [{"kind": "convolution", "filters": 2}, BLOCKS[2], *BLOCKS[-2:]]},
        2,
        "at least 2 channels on each rank",
    ),
    (
        {"layers": [BLOCKS[1], {"kind": "group_norm", "groups": 2}, *BLOCKS[-2:]]},
        4,
        "groups that 4 divides",
    ),
    (
        {
            "layers": [
                BLOCKS[1],
                {"kind": "local_response_normalization", "groups": 2},
                *BLOCKS[-2:],
            ]
        },
        4,
        "one group, or a number that 4 divides",
    ),
    ({"layers": [BLOCKS[5], *BLOCKS[-2:]]}, 2, "two ways whose outputs are both split"),
    (
        {"layers": [BLOCKS[1], {"kind": "separable", "filters": 8}, *BLOCKS[-2:]]},
        2,
        "layer 1, Separable.*layers that can be split",
    ),
    ({"layers": [{"kind": "gru", "units": 8}, BLOCKS[-1]]}, 2, "layer 0, GRU 8.*layers that can"),
]


@pytest.mark.parametrize(("network", "ranks", "said"), REFUSED, ids=lambda value: str(value)[-30:])
def test_what_cannot_be_split_is_refused(network, ranks, said):
    with pytest.raises(EnsyncError, match=rf"parallel.model = {ranks} .*{said}") as refused:
        zoo.build(job_of(network=network), (6, 6, 16), 10, ROWS, exchange=StandIn(ranks))
    assert "parallel.model" in refused.value.action


@pytest.mark.parametrize(
    ("network", "said"),
    [
        ({"hidden": [8]}, "for a network without convolutions"),
        ({"layers": [*CONVOLUTIONS[:2], *BLOCKS[-2:]]}, "without dense layers before the last"),
        (
            {"layers": [CONVOLUTIONS[0], DENSE[0], CONVOLUTIONS[1], *DENSE[2:]]},
            "layer 2, Batch normalization.*no parameters between",
        ),
    ],
    ids=["dense", "one dense", "normalised"],
)
def test_what_cannot_be_split_by_rows_is_refused(network, said):
    job = job_of(network=network, parallel={"convolutions": "data", "model": 2})
    with pytest.raises(EnsyncError, match=said):
        zoo.build(job, (6, 6, 3), 10, ROWS, exchange=StandIn(2))


def test_ranks_without_rows_of_their_own_take_part(monkeypatch):
    """One row on four ranks: three convolve nothing."""
    monkeypatch.setitem(globals(), "ROWS", 1)
    assert_same(job_of(**CASES["rows"]), (6, 6, 3), 4)


@pytest.mark.parametrize(
    ("network", "shape", "ranks"),
    [
        ({"name": "parashar-cnn"}, (28, 28, 1), 4),
        ({"name": "vgg"}, (32, 32, 3), 4),
        ({"name": "alexnet", "width": 0.25}, (64, 64, 3), 2),
        ({"name": "airbench", "filters": [8, 8], "depth": 8}, (32, 32, 3), 2),
    ],
    ids=lambda value: value["name"] if isinstance(value, dict) else "",
)
def test_networks_of_the_zoo_are_split(network, shape, ranks):
    """Every array of weights but the last bias is cut, under its own name."""
    job = job_of(network=network, training={"precision": "float32"})
    with counted():
        part = zoo.build(job, shape, 10, 2, exchange=StandIn(ranks))
        whole = zoo.build(job, shape, 10, 2)
    assert [name for name, _ in part.layout] == [name for name, _ in whole.layout]
    last = whole.layout[-1][1].size * (len(whole.layout[-1][1].shape) == 1)
    assert len(part.parameters) - last == (len(whole.parameters) - last) / ranks
    assert part.parts.parameters.size == len(whole.parameters)


BLOCKED = [slice(0, 12), slice(0, 4), slice(4, 8), slice(8, 12)]  # all channels, and groups


def test_a_response_normalisation_in_groups_is_one_of_each_group():
    random = np.random.default_rng(0)
    values, slopes = random.standard_normal((2, 3, 4, 4, 12))
    rest = {"n": 3, "alpha": 0.3}
    layers = [LocalResponseNormalization(groups=3, **rest)]
    layers += [LocalResponseNormalization(**rest) for _ in range(3)]
    found = []
    for layer, part in zip(layers, BLOCKED, strict=True):
        workspace = Workspace()
        layer.build((4, 4, part.stop - part.start))
        layer.allocate(3, np.dtype(float), workspace, False)
        own, slope = (np.ascontiguousarray(each[..., part]) for each in (values, slopes))
        found.append((layer.forward(own, Step()), layer.backward(slope, Step())))
    for whole, *parts in zip(*found, strict=True):
        np.testing.assert_array_equal(whole, np.concatenate(parts, axis=-1))
    with pytest.raises(EnsyncError, match="12 channels in 5 groups"):
        LocalResponseNormalization(groups=5).build((4, 4, 12))
