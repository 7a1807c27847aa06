"""Muon beside plain numpy, and its matrices beside the nearest orthogonal ones."""

import naive
import numpy as np
import pytest

from ensync.core.config.optimizers import Optimizer as Settings
from ensync.nn.layers.base import Parameter
from ensync.nn.optimizers import Optimizer
from ensync.nn.optimizers.muon import orthogonalize

SHAPES = {"dense": (7, 5), "bias": (5,), "filters": (3, 3, 2, 4), "wide": (3, 8), "scale": (4,)}
LAYOUT = [(name, Parameter(name, shape)) for name, shape in SHAPES.items()]
SIZE = sum(parameter.size for _, parameter in LAYOUT)
ENDS = np.cumsum([parameter.size for _, parameter in LAYOUT])[:-1]


def plain_step(w, g, v, shape, s, rate):
    """Update an array of float64 in place; filters are the rows of its matrix."""
    w *= 1 - rate * s.weight_decay
    v[:] = s.momentum * v + g
    u = g + s.momentum * v
    if len(shape) > 1:
        if s.rescale:
            w *= np.sqrt(shape[-1]) / np.linalg.norm(w)
        rows = np.moveaxis(u.reshape(shape), -1, 0).reshape(shape[-1], -1)
        rows = naive.newton_schulz(rows, s.newton_schulz)
        u = np.moveaxis(rows.reshape(shape[-1], *shape[:-1]), 0, -1).reshape(-1)
    w -= rate * u


@pytest.mark.parametrize(
    "given", [{}, {"rescale": True, "newton_schulz": 3}, {"weight_decay": 0.1, "momentum": 0.6}]
)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_steps_are_those_of_plain_numpy(given, dtype):
    settings = Settings(name="muon", learning_rate=0.3, **given)
    random = np.random.default_rng(1)
    optimizer, found = Optimizer(settings, LAYOUT, np.dtype(dtype)), random.normal(size=SIZE)
    expected, velocities = np.split(found.copy(), ENDS), np.split(np.zeros(SIZE), ENDS)
    found = found.astype(dtype)
    assert not optimizer.elementwise and list(optimizer.slots) == ["velocity"]
    for step in range(4):
        gradient, factor = random.normal(size=SIZE), 1 / (1 + step)
        for (_, p), w, g, v in zip(
            LAYOUT, expected, np.split(gradient, ENDS), velocities, strict=True
        ):
            plain_step(w, g, v, p.shape, settings, 0.3 * factor)
        optimizer.step(found, gradient.astype(dtype), [factor])
    tolerance = 1e-11 if dtype == np.float64 else 1e-3
    np.testing.assert_allclose(found, np.concatenate(expected), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("shape", [(30, 12), (12, 30), (16, 16), (40, 1)])
def test_matrices_come_near_the_polar_factor(shape):
    """U V' of the singular value decomposition: after five steps values lie within 0.7 and 1.2."""
    matrix = np.random.default_rng(2).normal(size=shape)
    u, values, v = np.linalg.svd(matrix, full_matrices=False)
    found = orthogonalize(matrix, 5)
    turned = u.T @ found @ v.T  # diagonal, as the singular vectors stay
    inside = values > 0.02 * np.linalg.norm(values)
    assert (abs(np.diag(turned)[inside] - 0.95) < 0.27).all()
    np.testing.assert_allclose(turned, np.diag(np.diag(turned)), atol=1e-12)
    np.testing.assert_allclose(orthogonalize(1e3 * matrix, 5), found, rtol=1e-6, atol=1e-7)


def test_zeros_stay():
    vectors = {"parameters": np.zeros(SIZE), "gradient": np.zeros(SIZE)}
    settings = Settings(name="muon", learning_rate=0.5, rescale=True)
    Optimizer(settings, LAYOUT, np.dtype(float)).step(**vectors)
    assert not vectors["parameters"].any()
