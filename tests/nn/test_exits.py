"""Networks with exits beside plain numpy: loss, where images leave, accuracy and arithmetic."""

import numpy as np
import pytest

from ensync.core.config.job import job_from_dict
from ensync.nn.early import confidences
from ensync.nn.flat import views
from ensync.nn.layers.base import Step
from ensync.nn.models import zoo
from ensync.nn.step_metrics import CORRECT, LOSS_SUM
from ensync.runs.exits import exit_figures, no_counts
from ensync.training.batches import BatchLoader
from ensync.training.exits import count_exits, thresholds_of

SHAPE, CLASSES, ROWS = (3, 2, 1), 4, 50
WEIGHTS = 0.5, 2.0
LAYERS = [
    {"kind": "dense", "units": 9, "activation": "tanh"},
    {
        "kind": "exit",
        "weight": WEIGHTS[0],
        "layers": [{"kind": "dense", "units": 5, "activation": "tanh"}, {"kind": "dense"}],
    },
    {"kind": "dense", "units": 7, "activation": "relu"},
    {"kind": "exit", "weight": WEIGHTS[1], "layers": [{"kind": "dense"}]},
    {"kind": "dense"},
]
WORK = [6 * 9 + 9 * 5 + 5 * 4, 6 * 9 + 9 * 5 + 5 * 4 + 9 * 7 + 7 * 4]
WORK.append(WORK[-1] + 7 * 4)


def made(**evaluation):
    """Return a network in float64 whose answers are of all confidences, images and labels."""
    tables = {
        "network": {"layers": LAYERS},
        "training": {"precision": "float64"},
        "evaluation": evaluation,
    }
    job = job_from_dict({"data": {"path": "none"}, "output": {"directory": "none"}, **tables})
    network = zoo.build(job, SHAPE, CLASSES, 8)
    network.initialize(1)
    random = np.random.default_rng(2)
    network.parameters += random.standard_normal(len(network.parameters))
    images = random.integers(0, 256, (ROWS, 6), np.uint8)
    return network, images, random.integers(0, CLASSES, ROWS)


def numpy_answers(network, values):
    """Return the logits of both exits and of the end."""
    p = views(network.parameters, network.layout)

    def dense(values, name):
        return values @ p[f"{name}.weights"] + p[f"{name}.bias"]

    first = np.tanh(dense(values, "0"))
    second = np.maximum(dense(first, "2"), 0)
    exits = dense(np.tanh(dense(first, "1.0")), "1.1"), dense(second, "3.0")
    return [*exits, dense(second, "4")]


def softmax(logits):
    shares = np.exp(logits)
    return shares / shares.sum(1, keepdims=True)


def numpy_confidences(logits, measure):
    shares = softmax(logits)
    entropy = -(shares * np.log(shares)).sum(1) / np.log(CLASSES)
    return shares.max(1) if measure == "probability" else 1 - entropy


def normalised(images):
    return (images - 128.0) / 64.0


def loader_of(images, labels):
    return BatchLoader(images, labels, np.full(6, 128.0), np.full(6, 1 / 64.0))


def test_the_loss_is_the_weighted_sum_and_has_its_slope():
    network, images, labels = made()
    values, step = normalised(images)[:8], Step(training=True)
    network.backward(values, labels[:8], 8, step)
    losses = [
        -np.log(softmax(logits)[np.arange(8), labels[:8]]).sum()
        for logits in numpy_answers(network, values)
    ]
    expected = losses @ np.array([*WEIGHTS, 1.0])
    assert network.metrics[LOSS_SUM] == pytest.approx(expected, rel=1e-12)
    right = numpy_answers(network, values)[-1].argmax(1) == labels[:8]
    assert network.metrics[CORRECT] == right.sum(), "of the last layer's outputs"
    gradient, start = network.gradient.copy(), network.parameters.copy()
    for i in range(len(start)):
        found = []
        for sign in (1, -1):
            network.parameters[:] = start
            network.parameters[i] += sign * 1e-6
            network.backward(values, labels[:8], 8, step)
            found.append(network.metrics[LOSS_SUM] / 8)
        assert gradient[i] == pytest.approx((found[0] - found[1]) / 2e-6, rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("measure", ["probability", "entropy"])
@pytest.mark.parametrize("threshold", [None, 0.0, 0.6, 1.0])
def test_images_leave_at_the_first_exit_that_is_sure(threshold, measure):
    given = {} if threshold is None else {"exit_threshold": threshold}
    network, images, _ = made(exit_confidence=measure, **given)
    values = normalised(images)[:8]
    expected = (answers := numpy_answers(network, values))[-1].copy()
    for logits in reversed(answers[:-1]):
        sure = numpy_confidences(logits, measure) >= (np.inf if threshold is None else threshold)
        expected[sure] = logits[sure]
    np.testing.assert_allclose(network.forward(values, Step()), expected, rtol=1e-11)
    for logits in answers:
        found = confidences(logits, measure)
        np.testing.assert_allclose(found, numpy_confidences(logits, measure), rtol=1e-10)


def test_layers_compute_those_alone_that_stay(monkeypatch):
    network, images, _ = made(exit_threshold=0.9)
    values, seen = normalised(images)[:8], []
    last = network.layers[-1]
    plain = last.forward
    monkeypatch.setattr(last, "forward", lambda x, step: seen.append(len(x)) or plain(x, step))
    network.forward(values, Step())
    sure = [numpy_confidences(a, "probability") >= 0.9 for a in numpy_answers(network, values)]
    assert seen == [8 - (sure[0] | sure[1]).sum()] and 0 < seen[0] < 8
    assert network.forward(values[:0], Step()).shape == (0, CLASSES)


@pytest.mark.parametrize("measure", ["probability", "entropy"])
def test_accuracy_and_arithmetic_for_each_threshold(measure):
    network, images, labels = made(exit_threshold=0.77, exit_confidence=measure)
    loader, counts = loader_of(images, labels), no_counts(network, 1)
    for rank in range(3):
        counts[0] += count_exits(network, loader, 3, rank, False)
    rows = exit_figures(network, counts)
    answers = numpy_answers(network, normalised(images))
    assert [row.threshold for row in rows][-1] is None and 0.77 in thresholds_of(network.early)
    for row in rows:
        place = np.full(ROWS, 2)
        for number in (1, 0):
            threshold = np.inf if row.threshold is None else row.threshold
            place[numpy_confidences(answers[number], measure) >= threshold] = number
        chosen = np.stack(answers)[place, np.arange(ROWS)].argmax(1)
        assert row.accuracy == pytest.approx((chosen == labels).mean())
        assert row.multiply_adds == pytest.approx(np.mean([WORK[each] for each in place]))
        assert row.shares == pytest.approx(np.bincount(place, minlength=3) / ROWS)
    assert len({row.accuracy for row in rows}) > 2 and len({tuple(row.shares) for row in rows}) > 4


def test_a_network_without_exits_has_no_rows():
    job = job_from_dict({"data": {"path": "none"}, "output": {"directory": "none"}})
    network = zoo.build(job, SHAPE, CLASSES, 8)
    assert exit_figures(network, no_counts(network, 1)) == []
