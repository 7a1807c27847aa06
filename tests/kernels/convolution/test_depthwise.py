"""Depthwise convolution against obvious numpy; its gradients against finite differences, which
are exact for a linear map.
"""

import naive
import numpy as np
import pytest

from ensync.kernels import threads
from ensync.kernels.convolution import depthwise

# n, h, w, c, size, stride, padding
CASES = [
    (2, 7, 9, 5, 3, 1, 1),
    (1, 12, 12, 64, 3, 1, 1),
    (3, 8, 8, 17, 5, 2, 2),
    (2, 6, 6, 33, 3, 2, 0),
    (2, 4, 5, 16, 3, 1, 0),
    (1, 2, 2, 3, 3, 1, 1),
    (2, 3, 1, 5, 3, 1, 1),
    (2, 1, 6, 37, 3, 1, 1),
]
WIDE = [
    (2, 5, 9, 5, 3, 1, 7),
    (1, 3, 3, 4, 1, 1, 2),
    (2, 5, 6, 17, 3, 2, 5),
]  # windows that see only zeros
CASES += WIDE
TOLERANCE = {np.float32: 1e-5, np.float64: 1e-12}


def sized(sizes):
    """Return sizes as a parameter; large ones are for compiled kernels."""
    large = np.prod(sizes[:4]) > 3000
    return pytest.param(sizes, marks=pytest.mark.compiled if large else ())


def case(n, h, w, c, size, stride, padding, dtype):
    random = np.random.default_rng(h * w + c)
    oh, ow = (h + 2 * padding - size) // stride + 1, (w + 2 * padding - size) // stride + 1
    return [
        random.standard_normal(shape).astype(dtype)
        for shape in ((n, h, w, c), (size, size, c), (c,), (n, oh, ow, c))
    ]


def passes(inputs, weights, bias, gradient, stride, padding):
    outputs, slope, weights_gradient = (
        np.full_like(x, np.nan) for x in (gradient, inputs, weights)
    )
    depthwise.depthwise_forward(inputs, weights, bias, stride, padding, outputs)
    depthwise.depthwise_input_gradient(
        gradient, weights, np.zeros_like(bias), stride, padding, slope
    )
    partial = np.full((len(inputs), *weights.shape), np.nan, inputs.dtype)
    depthwise.depthwise_weight_gradient(
        inputs, gradient, stride, padding, partial, weights_gradient
    )
    return outputs, slope, weights_gradient


def close(found, expected, dtype):
    np.testing.assert_allclose(
        found, expected, rtol=0, atol=TOLERANCE[dtype] * max(1, np.abs(expected).max(initial=0))
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("sizes", [*map(sized, CASES)], ids=str)
def test_three_passes(sizes, dtype):
    (stride, padding), (inputs, weights, bias, gradient) = (
        (sizes[5], (sizes[6],) * 2),
        case(*sizes, dtype),
    )
    outputs, slope, weights_gradient = passes(inputs, weights, bias, gradient, stride, padding)
    reference = naive.depthwise(inputs, weights, bias, stride, padding, gradient.shape[1:3])
    close(outputs, reference, dtype)
    seen = naive.windows(inputs, weights.shape[:2], stride, padding, gradient.shape[1:3])
    close(weights_gradient, np.einsum("nyxabc,nyxc->abc", seen, gradient.astype(float)), dtype)
    # <outputs - bias, gradient> = <inputs, slope>, in every direction of the inputs
    for seed in range(3):
        other = np.random.default_rng(seed).standard_normal(inputs.shape)
        linear = naive.depthwise(
            other, weights, np.zeros_like(bias), stride, padding, gradient.shape[1:3]
        )
        close(np.array((other * slope).sum()), np.array((linear * gradient).sum()), dtype)


@pytest.mark.parametrize("sizes", WIDE, ids=str)
def test_nothing_is_written_beside_the_gradient(sizes):
    _, weights, bias, gradient = case(*sizes, np.float32)
    room = np.ones((sizes[0] + 2, *sizes[1:4]), np.float32)
    depthwise.depthwise_input_gradient(
        gradient, weights, np.zeros_like(bias), sizes[5], (sizes[6],) * 2, room[1:-1]
    )
    assert (room[[0, -1]] == 1).all()


def test_no_images_give_no_gradient():
    inputs, weights, bias, gradient = case(0, 6, 6, 5, 3, 1, 1, np.float32)
    assert not passes(inputs, weights, bias, gradient, 1, (1, 1))[2].any()


@pytest.mark.compiled
def test_threads_do_not_change_a_bit():
    arrays, found, before = case(5, 9, 9, 20, 3, 1, 1, np.float32), [], threads.get_threads()
    for count in (1, before):
        threads.set_threads(count)
        found.append(passes(*arrays, 1, (1, 1)))
    threads.set_threads(before)
    for one, many in zip(*found, strict=True):
        np.testing.assert_array_equal(one, many)
