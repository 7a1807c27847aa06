"""Dropout: its rate, its gradient, and independence of ranks."""

import numpy as np
import pytest

from ensync.kernels.elementwise import dropout

DTYPES = [np.float32, np.float64]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.compiled
def test_keeps_the_mean_and_repeats_itself(dtype):
    ones, out = np.ones((400, 300), dtype), np.empty((400, 300), dtype)
    dropout.dropout(ones, 0.25, 99, 0, out)
    assert set(np.unique(out)) == {0, dtype(1 / 0.75)}
    assert abs((out == 0).mean() - 0.25) < 0.005
    assert (
        np.abs((out == 0).mean(axis=0) - 0.25).max() < 0.12
        and np.abs((out == 0).mean(axis=1) - 0.25).max() < 0.13
    )
    gradient = np.ones((400, 300), dtype)
    dropout.dropout_gradient(gradient, 0.25, 99, 0)
    np.testing.assert_array_equal(gradient, out)
    dropout.dropout(ones, 0.25, 100, 0, gradient)
    assert abs(((gradient == 0) & (out == 0)).mean() - 0.0625) < 0.005


def test_depends_on_the_row_of_the_global_batch_only():
    values = np.random.default_rng(5).standard_normal((60, 40)).astype(np.float32)
    whole, part = np.empty_like(values), np.empty((20, 40), np.float32)
    dropout.dropout(values, 0.5, np.uint64(2**64 - 3), 0, whole)
    dropout.dropout(values[30:50], 0.5, np.uint64(2**64 - 3), 30, part)
    np.testing.assert_array_equal(part, whole[30:50])


def test_of_nothing_changes_nothing():
    values = np.random.default_rng(6).standard_normal((3, 5)).astype(np.float32)
    out = np.empty_like(values)
    dropout.dropout(values, 0.0, 1, 0, out)
    np.testing.assert_array_equal(out, values)
