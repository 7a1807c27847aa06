"""The products of a dense layer against numpy, at every remainder, and on any number of threads."""

import naive
import numpy as np
import pytest
from forced_vectors import start, succeeds

from ensync.kernels import threads
from ensync.kernels.dense import matmul
from ensync.kernels.elementwise.activations import ACTIVATIONS

SHAPES = [
    (1, 1, 1),
    (3, 5, 7),
    (32, 100, 10),
    (33, 50, 49),
    (7, 130, 100),
    (70, 9, 12),
    pytest.param((128, 96, 48), marks=pytest.mark.compiled),
    pytest.param((130, 40, 97), marks=pytest.mark.compiled),
]
TOLERANCE = {np.float32: 1e-5, np.float64: 1e-13}


def layer(n, k, m, dtype):
    random = np.random.default_rng(n + k + m)
    return tuple(
        random.standard_normal(shape).astype(dtype) for shape in ((n, k), (k, m), (m,), (n, m))
    )


def close(found, expected, dtype):
    np.testing.assert_allclose(
        found, expected, rtol=0, atol=TOLERANCE[dtype] * max(1, np.abs(expected).max(initial=0))
    )


def passes(inputs, weights, bias, gradient, code=0):
    """Run the three passes into arrays filled with NaN, so that what is not written shows."""
    (n, k), m, dtype = inputs.shape, bias.size, inputs.dtype
    out, slope, weights_gradient, bias_gradient = (
        np.full(shape, np.nan, dtype) for shape in ((n, m), (n, k), (k, m), m)
    )
    scratch = np.full(matmul.packing_size(n, k, m), np.nan, dtype)
    matmul.dense_forward(inputs, weights, bias, code, out, scratch)
    matmul.dense_input_gradient(gradient, weights, slope, scratch)
    matmul.dense_weight_gradient(inputs, gradient, weights_gradient, bias_gradient, scratch)
    return out, slope, weights_gradient, bias_gradient


@pytest.mark.skipif(threads.thread_limit() < 2, reason="a second thread")
@pytest.mark.compiled
def test_threads_that_came_after_the_scratch_stay_within_it():
    (n, k, m), before = (128, 2048, 100), threads.get_threads()
    inputs, weights, bias, gradient = layer(n, k, m, np.float32)
    out, slope, weights_gradient = np.empty((n, m), "f4"), np.empty((n, k), "f4"), weights.copy()
    threads.set_threads(1)
    size = matmul.packing_size(n, k, m)
    room = np.full(4 * size, 7, np.float32)
    threads.set_threads(2)
    matmul.dense_forward(inputs, weights, bias, 0, out, room[:size])
    matmul.dense_input_gradient(gradient, weights, slope, room[:size])
    matmul.dense_weight_gradient(inputs, gradient, weights_gradient, bias.copy(), room[:size])
    threads.set_threads(before)
    np.testing.assert_array_equal(room[size:], 7)
    close(out, inputs.astype(float) @ weights + bias, np.float32)
    close(slope, gradient.astype(float) @ weights.T, np.float32)
    close(weights_gradient, inputs.T.astype(float) @ gradient, np.float32)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_three_passes(shape, dtype):
    inputs, weights, bias, gradient = layer(*shape, dtype)
    out, slope, weights_gradient, bias_gradient = passes(inputs, weights, bias, gradient)
    close(out, inputs.astype(float) @ weights + bias, dtype)
    close(slope, gradient.astype(float) @ weights.T, dtype)
    close(weights_gradient, inputs.T.astype(float) @ gradient, dtype)
    close(bias_gradient, gradient.astype(float).sum(axis=0), dtype)


@pytest.mark.parametrize("name", sorted(set(ACTIVATIONS) - {"gelu"}))
def test_activation_is_part_of_the_forward_pass(name):
    inputs, weights, bias, gradient = layer(9, 20, 17, np.float32)
    out = passes(inputs, weights, bias, gradient, ACTIVATIONS[name])[0]
    close(out, naive.activation(name, inputs.astype(float) @ weights + bias), np.float32)


