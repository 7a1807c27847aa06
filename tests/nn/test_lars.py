"""LARS against the formula in plain numpy, array by array."""

import numpy as np
import pytest

from ensync.core.config.optimizers import Optimizer as Settings
from ensync.nn.layers.base import Parameter
from ensync.nn.optimizers import Optimizer

SHAPES = {"weights": (7, 5), "bias": (5,), "filters": (3, 3, 2, 4), "scale": (4,)}
LAYOUT = [(name, Parameter(name, shape)) for name, shape in SHAPES.items()]
SIZE = sum(parameter.size for _, parameter in LAYOUT)


def split(vector):
    ends = np.cumsum([parameter.size for _, parameter in LAYOUT])[:-1]
    return np.split(vector, ends)


def plain_step(parameters, gradients, velocities, s, rate):
    """Update lists of float64 arrays in place."""
    for (_, p), w, g, v in zip(LAYOUT, parameters, gradients, velocities, strict=True):
        size, slope, trust = np.linalg.norm(w), np.linalg.norm(g), 1.0
        if len(p.shape) > 1 and size > 0 and slope > 0:
            trust = s.trust_coefficient * size
            trust /= slope + s.weight_decay * size + (s.epsilon or 1e-8)
        v[:] = s.momentum * v + trust * (g + s.weight_decay * w)
        w -= rate * v


@pytest.mark.parametrize("decay", [0.0, 0.05])
@pytest.mark.parametrize("epsilon", [None, 0.5])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_steps_are_those_of_the_formula(decay, epsilon, dtype):
    settings = Settings(
        name="lars",
        learning_rate=0.7,
        momentum=0.8,
        weight_decay=decay,
        trust_coefficient=0.02,
        epsilon=epsilon,
    )
    random = np.random.default_rng(1)
    optimizer, found = Optimizer(settings, LAYOUT, np.dtype(dtype)), random.normal(size=SIZE)
    expected, velocities = split(found.copy()), split(np.zeros(SIZE))
    found = found.astype(dtype)
    assert not optimizer.elementwise and list(optimizer.slots) == ["velocity"]
    for step in range(6):
        gradient = random.normal(size=SIZE)
        factor = 1 / (1 + step)
        plain_step(expected, split(gradient), velocities, settings, 0.7 * factor)
        optimizer.step(found, gradient.astype(dtype), [factor])
    tolerance = 1e-12 if dtype == np.float64 else 1e-4
    np.testing.assert_allclose(found, np.concatenate(expected), rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(
        optimizer.slots["velocity"], np.concatenate(velocities), rtol=tolerance, atol=tolerance
    )


@pytest.mark.parametrize("zero", ["parameters", "gradient"])
def test_arrays_of_zeros_take_the_common_rate(zero):
    settings = Settings(name="lars", learning_rate=0.5, momentum=0.0)
    vectors = {"parameters": np.ones(SIZE), "gradient": np.ones(SIZE)}
    vectors[zero][:] = 0
    expected = vectors["parameters"] - 0.5 * vectors["gradient"]
    Optimizer(settings, LAYOUT, np.dtype(float)).step(**vectors)
    np.testing.assert_array_equal(vectors["parameters"], expected)
