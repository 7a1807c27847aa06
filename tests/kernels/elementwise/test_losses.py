"""Losses against numpy, finite differences and PyTorch."""

import naive
import numpy as np
import pytest

from ensync.kernels.elementwise import losses


def batch(n, classes, dtype=np.float64):
    random = np.random.default_rng(n + classes)
    return random.normal(scale=3, size=(n, classes)).astype(dtype), random.integers(0, classes, n)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "n, classes", [(0, 10), (1, 2), (65, 10), pytest.param(500, 100, marks=pytest.mark.compiled)]
)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy(n, classes, smoothing, dtype):
    logits, labels = batch(n, classes, dtype)
    gradient = np.full_like(logits, np.nan)
    loss, correct = losses.softmax_cross_entropy(logits, labels, 0.5, smoothing, gradient)
    exact = logits.astype(float)
    assert loss == pytest.approx(
        naive.cross_entropy(exact, labels, smoothing) if n else 0, rel=1e-6, abs=1e-6
    )
    assert correct == (logits.argmax(axis=1) == labels).sum()
    target = naive.one_hot(
        labels, classes, smoothing / classes, 1 - smoothing + smoothing / classes
    )
    if n:
        np.testing.assert_allclose(
            gradient, (naive.softmax(exact) - target) * 0.5, rtol=0, atol=1e-6
        )


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_large_logits_lose_no_digits_of_a_small_loss(smoothing):
    logits, labels = batch(65, 10, np.float32)
    logits += np.float32(1e4)
    loss, _ = losses.softmax_cross_entropy(logits, labels, 1.0, smoothing, np.empty_like(logits))
    assert loss == pytest.approx(
        naive.cross_entropy(logits.astype(float), labels, smoothing), rel=1e-6
    )


def test_gradients_by_finite_differences():
    logits, labels = batch(6, 5)
    gradient = np.empty_like(logits)
    losses.softmax_cross_entropy(logits, labels, 1.0, 0.2, gradient)
    differences = naive.finite_differences(
        lambda z: naive.cross_entropy(z, labels, 0.2), logits.copy()
    )
    np.testing.assert_allclose(gradient, differences, rtol=0, atol=1e-7)
    losses.squared_error(logits, labels, -1.0, 1.0, 0.5, 1.0, gradient)
    differences = naive.finite_differences(
        lambda z: naive.squared_error(z, labels, -1.0, 1.0, 0.5), logits.copy()
    )
    np.testing.assert_allclose(gradient, differences, rtol=0, atol=1e-7)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_squared_error(dtype):
    outputs, labels = batch(130, 10, dtype)
    gradient = np.empty_like(outputs)
    loss, correct = losses.squared_error(outputs, labels, 0.1, 0.9, 0.5, 1 / 130, gradient)
    assert loss == pytest.approx(
        naive.squared_error(outputs.astype(float), labels, 0.1, 0.9, 0.5), rel=1e-6
    )
    assert correct == (outputs.argmax(axis=1) == labels).sum()
    np.testing.assert_allclose(
        gradient, (outputs - naive.one_hot(labels, 10, 0.1, 0.9)) / 130, rtol=0, atol=1e-6
    )


def test_extreme_logits_stay_finite_and_nan_is_seen():
    logits = np.array([[1e4, -1e4], [-1e4, 1e4]], np.float32)
    gradient = np.empty_like(logits)
    loss, correct = losses.softmax_cross_entropy(logits, np.array([0, 0]), 1.0, 0.0, gradient)
    assert loss == pytest.approx(2e4) and correct == 1 and np.isfinite(gradient).all()
    logits[0, 1] = np.nan
    loss, _ = losses.softmax_cross_entropy(logits, np.array([0, 0]), 1.0, 0.0, gradient)
    assert np.isnan(loss) and np.isnan(gradient[0]).all()


def test_ties_go_to_the_smallest_label():
    outputs = np.zeros((2, 3), np.float32)
    assert losses.softmax_cross_entropy(outputs, np.array([0, 1]), 1.0, 0.0, outputs.copy())[1] == 1


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.compiled
def test_cross_entropy_is_pytorchs(smoothing):
    torch = pytest.importorskip("torch")
    logits, labels = batch(32, 10, np.float32)
    leaf = torch.tensor(logits, requires_grad=True)
    expected = torch.nn.functional.cross_entropy(
        leaf, torch.tensor(labels), label_smoothing=smoothing
    )
    expected.backward()
    gradient = np.empty_like(logits)
    loss, _ = losses.softmax_cross_entropy(logits, labels, 1 / 32, smoothing, gradient)
    assert loss / 32 == pytest.approx(expected.item(), rel=1e-6)
    np.testing.assert_allclose(gradient, leaf.grad.numpy(), rtol=0, atol=1e-7)
