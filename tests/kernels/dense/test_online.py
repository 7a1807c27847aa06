"""One sample per step against the obvious loop."""

import naive
import numba
import numpy as np
import pytest

from ensync.kernels.dense.online import (
    CROSS_ENTROPY,
    SQUARED_ERROR,
    Layers,
    Loss,
    Samples,
    train_online,
)
from ensync.kernels.dense.online_layout import BLOCK
from ensync.kernels.elementwise.activations import ACTIVATIONS

# Widths (odd ones, whole vectors, more than one piece of rows), activations, channels, and whether
# the loss is cross-entropy.
NETWORKS = [
    pytest.param(
        (784, 100, 100, 10), ("tanh", "tanh", "tanh"), 1, False, marks=pytest.mark.compiled
    ),
    ((7, 3), ("identity",), 1, True),
    pytest.param((208, 33, 5), ("relu", "identity"), 4, True, marks=pytest.mark.compiled),
    ((16, 16, 32, 15, 2), ("logistic", "relu", "tanh", "logistic"), 1, False),
    pytest.param((450, 9, 37), ("tanh", "logistic"), 1, False, marks=pytest.mark.compiled),
    ((210, 3, 2), ("relu", "identity"), 3, True),
]


def problem(sizes, channels, count, dtype, samples=90):
    """Start values, images, labels, order and normalisation."""
    random = np.random.default_rng(5)
    layers = zip(sizes[:-1], sizes[1:], strict=True)
    parameters = np.concatenate(
        [
            random.normal(scale=(height + 1) ** -0.5, size=(height + 1) * width)
            for height, width in layers
        ]
    )
    images = random.integers(0, 256, (samples, sizes[0]), dtype=np.uint8)
    labels, rows = random.integers(0, sizes[-1], samples), random.integers(0, samples, count)
    mean, inverse_std = random.uniform(110, 140, channels), random.uniform(0.01, 0.02, channels)
    return (
        parameters.astype(dtype),
        images,
        labels,
        rows,
        mean.astype(dtype),
        inverse_std.astype(dtype),
    )


def train(
    parameters,
    sizes,
    activations,
    cross_entropy,
    images,
    labels,
    rows,
    mean,
    inverse_std,
    rate=0.05,
):
    """Call the kernel; its last code is not used with cross-entropy."""
    codes = np.array([ACTIVATIONS[name] for name in activations])
    if cross_entropy:
        codes[-1] = 99
    kind = CROSS_ENTROPY if cross_entropy else SQUARED_ERROR
    return train_online(
        parameters,
        Layers(np.array(sizes), codes),
        Loss(kind, -0.9, 0.9, 0.3),
        Samples(images, labels, rows, mean, inverse_std),
        rate,
    )


@pytest.mark.parametrize("dtype, tolerance", [(np.float64, 1e-11), (np.float32, 2e-4)])
@pytest.mark.parametrize("sizes, activations, channels, cross_entropy", NETWORKS)
def test_against_the_obvious_loop(sizes, activations, channels, cross_entropy, dtype, tolerance):
    parameters, images, labels, rows, mean, inverse_std = problem(
        sizes, channels, 3 * BLOCK + 5, dtype
    )
    expected = parameters.astype(np.float64)
    inputs = ((images[rows].reshape(len(rows), -1, channels) - mean) * inverse_std).reshape(
        len(rows), -1
    )
    exact = naive.train_online(
        expected, sizes, activations, cross_entropy, inputs, labels[rows], 0.05, -0.9, 0.9, 0.3
    )
    found = train(
        parameters, sizes, activations, cross_entropy, images, labels, rows, mean, inverse_std
    )
    np.testing.assert_allclose(parameters, expected, rtol=0, atol=tolerance)
    assert found[0] == pytest.approx(exact[0], rel=tolerance) and found[1] == exact[1]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.compiled
def test_two_calls_cut_at_whole_blocks_are_one_call_to_the_bit(dtype):
    sizes, activations = (147, 33, 5), ("tanh", "identity")
    whole, images, labels, rows, mean, inverse_std = problem(sizes, 3, 3 * BLOCK + 5, dtype)
    parts = whole.copy()
    once = train(whole, sizes, activations, True, images, labels, rows, mean, inverse_std)
    first = train(parts, sizes, activations, True, images, labels, rows[:BLOCK], mean, inverse_std)
    second = train(parts, sizes, activations, True, images, labels, rows[BLOCK:], mean, inverse_std)
    assert np.array_equal(whole, parts)
    assert once == (pytest.approx(first[0] + second[0]), first[1] + second[1])


def test_calls_cut_anywhere_agree_to_rounding():
    sizes, activations = (20, 17, 4), ("logistic", "tanh")
    whole, images, labels, rows, mean, inverse_std = problem(sizes, 1, 70, np.float64)
    parts = whole.copy()
    train(whole, sizes, activations, False, images, labels, rows, mean, inverse_std)
    for start, stop in ((0, 1), (1, 33), (33, 33), (33, 70)):
        train(parts, sizes, activations, False, images, labels, rows[start:stop], mean, inverse_std)
    np.testing.assert_allclose(parts, whole, rtol=0, atol=1e-12)


def test_no_samples_change_nothing():
    parameters, images, labels, rows, mean, inverse_std = problem((20, 4), 1, 0, np.float32)
    before = parameters.copy()
    assert train(
        parameters, (20, 4), ("tanh",), False, images, labels, rows, mean, inverse_std
    ) == (0.0, 0)
    assert np.array_equal(parameters, before)


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="one CPU")
@pytest.mark.compiled
def test_threads_change_no_bit():
    sizes, activations = (784, 300, 10), ("relu", "tanh")
    one, images, labels, rows, mean, inverse_std = problem(sizes, 1, 100, np.float32)
    two, threads = one.copy(), numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        first = train(one, sizes, activations, True, images, labels, rows, mean, inverse_std)
        numba.set_num_threads(2)
        second = train(two, sizes, activations, True, images, labels, rows, mean, inverse_std)
    finally:
        numba.set_num_threads(threads)
    assert first == second and np.array_equal(one, two)


def test_a_network_that_diverges_says_so_with_its_loss():
    parameters, images, labels, rows, mean, inverse_std = problem((20, 8, 4), 1, 64, np.float32)
    loss, _ = train(
        parameters,
        (20, 8, 4),
        ("identity", "identity"),
        False,
        images,
        labels,
        rows,
        mean,
        inverse_std,
        rate=1e9,
    )
    assert not np.isfinite(loss)
