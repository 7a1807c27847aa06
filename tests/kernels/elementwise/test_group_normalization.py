"""Group normalisation against obvious numpy, finite differences and PyTorch."""

import naive
import numpy as np
import pytest

from ensync.kernels import threads
from ensync.kernels.elementwise import group_normalization as g
from ensync.kernels.elementwise.activations import ACTIVATIONS, IDENTITY

EPSILON = 1e-3
SHAPES = [
    pytest.param((3, 600, 32, 8), marks=pytest.mark.compiled),
    (5, 7, 6, 1),
    (4, 49, 35, 5),
    (2, 256, 6, 6),
    (6, 1, 12, 3),
    (1, 1, 3, 3),
]


def case(n, rows, c, dtype, ratio=0.0):
    random = np.random.default_rng(n + rows + c)
    values = random.standard_normal((n, rows, c)) * 2 + ratio
    return [
        array.astype(dtype)
        for array in (
            values,
            random.standard_normal(values.shape),
            random.random(c) + 0.5,
            random.standard_normal(c),
        )
    ]


def both_directions(values, gradient, gamma, beta, groups, name="identity", skip=None):
    """Return outputs, and the gradients of values, gamma and beta."""
    (n, rows, c), dtype, code = values.shape, gamma.dtype, ACTIVATIONS[name]
    statistics = g.GroupStatistics(
        np.full((n, 3, c), np.nan, dtype),
        np.full((n, 2, groups), np.nan),
        np.full((n, 3, c), np.nan, dtype),
        np.full((n, 2, c), np.nan),
    )
    outputs, slope = np.full_like(values, 9), np.full_like(gradient, 9)
    skip = np.zeros((0, rows, c), values.dtype) if skip is None else skip
    g.group_normalize(values, (gamma, beta, EPSILON), skip, code, statistics, outputs)
    g.group_normalize_backward(gradient, values, gamma, code, statistics, slope)
    slopes = np.full(c, np.nan, dtype), np.full(c, np.nan, dtype)
    g.group_parameter_gradients(statistics, *slopes)
    return outputs, slope, *slopes


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["identity", "relu", "gelu"])
@pytest.mark.parametrize("shape", SHAPES)
def test_forward(shape, name, dtype):
    (*sizes, groups), tolerance = shape, 2e-5 if dtype == np.float32 else 1e-12
    values, gradient, gamma, beta = case(*sizes, dtype)
    expected = naive.group_normalization(values.astype(float), groups, gamma, beta, EPSILON)
    outputs = both_directions(values, gradient, gamma, beta, groups, name)[0]
    np.testing.assert_allclose(outputs, naive.activation(name, expected), atol=tolerance)
    added = both_directions(values, gradient, gamma, beta, groups, name, skip=gradient)[0]
    expected = expected + gradient
    np.testing.assert_allclose(added, naive.activation(name, expected), atol=tolerance)


@pytest.mark.parametrize("name", ["identity", "relu", "gelu"])
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_gradients_are_slopes(groups, name):
    values, gradient, gamma, beta = case(3, 4, 6, np.float64)

    def loss(values=values, gamma=gamma, beta=beta):
        outputs = naive.group_normalization(values, groups, gamma, beta, EPSILON)
        return (naive.activation(name, outputs) * gradient).sum()

    _, *slopes = both_directions(values, gradient, gamma, beta, groups, name)
    for which, slope, array in zip(
        ("values", "gamma", "beta"), slopes, (values, gamma, beta), strict=True
    ):
        expected = naive.finite_differences(lambda x, which=which: loss(**{which: x}), array)
        np.testing.assert_allclose(slope, expected, atol=1e-6)


@pytest.mark.parametrize("ratio", [0, 1000, 10_000])
@pytest.mark.parametrize("shape", SHAPES[:4])
@pytest.mark.compiled
def test_errors_are_at_most_three_times_pytorchs(shape, ratio):
    """Of float32, from PyTorch's float64; also for values far from 0 and close together."""
    torch = pytest.importorskip("torch")
    *sizes, groups = shape
    arrays = case(*sizes, np.float32, ratio)

    def theirs(dtype):
        x, slope, gamma, beta = (torch.from_numpy(array).to(dtype) for array in arrays)
        leaves = x.permute(0, 2, 1).contiguous(), gamma, beta
        for leaf in leaves:
            leaf.requires_grad_()
        outputs = torch.group_norm(leaves[0], groups, gamma, beta, EPSILON)
        outputs.backward(slope.permute(0, 2, 1))
        found = (
            outputs.detach().permute(0, 2, 1),
            leaves[0].grad.permute(0, 2, 1),
            gamma.grad,
            beta.grad,
        )
        return [tensor.double().numpy() for tensor in found]

    found, plain, exact = (
        both_directions(*arrays, groups),
        theirs(torch.float32),
        theirs(torch.float64),
    )
    for one, other, right in zip(found, plain, exact, strict=True):
        allowed = max(3 * np.abs(other - right).max(), 2e-6 * np.abs(right).max())
        assert np.abs(one - right).max() <= allowed


@pytest.mark.parametrize("name", ["relu", "gelu"])
def test_bf16_values_are_those_numbers(name):
    """Values and gradients that are bf16 numbers give what they give in float32, rounded."""
    values, gradient, gamma, beta = case(4, 70, 24, np.float32)

    def rounded(array):
        bits = array.view(np.uint32)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)

    def widened(array):
        return (array.astype(np.uint32) << 16).view(np.float32)

    values, gradient = rounded(values), rounded(gradient)
    found = both_directions(values, gradient, gamma, beta, 4, name)
    expected = both_directions(widened(values), widened(gradient), gamma, beta, 4, name)
    for one, other in zip(found, expected, strict=True):
        if one.dtype == np.uint16:
            np.testing.assert_allclose(widened(one), other, rtol=2**-8, atol=1e-30)
        else:
            assert np.array_equal(one, other)


@pytest.mark.compiled
def test_bits_do_not_depend_on_threads():
    arrays = case(9, 300, 40, np.float32)
    limit = threads.thread_limit()
    found = []
    for count in (1, limit):
        threads.set_threads(count)
        found.append(both_directions(*arrays, 8))
    threads.set_threads(limit)
    assert all(np.array_equal(*pair) for pair in zip(*found, strict=True))


def test_the_gradient_may_be_written_over():
    values, gradient, gamma, beta = case(3, 20, 8, np.float32)
    expected = both_directions(values, gradient, gamma, beta, 2)[1]
    statistics = g.GroupStatistics(
        np.empty((3, 3, 8), np.float32),
        np.empty((3, 2, 2)),
        np.empty((3, 3, 8), np.float32),
        np.empty((3, 2, 8)),
    )
    none = np.zeros((0, 20, 8), np.float32)
    g.group_normalize(
        values, (gamma, beta, EPSILON), none, IDENTITY, statistics, np.empty_like(values)
    )
    g.group_normalize_backward(gradient, values, gamma, IDENTITY, statistics, gradient)
    assert np.array_equal(gradient, expected)
