"""A classifier in two levels beside plain numpy, and its groups beside scipy's clustering."""

import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from ensync.core.config.job import job_from_dict
from ensync.core.errors import EnsyncError
from ensync.core.statistics.grouping import coarse_classes, similarity
from ensync.nn.flat import views
from ensync.nn.layers.base import Step
from ensync.nn.models import zoo
from ensync.nn.step_metrics import LOSS_SUM

GROUPS = [[0, 2], [1, 2, 3], [4]]  # class 2 is in two


def made(groups=GROUPS, classes=5, **training):
    layers = [
        {"kind": "dense", "units": 6, "activation": "tanh"},
        {
            "kind": "coarse_to_fine",
            "groups": groups,
            "fine": [{"kind": "dense", "units": 4, "activation": "tanh"}],
        },
    ]
    tables = {"network": {"layers": layers}, "training": {"precision": "float64"} | training}
    job = job_from_dict({"data": {"path": "none"}, "output": {"directory": "none"}, **tables})
    return zoo.build(job, (2, 3, 1), classes, 9)


def softmax(logits):
    shares = np.exp(logits)
    return shares / shares.sum(1, keepdims=True)


def test_probabilities_are_those_of_groups_times_those_within():
    network, random = made(), np.random.default_rng(1)
    network.initialize(1)
    network.parameters += 0.5 * random.standard_normal(len(network.parameters))
    p = views(network.parameters, network.layout)
    images, labels = random.standard_normal((9, 6)), random.integers(0, 5, 9)

    def dense(values, name):
        return values @ p[f"{name}.weights"] + p[f"{name}.bias"]

    hidden = np.tanh(dense(images, "0"))
    coarse, expected = softmax(dense(hidden, "1.0.0")), np.zeros((9, 5))
    for number, group in enumerate(GROUPS):
        fine = softmax(dense(np.tanh(dense(hidden, f"1.{number + 1}.0")), f"1.{number + 1}.1"))
        expected[:, group] += coarse[:, number : number + 1] * fine
    np.testing.assert_allclose(expected.sum(1), 1)
    found = network.forward(images, Step())
    np.testing.assert_allclose(np.exp(found), expected, rtol=1e-11)
    network.backward(images, labels, 9, Step(training=True))
    own = -np.log(expected[np.arange(9), labels]).sum()
    assert network.metrics[LOSS_SUM] == pytest.approx(own, rel=1e-11)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"groups": [[0, 1], [3, 4]]}, "groups of the classes 0, 1, 3, 4"),
        ({"groups": [[0, 1], [2]]}, "3 outputs for 5 classes"),
        ({"loss": "mean_squared_error"}, "ends in '3 groups of classes'"),
    ],
)
def test_what_is_no_classifier_is_refused(given, said):
    with pytest.raises(EnsyncError, match=said):
        made(**given)


@pytest.mark.parametrize("number", range(1, 9))
def test_groups_are_those_of_average_linkage(number):
    confusion = np.random.default_rng(number).integers(0, 40, (8, 8)) + 200 * np.eye(8, dtype=int)
    apart = 1 - similarity(confusion)
    np.fill_diagonal(apart, 0)
    labels = fcluster(linkage(squareform(apart), "average"), number, "maxclust")
    expected = sorted([np.flatnonzero(labels == label).tolist() for label in set(labels)])
    assert coarse_classes(confusion, number) == expected