@pytest.mark.parametrize(
    "shape", [(128, 784, 100), (300, 256, 200), (1030, 50, 130), (9, 1500, 1403)]
)
@pytest.mark.compiled
def test_threads_do_not_change_a_bit(shape):
    arrays, found = layer(*shape, np.float32), []
    before = threads.get_threads()
    for count in (1, min(2, before)):
        threads.set_threads(count)
        found.append(passes(*arrays))
    threads.set_threads(before)
    for one, two in zip(*found, strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.compiled
def test_long_and_wide_shapes():
    for shape in ((2100, 30, 60), (130, 600, 300), (9, 1500, 1403)):
        inputs, weights, bias, gradient = layer(*shape, np.float32)
        out, slope, weights_gradient, bias_gradient = passes(inputs, weights, bias, gradient)
        close(out, inputs.astype(float) @ weights + bias, np.float32)
        close(slope, gradient.astype(float) @ weights.T, np.float32)
        close(weights_gradient, inputs.T.astype(float) @ gradient, np.float32)
        close(bias_gradient, gradient.astype(float).sum(axis=0), np.float32)


@pytest.mark.parametrize("name", ["identity", "relu", "tanh"])
@pytest.mark.compiled
def test_few_rows_of_a_wide_layer(name, monkeypatch):
    monkeypatch.setattr(matmul, "FEW_ROWS", 8)  # where vectors are wide the usual way is taken
    inputs, weights, bias, gradient = layer(
        5, 1030, 2051, np.float32
    )  # neither whole stretches of terms nor whole panels
    assert weights.size >= matmul.FEW_ROWS_FROM and len(inputs) <= matmul.FEW_ROWS
    expected = naive.activation(name, inputs.astype(float) @ weights + bias)
    found, before = [], threads.get_threads()
    for count in (1, min(2, before)):
        threads.set_threads(count)
        found.append(passes(inputs, weights, bias, gradient, ACTIVATIONS[name])[0])
        close(found[-1], expected, np.float32)
    threads.set_threads(before)
    np.testing.assert_array_equal(found[0], found[1])


@pytest.mark.compiled
def test_parts_that_are_at_other_samples_do_not_meet():
    """Of 2,304 samples the last stretch is shorter than those before."""
    random, before = np.random.default_rng(1), threads.get_threads()
    inputs = random.standard_normal((2304, 256)).astype(np.float32)
    expected = inputs.T.astype(float) @ inputs
    threads.set_threads(min(2, threads.thread_limit()))
    found, sums = np.empty((256, 256), np.float32), np.empty(256, np.float32)
    for _ in range(40):
        scratch = np.full(matmul.packing_size(2304, 256, 256), np.nan, np.float32)
        matmul.dense_weight_gradient(inputs, inputs, found, sums, scratch)
        np.testing.assert_allclose(found, expected, atol=2e-2)
    threads.set_threads(before)


def test_no_rows_give_no_gradient():
    out, slope, weights_gradient, bias_gradient = passes(*layer(0, 5, 7, np.float32))
    assert out.shape == (0, 7) and slope.shape == (0, 5)
    assert (weights_gradient == 0).all() and (bias_gradient == 0).all()


def test_a_nan_comes_through():
    inputs, weights, bias, gradient = layer(4, 5, 3, np.float32)
    inputs[1, 2] = np.nan
    out = passes(inputs, weights, bias, gradient, ACTIVATIONS["relu"])[0]
    assert np.isnan(out[1]).all() and np.isfinite(out[[0, 2, 3]]).all()


def test_weight_gradient_by_finite_differences():
    inputs, weights, bias, gradient = layer(4, 3, 5, np.float64)
    _, slope, weights_gradient, bias_gradient = passes(inputs, weights, bias, gradient)

    def loss(_):
        return float((gradient * (inputs @ weights + bias)).sum())

    for point, found in ((inputs, slope), (weights, weights_gradient), (bias, bias_gradient)):
        np.testing.assert_allclose(
            found, naive.finite_differences(loss, point), rtol=1e-6, atol=1e-7
        )


FORCED = """
import numpy as np
from ensync.kernels.dense import matmul
from ensync.kernels.elementwise import activations
from ensync.kernels.simd import host
assert host.SIMD == {form!r}
random = np.random.default_rng(0)
for n, k, m in ((33, 50, 49), (130, 70, 45)):
    shapes = (n, k), (k, m), m, (n, m)
    x, w, b, g = (random.standard_normal(shape).astype(np.float32) for shape in shapes)
    out, dx, dw, db = (np.empty(shape, "f4") for shape in ((n, m), (n, k), (k, m), m))
    scratch = np.empty(matmul.packing_size(n, k, m), "f4")
    matmul.dense_forward(x, w, b, activations.TANH, out, scratch)
    matmul.dense_input_gradient(g, w, dx, scratch)
    matmul.dense_weight_gradient(x, g, dw, db, scratch)
    pairs = (out, np.tanh(x @ w + b)), (dx, g @ w.T), (dw, x.T @ g), (db, g.sum(axis=0))
    for found, expected in pairs:
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
"""


@pytest.mark.compiled
def test_each_form_of_vectors_when_forced():
    runs = [start(FORCED.format(form=form), form) for form in ("avx2", "plain")]
    for run in runs:
        succeeds(run, limit=110)
