"""Pooling against obvious numpy, its gradients against finite differences."""

import naive
import numpy as np
import pytest

from ensync.kernels.elementwise import average_pooling, pooling

# n, h, w, c, size, stride, padding
CASES = [
    (2, 7, 9, 5, 3, 2, 1),
    pytest.param((1, 12, 12, 64, 3, 2, 1), marks=pytest.mark.compiled),
    (3, 8, 8, 17, 2, 2, 0),
    (2, 7, 7, 33, 2, 2, 0),
    pytest.param((2, 13, 13, 16, 3, 2, 0), marks=pytest.mark.compiled),
    (0, 6, 6, 3, 2, 2, 0),
]


def case(n, h, w, c, size, stride, padding, dtype):
    random = np.random.default_rng(h * w + c)
    shape = (n, (h + 2 * padding - size) // stride + 1, (w + 2 * padding - size) // stride + 1, c)
    return (
        random.standard_normal((n, h, w, c)).astype(dtype),
        random.standard_normal(shape).astype(dtype),
        ((size, size), stride, (padding,) * 2),
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("sizes", CASES, ids=str)
def test_forward(sizes, dtype):
    inputs, outputs, window = case(*sizes, dtype)
    pooling.max_pool_forward(
        inputs, *window, outputs, np.empty(outputs.shape, pooling.tap_type(window[0]))
    )
    np.testing.assert_array_equal(outputs, naive.max_pool(inputs, *window, outputs.shape[1:3]))
    average_pooling.average_pool_forward(inputs, *window, outputs)
    np.testing.assert_allclose(
        outputs, naive.average_pool(inputs, *window, outputs.shape[1:3]), atol=1e-6
    )
    means = np.empty((len(inputs), inputs.shape[3]), dtype)
    average_pooling.global_average_forward(inputs, means)
    np.testing.assert_allclose(means, inputs.mean(axis=(1, 2)), atol=1e-6)


@pytest.mark.parametrize(
    "sizes",
    [(1, 4, 5, 3, 3, 2, 1), (2, 4, 4, 3, 2, 2, 0), (1, 5, 5, 3, 2, 2, 0), (1, 5, 5, 2, 3, 1, 1)],
    ids=str,
)
def test_gradients(sizes):
    inputs, gradient, window = case(*sizes, np.float64)
    size, found, chosen = (
        gradient.shape[1:3],
        np.empty_like(inputs),
        np.empty(gradient.shape, pooling.tap_type(window[0])),
    )
    pooling.max_pool_forward(inputs, *window, np.empty_like(gradient), chosen)
    pooling.max_pool_backward(gradient, chosen, *window, found)
    np.testing.assert_allclose(
        found,
        naive.finite_differences(
            lambda x: (naive.max_pool(x, *window, size) * gradient).sum(), inputs
        ),
        atol=1e-7,
    )
    average_pooling.average_pool_backward(gradient, *window, found)
    np.testing.assert_allclose(
        found,
        naive.finite_differences(
            lambda x: (naive.average_pool(x, *window, size) * gradient).sum(), inputs
        ),
        atol=1e-7,
    )
    means = np.ascontiguousarray(gradient[:, 0, 0])
    average_pooling.global_average_backward(means, found)
    expected = naive.finite_differences(lambda x: (x.mean(axis=(1, 2)) * means).sum(), inputs)
    np.testing.assert_allclose(found, expected, atol=1e-7)


# bytes tell apart 256 taps; then there are the images of one window, of several with padding, and
# more taps than 15 bits number
LARGE = [
    (2, 16, 17, 17, 16, 1, 0),
    (2, 17, 17, 3, 17, 1, 0),
    (1, 28, 28, 5, 28, 28, 0),
    (2, 32, 32, 17, 32, 32, 0),
    (1, 37, 21, 18, 20, 3, 10),
    (1, 200, 190, 3, 182, 7, 30),
]


@pytest.mark.parametrize("sizes", LARGE, ids=str)
@pytest.mark.compiled
def test_every_tap_of_a_large_window_takes_its_own_gradient(sizes):
    inputs, gradient, window = case(*sizes, np.float32)
    chosen, found = (
        np.empty(gradient.shape, pooling.tap_type(window[0])),
        np.full_like(inputs, np.nan),
    )
    pooling.max_pool_forward(inputs, *window, np.empty_like(gradient), chosen)
    pooling.max_pool_backward(gradient, chosen, *window, found)
    np.testing.assert_allclose(found, naive.max_pool_gradient(inputs, gradient, *window), atol=1e-4)


@pytest.mark.parametrize("tap", [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("size", [(2, 4, 4), (2, 4, 5)], ids=str)
def test_what_is_not_a_number_stays_so(size, tap):
    inputs = np.random.default_rng(1).standard_normal((*size, 17)).astype(np.float32)
    inputs[0, tap[0], tap[1], 3] = np.nan
    outputs = np.empty((2, 2, 3, 17), np.float32)[:, :, : (size[2] + 1) // 2].copy()
    chosen = np.empty(outputs.shape, np.uint8)
    pooling.max_pool_forward(inputs, (2, 2), 2, (0, size[2] % 2), outputs, chosen)
    y, x = 0, (tap[1] + size[2] % 2) // 2
    assert np.argwhere(np.isnan(outputs)).tolist() == [[0, y, x, 3]]
    back = np.empty_like(inputs)
    pooling.max_pool_backward(np.ones_like(outputs), chosen, (2, 2), 2, (0, size[2] % 2), back)
    assert back[0, tap[0], tap[1], 3] == 1


def test_the_first_of_equal_pixels_takes_the_gradient():
    inputs, chosen, found = (
        np.ones((1, 2, 2, 3), np.float32),
        np.empty((1, 1, 1, 3), np.uint8),
        np.empty((1, 2, 2, 3), np.float32),
    )
    pooling.max_pool_forward(inputs, (2, 2), 2, (0, 0), np.empty((1, 1, 1, 3), np.float32), chosen)
    pooling.max_pool_backward(np.ones((1, 1, 1, 3), np.float32), chosen, (2, 2), 2, (0, 0), found)
    assert found[0, 0, 0].all() and found.sum() == 3
