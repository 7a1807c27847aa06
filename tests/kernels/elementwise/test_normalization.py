"""Batch normalisation against obvious numpy and finite differences; its sums may be added over
ranks.
"""

import naive
import numpy as np
import pytest

from ensync.kernels import threads
from ensync.kernels.elementwise import normalization as n
from ensync.kernels.elementwise.activations import ACTIVATIONS

EPSILON = 1e-3


def case(rows, c, dtype):
    random = np.random.default_rng(rows + c)
    values = (random.standard_normal((rows, c)) * 2 + 1).astype(dtype)
    return (
        values,
        random.standard_normal((rows, c)).astype(dtype),
        (random.random(c) + 0.5).astype(dtype),
        random.standard_normal(c).astype(dtype),
    )


def sums_of(kernel, arrays, c, *options):
    sums = np.full((2, c), np.nan)
    kernel(
        *arrays, *options, np.full((n.blocks(len(arrays[0])), 3, c), np.nan, arrays[0].dtype), sums
    )
    return sums


def coefficients(sums, rows, gamma, beta):
    affine, (mean, variance) = np.empty((3, gamma.size), gamma.dtype), np.empty((2, gamma.size))
    n.batch_coefficients(sums, rows, gamma, beta, EPSILON, affine, mean, variance)
    return affine, mean, variance


def both_directions(values, gradient, gamma, beta, name):
    (rows, c), code = values.shape, ACTIVATIONS[name]
    affine, mean, variance = coefficients(sums_of(n.channel_sums, [values], c), rows, gamma, beta)
    outputs, slope, gamma_gradient, beta_gradient, factors = (
        np.full(shape, np.nan, values.dtype) for shape in ((rows, c), (rows, c), c, c, (2, c))
    )
    n.normalize(values, affine, np.zeros((0, c), values.dtype), code, outputs)
    sums = sums_of(n.channel_gradient_sums, [gradient, values], c, affine, code)
    n.gradient_coefficients(
        sums, rows, EPSILON, mean, variance, affine, gamma_gradient, beta_gradient, factors
    )
    n.normalize_backward(gradient, values, affine, code, factors, slope)
    return outputs, slope, gamma_gradient, beta_gradient


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["identity", "relu", "gelu"])
@pytest.mark.parametrize(
    "shape",
    [
        pytest.param((600, 33), marks=pytest.mark.compiled),
        (7, 5),
        (257, 6),
        pytest.param((257, 64), marks=pytest.mark.compiled),
    ],
)
def test_forward(shape, name, dtype):
    values, gradient, gamma, beta = case(*shape, dtype)
    expected = naive.batch_normalization(values.astype(float), gamma, beta, EPSILON)
    outputs = both_directions(values, gradient, gamma, beta, name)[0]
    np.testing.assert_allclose(
        outputs,
        naive.activation(name, expected),
        atol=2e-5 if dtype == np.float32 else 1e-12,
    )


@pytest.mark.parametrize("name", ["identity", "relu", "gelu"])
def test_gradients(name):
    values, gradient, gamma, beta = case(11, 3, np.float64)

    def loss(values=values, gamma=gamma, beta=beta):
        outputs = naive.batch_normalization(values, gamma, beta, EPSILON)
        return (naive.activation(name, outputs) * gradient).sum()

    _, slope, gamma_gradient, beta_gradient = both_directions(values, gradient, gamma, beta, name)
    np.testing.assert_allclose(
        slope, naive.finite_differences(lambda x: loss(values=x), values), atol=1e-6
    )
    np.testing.assert_allclose(
        gamma_gradient, naive.finite_differences(lambda x: loss(gamma=x), gamma), atol=1e-6
    )
    np.testing.assert_allclose(
        beta_gradient, naive.finite_differences(lambda x: loss(beta=x), beta), atol=1e-6
    )


@pytest.mark.parametrize("shape", [(2731, 97), (14000, 19)], ids=str)
@pytest.mark.compiled
def test_large_arrays(shape):
    """The gradient is a function of values, sums and coefficients."""
    values, gradient, gamma, beta = case(*shape, np.float64)
    outputs, slope, gamma_gradient, beta_gradient = both_directions(
        values, gradient, gamma, beta, "relu"
    )
    mean, variance = values.mean(axis=0), values.var(axis=0)
    normal, g = (values - mean) / np.sqrt(variance + EPSILON), np.where(outputs > 0, gradient, 0)
    np.testing.assert_allclose(outputs, np.maximum(gamma * normal + beta, 0), atol=1e-10)
    np.testing.assert_allclose(beta_gradient, g.sum(axis=0), atol=1e-9)
    np.testing.assert_allclose(gamma_gradient, (g * normal).sum(axis=0), atol=1e-9)
    expected = (
        gamma
        / np.sqrt(variance + EPSILON)
        * (g - g.mean(axis=0) - normal * (g * normal).mean(axis=0))
    )
    np.testing.assert_allclose(slope, expected, atol=1e-10)


def test_sums_of_parts_are_the_sums_of_all():
    values, gradient, gamma, beta = case(50, 6, np.float64)
    parts = [
        n.about_zero(sums_of(n.channel_sums, [np.ascontiguousarray(part)], 6), len(part))
        for part in (values[:20], values[20:20], values[20:])
    ]
    found = sums_of(n.channel_sums, [values], 6)
    np.testing.assert_allclose(found, [values.sum(axis=0), 50 * values.var(axis=0)], rtol=1e-13)
    np.testing.assert_allclose(n.about_mean(sum(parts), 50), found, rtol=1e-13)


def test_skip_is_added_before_the_relu():
    values, skip, gamma, beta = case(40, 17, np.float32)
    outputs = np.empty_like(values)
    n.normalize(values, np.stack([beta, gamma, -beta]), skip, n.RELU, outputs)
    expected = np.maximum((values - beta) * gamma - beta + skip, 0)
    np.testing.assert_allclose(outputs, expected, atol=1e-5)
    n.add(skip, outputs)
    np.testing.assert_allclose(outputs, expected + skip, atol=1e-5)


def test_what_is_no_number_stays_so_behind_a_relu():
    values, _, gamma, beta = case(40, 17, np.float32)
    values[3, 5], values[7, 16] = np.nan, np.inf
    outputs = both_directions(values, values, gamma, beta, "relu")[0]
    assert (
        np.isnan(outputs[:, [5, 16]]).any(axis=0).all()
        and np.isfinite(np.delete(outputs, [5, 16], axis=1)).all()
    )


@pytest.mark.compiled
def test_threads_do_not_change_a_bit():
    arrays, found, before = case(1000, 20, np.float32), [], threads.get_threads()
    for count in (1, before):
        threads.set_threads(count)
        found.append(both_directions(*arrays, "relu"))
    threads.set_threads(before)
    for one, many in zip(*found, strict=True):
        np.testing.assert_array_equal(one, many)
