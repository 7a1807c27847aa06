"""Every pair of layer kinds, and every kind at the start of every composite.

Each has the slope of its loss, or is refused in one sentence.
"""

import numpy as np
import pytest

from ensync.core.config.job import job_from_dict
from ensync.core.config.layers import KINDS
from ensync.core.errors import EnsyncError
from ensync.nn.layers.base import Step
from ensync.nn.models import zoo
from ensync.nn.step_metrics import LOSS_SUM
from ensync.runs.describe import layer_table

SHAPE, CLASSES = (5, 4, 2), 3
NORM = {"kind": "batch_normalization"}
SETTINGS = {  # what a kind needs beside its name
    "dense": {"units": 4, "activation": "tanh"},
    "convolution": {"filters": 2, "activation": "tanh"},
    "separable": {"filters": 2},
    "max_pooling": {"stride": 1, "padding": "same"},
    "average_pooling": {"stride": 1, "padding": "same"},
    "scaling": {"factor": -0.7},
    "dropout": {"rate": 0.3},
    "group_norm": {"groups": 1},
    "local_response_normalization": {"n": 3, "alpha": 0.3},
    "gru": {"units": 3},
    "lstm": {"units": 3},
    "residual": {"layers": [NORM]},
    "exit": {"layers": [{"kind": "dense"}], "weight": 0.7},
    "coarse_to_fine": {"groups": [[0, 2], [1, 2]], "fine": [{"kind": "dense", "units": 3}]},
    "parallel": {"branches": [[NORM], [{"kind": "dropout", "rate": 0.2}], []]},
}
ON_IMAGES = {
    "convolution",
    "depthwise",
    "separable",
    "max_pooling",
    "average_pooling",
    "global_average_pooling",
    "gru",
    "lstm",
}
TO_ROWS = {"dense", "flatten", "global_average_pooling", "gru", "lstm", "coarse_to_fine"}


def layer(kind, **settings):
    return {"kind": kind, **SETTINGS.get(kind, {}), **settings}


def job_of(*layers):
    return job_from_dict(
        {
            "data": {"path": "none"},
            "output": {"directory": "none"},
            "network": {"layers": [*layers, {"kind": "dense"}]},
            "training": {"precision": "float64"},
        }
    )


def has_the_slope_of_its_loss(*layers, rows=(1, 5)):
    network = zoo.build(job_of(*layers), SHAPE, CLASSES, max(rows))
    random = np.random.default_rng(4)
    network.initialize(1)
    network.parameters += 0.1 * random.standard_normal(len(network.parameters))
    start, step = network.parameters.copy(), Step(training=True, key=7)
    for count in rows:
        inputs, labels = (
            random.standard_normal((count, int(np.prod(SHAPE)))),
            random.integers(0, CLASSES, count),
        )

        def loss(values, inputs=inputs, labels=labels):
            network.parameters[:] = values
            network.backward(inputs, labels, 1, step)
            return network.metrics[LOSS_SUM]

        loss(start)
        gradient = network.gradient.copy()
        for _ in range(2):
            direction = random.standard_normal(len(start))
            slope = (loss(start + 1e-6 * direction) - loss(start - 1e-6 * direction)) / 2e-6
            assert gradient @ direction == pytest.approx(slope, rel=1e-4, abs=1e-7), (layers, count)


@pytest.mark.timeout(300)  # the first compiles
@pytest.mark.parametrize("first", KINDS)
def test_pairs(first):
    for second in KINDS:
        if second in ON_IMAGES and first in TO_ROWS:
            with pytest.raises(EnsyncError, match="an image"):
                zoo.build(job_of(layer(first), layer(second)), SHAPE, CLASSES, 2)
        else:
            has_the_slope_of_its_loss(layer(first), layer(second))


def around(kind):
    """Composites that begin with a layer of this kind, on one way or the other, nested or not."""
    begin, to_row = layer(kind), [{"kind": "flatten"}]
    end = [*to_row, {"kind": "dense", "units": 4}]
    residual = layer("residual", layers=[begin, *end, NORM], shortcut=end)
    return {
        "main": residual,
        "alone": layer("residual", layers=[begin], shortcut=[begin], activation="relu"),
        "last": layer("residual", layers=[NORM, begin], shortcut=[begin]),
        "shortcut": layer(
            "residual", layers=[*end, NORM], shortcut=[begin, *end], activation="relu"
        ),
        "branch": layer("parallel", branches=[[begin, *to_row], to_row, [begin, *to_row]]),
        "residual in residual": layer("residual", layers=[residual, NORM], shortcut=[residual]),
        "parallel in residual": layer(
            "residual",
            layers=[layer("parallel", branches=[[begin, *to_row]]), *end[1:], NORM],
            shortcut=end,
        ),
        "residual in parallel": layer("parallel", branches=[[residual], [begin, *to_row]]),
    }


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"exit"}))
def test_composites_first_and_last(kind):
    for composite in around(kind).values():
        has_the_slope_of_its_loss(composite, rows=(3,))
        has_the_slope_of_its_loss(layer("convolution"), composite, rows=(3,))


@pytest.mark.timeout(300)
def test_gelu_behind_every_kind_that_has_an_activation():
    """Behind a sum of its own, on the way of a normalisation, and where it comes second."""
    kinds = [name for name, kind in KINDS.items() if "activation" in kind.model_fields]
    assert "dense" in kinds and "residual" in kinds
    for kind in kinds:
        has_the_slope_of_its_loss(NORM, layer(kind, activation="gelu"))
    for inner in (layer("convolution", activation="gelu"), {**NORM, "activation": "gelu"}):
        has_the_slope_of_its_loss(layer("residual", layers=[inner], activation="gelu"))


def test_exits_are_between_the_layers_of_the_network():
    for layers in ([layer("residual", layers=[NORM, layer("exit")])], [layer("exit", layers=[])]):
        with pytest.raises(EnsyncError, match="kind 'exit' within another|at least 1 item"):
            job_of(*layers)
    with pytest.raises(EnsyncError, match="an exit with 4 outputs for 3 classes"):
        head = layer("exit", layers=[layer("dense")])
        zoo.build(job_of(head), SHAPE, CLASSES, 2)


def test_what_a_layer_may_leave_out():
    """A scale of batch normalisation, and a bias of a dense layer."""
    plain = {**NORM, "scale": False}
    has_the_slope_of_its_loss(
        plain, layer("dense", use_bias=False), {**plain, "activation": "gelu"}
    )
    network = zoo.build(job_of(plain, layer("dense", use_bias=False)), SHAPE, CLASSES, 2)
    assert [name for name, _ in network.layout] == ["0.beta", "1.weights", "2.weights", "2.bias"]


def test_the_first_layer_may_be_a_sum_of_a_normalised_and_a_convolved_way():
    convolution = layer("convolution")
    for main in (
        [NORM],
        [layer("max_pooling"), NORM],
        [layer("average_pooling"), NORM],
        [layer("dropout"), NORM],
    ):
        has_the_slope_of_its_loss(layer("residual", layers=main, shortcut=[convolution]), rows=(3,))


def test_the_layer_table_tells_where_an_image_is_flattened():
    lines = "\n".join(
        layer_table(
            job_of(
                layer("convolution"),
                layer("parallel", branches=[[layer("dense")], [layer("flatten"), layer("dense")]]),
            ),
            SHAPE,
            CLASSES,
        )
    )
    assert (
        lines.count("    Flatten, dense 4, tanh  ") == 1
        and lines.count("    Dense 4, tanh  ") == 1
        and "\nDense 3 " in lines
    )
