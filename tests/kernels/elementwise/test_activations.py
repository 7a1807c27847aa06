"""Activations and softmax against numpy: value, slope and NaN."""

import naive
import numpy as np
import pytest

from ensync.kernels.elementwise import activations
from ensync.kernels.elementwise.activations import ACTIVATIONS

DTYPES = [np.float32, np.float64]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("size", [7, pytest.param(70_001, marks=pytest.mark.compiled)])
def test_value_and_slope(name, dtype, size):
    z = np.linspace(-95, 95, size).astype(dtype)
    found = z.copy()
    activations.activate(ACTIVATIONS[name], found)
    np.testing.assert_allclose(found, naive.activation(name, z.astype(float)), 2e-7, atol=1e-6)
    gradient = np.linspace(1, 2, size).astype(dtype)
    kept = z if name == "gelu" else found
    expected = gradient * naive.activation_slope(name, kept.astype(float))
    activations.activation_gradient(ACTIVATIONS[name], kept, gradient)
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
@pytest.mark.parametrize(
    "shape", [(1, 1), (5, 10), pytest.param((700, 100), marks=pytest.mark.compiled)]
)
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
