"""Optimiser steps against numpy and PyTorch."""

import naive
import numpy as np
import pytest

from ensync.kernels.optim import updates
from ensync.kernels.optim.scaled import Squares, scaled

SIZES = [5, pytest.param(40_003, marks=pytest.mark.compiled)]


def vectors(count, size, dtype):
    random = np.random.default_rng(size)
    return [np.abs(random.standard_normal(size)).astype(dtype) for _ in range(count)]


def close(found, expected):
    np.testing.assert_allclose(
        found, expected, rtol=2e-6 if found.dtype == np.float32 else 1e-13, atol=1e-6
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", SIZES)
def test_sgd_and_momentum(size, dtype):
    p, g, v = vectors(3, size, dtype)
    expected = naive.sgd(p.astype(float), g, 0.1, 0.01)
    updates.sgd(p, g, 0.1, 0.01)
    close(p, expected)
    for nesterov in (False, True):
        expected = naive.momentum(p.astype(float), g, v, 0.1, 0.9, 0.01, nesterov)
        updates.momentum(p, g, v, 0.1, 0.9, 0.01, nesterov)
        close(p, expected[0])
        close(v, expected[1])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("decoupled", [False, True])
def test_adam(size, decoupled, dtype):
    p, g, m, v = vectors(4, size, dtype)
    for step in (1, 2, 10):
        expected = naive.adam(
            p.astype(float), g, m, v, step, 0.01, 0.9, 0.999, 1e-8, 0.1, decoupled
        )
        settings = updates.AdamSettings(0.01, 0.9, 0.999, 1e-8, 0.1, decoupled)
        updates.adam(p, g, m, v, step, settings)
        for found, wanted in zip((p, m, v), expected, strict=True):
            close(found, wanted)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("keep,share", [(0.9, 0.1), (1.0, 1.0)])
def test_scaled(size, keep, share, dtype):
    p, g, s = vectors(3, size, dtype)
    slope = g + 0.01 * p.astype(float)
    square = keep * s + share * slope**2
    expected = p - 0.1 * slope / (np.sqrt(square) + 1e-3)
    scaled(p, g, s, 0.1, 0.01, Squares(keep, share, 1e-3))
    close(p, expected)
    close(s, square)


@pytest.mark.parametrize("name", ["sgd", "momentum", "nesterov", "adam", "adamw"])
@pytest.mark.compiled
def test_three_steps_are_pytorchs(name):
    torch = pytest.importorskip("torch")
    p, first, second = vectors(3, 50, np.float32)
    leaf = torch.tensor(p.copy(), requires_grad=True)
    first[:], second[:] = 0, 0
    optimizer = {
        "sgd": lambda: torch.optim.SGD([leaf], 0.1, weight_decay=0.01),
        "momentum": lambda: torch.optim.SGD([leaf], 0.1, momentum=0.9, weight_decay=0.01),
        "nesterov": lambda: torch.optim.SGD(
            [leaf], 0.1, momentum=0.9, weight_decay=0.01, nesterov=True
        ),
        "adam": lambda: torch.optim.Adam([leaf], 0.1, weight_decay=0.01),
        "adamw": lambda: torch.optim.AdamW([leaf], 0.1, weight_decay=0.01),
    }[name]()
    for step in (1, 2, 3):
        g = (p * step).astype(np.float32)
        leaf.grad = torch.tensor(g)
        optimizer.step()
        if name == "sgd":
            updates.sgd(p, g, 0.1, 0.01)
        elif name in ("momentum", "nesterov"):
            updates.momentum(p, g, first, 0.1, 0.9, 0.01, name == "nesterov")
        else:
            settings = updates.AdamSettings(0.1, 0.9, 0.999, 1e-8, 0.01, name == "adamw")
            updates.adam(p, g, first, second, step, settings)
        np.testing.assert_allclose(p, leaf.detach().numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [0, 1, pytest.param(100_001, marks=pytest.mark.compiled)])
def test_sum_of_squares_and_all_finite(size, dtype):
    (p,) = vectors(1, size, dtype)
    assert updates.sum_of_squares(p) == pytest.approx((p.astype(float) ** 2).sum(), rel=1e-12)
    assert updates.all_finite(p)
    for bad in (np.nan, np.inf, -np.inf):
        if size:
            p[size // 2] = bad
            assert not updates.all_finite(p)


@pytest.mark.compiled
def test_moments_that_decay_become_zero_and_not_tiny():
    tiny, p, g = np.float32(1e-38), np.ones(100, np.float32), np.zeros(100, np.float32)
    first, second, velocity = (np.full(100, tiny) for _ in range(3))
    for step in range(1, 4):
        settings = updates.AdamSettings(0.1, 0.1, 0.1, 1e-8, 0.0, False)
        updates.adam(p, g, first, second, step, settings)
        updates.momentum(p, g, velocity, 0.1, 0.1, 0.0, False)
    for moment in (first, second, velocity):
        assert (moment == 0).all()
    assert np.float32(1e-38) * np.float32(0.1) > 0  # elsewhere in the process nothing has changed
