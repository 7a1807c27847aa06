"""Activations, softmax and dropout against numpy: value, slope, NaN, and independence of ranks."""

import naive
import numpy as np
import pytest

from ensync.kernels.elementwise import activations
from ensync.kernels.elementwise.activations import ACTIVATIONS

DTYPES = [np.float32, np.float64]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("size", [7, 70_001])
def test_value_and_slope(name, dtype, size):
    z = np.linspace(-95, 95, size).astype(dtype)
    found = z.copy()
    activations.activate(ACTIVATIONS[name], found)
    np.testing.assert_allclose(found, naive.activation(name, z.astype(float)), rtol=0, atol=1e-6)
    gradient = np.linspace(1, 2, size).astype(dtype)
    expected = gradient * naive.activation_slope(name, found.astype(float))
    activations.activation_gradient(ACTIVATIONS[name], found, gradient)
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_nan_stays(name):
    values = np.array([[np.nan, 1]], np.float32)
    activations.activate(ACTIVATIONS[name], values)
    assert np.isnan(values[0, 0]) and np.isfinite(values[0, 1])


def test_softmax_in_float32_is_within_a_few_units_in_the_last_place():
    logits = np.stack([np.zeros(2001), np.linspace(-80, 0, 2001)], axis=1).astype(np.float32)
    out = np.empty_like(logits)
    activations.softmax(logits, out)
    np.testing.assert_allclose(out, naive.softmax(logits.astype(float)), rtol=4e-7)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (5, 10), (700, 100)])
def test_softmax_and_its_gradient(shape, dtype):
    random = np.random.default_rng(3)
    logits, slope = (random.normal(scale=5, size=shape).astype(dtype) for _ in range(2))
    out = np.empty_like(logits)
    activations.softmax(logits, out)
    expected = naive.softmax(logits.astype(float))
    np.testing.assert_allclose(out, expected, rtol=0, atol=1e-6)
    found = slope.copy()
    activations.softmax_gradient(out, found)
    np.testing.assert_allclose(
        found, expected * (slope - (slope * expected).sum(1, keepdims=True)), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_dropout_keeps_the_mean_and_repeats_itself(dtype):
    ones, out = np.ones((400, 300), dtype), np.empty((400, 300), dtype)
    activations.dropout(ones, 0.25, 99, 0, out)
    assert set(np.unique(out)) == {0, dtype(1 / 0.75)}
    assert abs((out == 0).mean() - 0.25) < 0.005
    assert (
        np.abs((out == 0).mean(axis=0) - 0.25).max() < 0.12
        and np.abs((out == 0).mean(axis=1) - 0.25).max() < 0.13
    )
    gradient = np.ones((400, 300), dtype)
    activations.dropout_gradient(gradient, 0.25, 99, 0)
    np.testing.assert_array_equal(gradient, out)
    activations.dropout(ones, 0.25, 100, 0, gradient)
    assert abs(((gradient == 0) & (out == 0)).mean() - 0.0625) < 0.005


def test_dropout_depends_on_the_row_of_the_global_batch_only():
    values = np.random.default_rng(5).standard_normal((60, 40)).astype(np.float32)
    whole, part = np.empty_like(values), np.empty((20, 40), np.float32)
    activations.dropout(values, 0.5, np.uint64(2**64 - 3), 0, whole)
    activations.dropout(values[30:50], 0.5, np.uint64(2**64 - 3), 30, part)
    np.testing.assert_array_equal(part, whole[30:50])


def test_dropout_of_nothing_changes_nothing():
    values = np.random.default_rng(6).standard_normal((3, 5)).astype(np.float32)
    out = np.empty_like(values)
    activations.dropout(values, 0.0, 1, 0, out)
    np.testing.assert_array_equal(out, values)
