"""Pixels to a normalised batch against numpy."""

import numpy as np
import pytest

from ensync.kernels.elementwise import inputs


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "n, features, period",
    [
        (0, 4, 1),
        (3, 50, 1),
        pytest.param(130, 784, 1, marks=pytest.mark.compiled),
        (5, 48, 3),
        pytest.param(100, 3072, 96, marks=pytest.mark.compiled),
    ],
)
def test_gather_normalize(n, features, period, dtype):
    random = np.random.default_rng(n)
    images = random.integers(0, 256, (40, features), dtype=np.uint8)
    rows = random.integers(0, 40, n)
    mean, inverse_std = (
        random.uniform(50, 100, period).astype(dtype),
        random.uniform(0.01, 0.1, period).astype(dtype),
    )
    out = np.full((n, features), np.nan, dtype)
    inputs.gather_normalize(images, rows, mean, inverse_std, out)
    repeats = features // period
    np.testing.assert_allclose(
        out,
        (images[rows] - np.tile(mean, repeats)) * np.tile(inverse_std, repeats),
        rtol=1e-6,
        atol=1e-6,
    )
