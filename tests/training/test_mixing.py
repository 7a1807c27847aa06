"""MixUp and CutMix, against PyTorch in float64 and by their definitions."""

import numpy as np
import pytest
from training.test_training_features import epochs, make_job, make_trainee

from ensync.training.mixing import mixing_of
from ensync.training.reducers import Part
from ensync.training.runners import MiniBatchRunner

SHAPE = (5, 4, 1)
BOTH = {"mixup": 0.7, "cutmix": 1.2}
LOSSES = [
    {},
    {"label_smoothing": 0.2},
    {"loss": "mean_squared_error", "targets": [0.1, 0.9]},
]


def mixed(images, mixing):
    """Images (rows, height, width) mixed with their neighbours, one by one."""
    found = images.copy()
    for row in range(len(images)):
        if mixing.box is None:
            found[row] = (1 - mixing.share) * images[row] + mixing.share * images[row - 1]
        else:
            top, bottom, left, right = mixing.box
            found[row, top:bottom, left:right] = images[row - 1, top:bottom, left:right]
    return found


def torch_gradient(trainee, rows, mixing):
    """Loss sum and gradient of a perceptron for these rows, whose targets are mixed."""
    torch = pytest.importorskip("torch")
    training = trainee.job.training
    pixels = trainee.loader.images[rows].reshape(-1, *SHAPE[:2]).astype(float)
    images = torch.from_numpy(mixed((pixels - 128) / 64, mixing)).reshape(len(rows), -1)
    first, second = (layer for layer in trainee.network.layers if hasattr(layer, "weights"))
    parameters = [
        torch.from_numpy(values.copy()).requires_grad_()
        for values in (first.weights, first.bias, second.weights, second.bias)
    ]
    w1, b1, w2, b2 = parameters
    outputs = torch.relu(images @ w1 + b1) @ w2 + b2
    own = torch.nn.functional.one_hot(torch.from_numpy(trainee.loader.labels[rows]), 4).double()
    other = torch.roll(own, 1, 0)
    if training.loss == "cross_entropy":
        target = (1 - mixing.share) * own + mixing.share * other
        loss = torch.nn.functional.cross_entropy(
            outputs, target, label_smoothing=training.label_smoothing, reduction="sum"
        )
    else:
        low, high = training.targets
        errors = [(outputs - low - (high - low) * each) ** 2 for each in (own, other)]
        loss = ((1 - mixing.share) * errors[0] + mixing.share * errors[1]).mean(1).sum()
    (loss / len(rows)).backward()
    larger = own if mixing.share <= 0.5 else other
    correct = int((outputs.argmax(1) == larger.argmax(1)).sum())
    return loss.item(), torch.cat([p.grad.ravel() for p in parameters]).numpy(), correct


@pytest.mark.parametrize("training", LOSSES, ids=lambda t: "-".join(t) or "plain")
@pytest.mark.parametrize("settings", [{"mixup": 0.7}, {"cutmix": 1.2}], ids=lambda s: "".join(s))
def test_gradients_equal_pytorchs(settings, training):
    trainee = make_trainee(augmentation=settings, training=training)
    runner, rows = MiniBatchRunner(trainee), np.random.default_rng(1).permutation(50)[:20]
    for step in range(4):
        trainee.optimizer.steps = step
        mixing = mixing_of(trainee.job.augmentation, trainee.job.training.seed, 0, SHAPE, 0, step)
        runner._compute(rows, 0, trainee.network, Part(1, 0))
        loss, gradient, correct = torch_gradient(trainee, rows, mixing)
        assert trainee.network.metrics[0] == pytest.approx(loss, rel=1e-9)
        assert trainee.network.metrics[1] == correct
        np.testing.assert_allclose(trainee.network.gradient, gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("count,size", [(1, 7), (2, 512), (3, 6), (8, 5)])
def test_any_ranks_and_slices_compute_the_same(count, size):
    """Of a batch of 20, where some parts are empty."""
    changes = BOTH | {"flip": True, "rotation": 20, "crop": 1}
    whole, parts = (
        make_trainee(augmentation=changes, training={"slice": each}) for each in (512, size)
    )
    rows = np.random.default_rng(1).permutation(50)[:20]
    for step in range(3):
        for trainee in (whole, parts):
            trainee.optimizer.steps = step
        MiniBatchRunner(whole)._compute(rows, 0, whole.network, Part(1, 0))
        total = np.zeros_like(parts.network.message)
        for index in range(count):
            MiniBatchRunner(parts)._compute(rows, 0, parts.network, Part(count, index))
            total += parts.network.message
        np.testing.assert_allclose(total, whole.network.message, rtol=1e-9, atol=1e-12)


def test_mixing_ends_with_the_other_changes():
    assert np.array_equal(
        epochs(make_trainee(augmentation=BOTH | {"epochs": 1}), 1).network.parameters,
        epochs(make_trainee(augmentation=BOTH), 1).network.parameters,
    )
    job = make_job(augmentation=BOTH | {"epochs": 1})
    assert (
        mixing_of(job.augmentation, job.training.seed, 0, SHAPE, 0, 9)
        and mixing_of(job.augmentation, job.training.seed, 0, SHAPE, 1, 9) is None
    )


@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_shares_follow_the_beta_distribution(alpha):
    """Mean 1/2, variance 1 / (4 (2 alpha + 1)); both kinds are drawn evenly."""
    job = make_job(augmentation={"mixup": alpha, "cutmix": 1.0})
    drawn = [
        mixing_of(job.augmentation, job.training.seed, 0, (32, 32, 3), 0, step)
        for step in range(2000)
    ]
    shares = np.array([each.share for each in drawn if each.box is None])
    assert 900 < len(shares) < 1100
    assert abs(shares.mean() - 0.5) < 0.05
    assert shares.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)
    boxes = np.array([each.box for each in drawn if each.box is not None])
    assert boxes.min() == 0 and boxes.max() == 32
    areas = (boxes[:, 1] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 2]) / 1024
    assert np.array_equal(areas, [each.share for each in drawn if each.box is not None])
    assert mixing_of(job.augmentation, job.training.seed, 1, SHAPE, 0, 0).share != drawn[0].share
