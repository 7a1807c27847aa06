"""Rows mixed with those before them, against numpy."""

import numpy as np
import pytest

from ensync.kernels.elementwise import mixing as kernels


@pytest.mark.parametrize("shape", [(5, 3), (70, 1000)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_are_mixed_with_those_before(shape, dtype):
    random = np.random.default_rng(0)
    images, before = random.normal(size=shape).astype(dtype), random.normal(size=shape[1])
    previous = np.concatenate([before[None], images[:-1]])
    expected = 0.7 * images.astype(float) + 0.3 * previous
    kernels.mix_with_previous(images, before.astype(dtype), 0.3)
    np.testing.assert_allclose(images, expected, rtol=1e-5, atol=1e-6)
