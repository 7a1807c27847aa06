"""The products of a dense layer in bf16 against exact products of rounded operands."""

import os
import subprocess
import sys

import naive
import numpy as np
import pytest
from brain_floats import narrow, rounded, widened

from ensync.kernels import threads
from ensync.kernels.dense import bf16_layout, matmul
from ensync.kernels.elementwise.activations import ACTIVATIONS, IDENTITY, RELU
from ensync.kernels.simd import host, operands
from ensync.kernels.simd.host import bf16_missing

pytestmark = pytest.mark.skipif(bool(bf16_missing()), reason=f"no bf16: {bf16_missing()}")
TILES = pytest.param(
    True, marks=pytest.mark.skipif(not host.AMX, reason="no matrix tiles (AMX) here"), id="tiles"
)
SHAPES = [  # samples, inputs, outputs
    (1, 1, 1),
    (2, 3, 2),
    (3, 5, 7),
    (8, 32, 16),
    (32, 100, 10),
    (33, 50, 49),
    (7, 130, 100),
    (70, 9, 12),
    (31, 33, 17),
    (65, 64, 33),
    (128, 96, 48),
    (130, 40, 97),
]
NOWHERE = 5  # elements beyond the scratch, which must stay as they are


@pytest.fixture(params=[pytest.param(False, id="vectors"), TILES], autouse=True)
def tiles(request, monkeypatch):
    """Whether products are by matrix tiles or by vectors."""
    monkeypatch.setattr(operands, "AMX", request.param)
    return request.param


def layer(n, k, m):
    random = np.random.default_rng(n + k + m)
    return tuple(
        random.standard_normal(shape).astype(np.float32) for shape in ((n, k), (k, m), (m,), (n, m))
    )


def passes(inputs, weights, bias, gradient, code=IDENTITY, keep=np.asarray):
    """Run the three passes into arrays filled with NaN, so that what is not written shows.

    keep: makes the arrays that are not parameters what lies in memory.
    """
    (n, k), m = inputs.shape, bias.size
    x, g = keep(inputs), keep(gradient)
    out, slope = (np.full_like(y, 0x7FFF if y.dtype == np.uint16 else np.nan) for y in (g, x))
    weights_gradient, bias_gradient = (np.full(shape, np.nan, "f4") for shape in ((k, m), m))
    size = matmul.packing_size(n, k, m, True)
    scratch = np.full(size + NOWHERE, np.nan, np.float32)
    room = scratch[:size]
    matmul.dense_forward(x, weights, bias, code, out, room, True)
    matmul.dense_input_gradient(g, weights, slope, room, True)
    matmul.dense_weight_gradient(x, g, weights_gradient, bias_gradient, room, True)
    assert np.isnan(scratch[size:]).all()
    return out, slope, weights_gradient, bias_gradient


def forget():
    """Let layouts be made anew."""
    bf16_layout.layout_of.cache_clear()
    bf16_layout.packing_size.cache_clear()


def exact(inputs, weights, bias, gradient):
    """The same of rounded operands in float64."""
    x, w, g = (rounded(values).astype(float) for values in (inputs, weights, gradient))
    return x @ w + bias, g @ w.T, x.T @ g, gradient.astype(float).sum(axis=0)


def close(found, expected, tolerance=2e-6):
    np.testing.assert_allclose(
        found, expected, rtol=0, atol=tolerance * max(1, np.abs(expected).max(initial=0))
    )


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_passes_are_products_of_rounded_operands(shape):
    arrays = layer(*shape)
    for found, expected in zip(passes(*arrays), exact(*arrays), strict=True):
        close(found, expected)


@pytest.mark.parametrize("shape", [(33, 50, 49), (64, 48, 32)], ids=str)
def test_arrays_of_bf16_are_read_and_written(shape):
    inputs, weights, bias, gradient = layer(*shape)
    arrays = rounded(inputs), weights, bias, rounded(gradient)
    plain, kept = passes(*arrays), passes(*arrays, keep=narrow)
    for found, expected in zip(kept, plain, strict=True):
        if found.dtype == np.uint16:
            found, expected = widened(found), rounded(expected)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", sorted(set(ACTIVATIONS) - {"gelu"}))
def test_activation_is_part_of_the_forward_pass(name):
    arrays = layer(9, 20, 17)
    found = passes(*arrays, ACTIVATIONS[name])[0]
    close(found, naive.activation(name, exact(*arrays)[0]))


@pytest.mark.parametrize("shape", [(128, 300, 100), (300, 256, 200)], ids=str)
def test_threads_do_not_change_a_bit(shape):
    arrays, found, before = layer(*shape), [], threads.get_threads()
    for count in (1, min(2, before)):
        threads.set_threads(count)
        found.append(passes(*arrays))
    threads.set_threads(before)
    for one, two in zip(*found, strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("shape", [(301, 70, 49), (90, 300, 40)], ids=str)
def test_sums_and_rows_that_are_laid_out_part_by_part(shape, monkeypatch):
    """As those of many samples are: 64 of a weights' gradient, and few rows, at a time."""
    arrays = layer(*shape)
    whole = passes(*arrays)
    small = {"SAMPLE_WORDS": 1, "LEAST_SAMPLES": 64, "PIECE": 16, "LEAST_ROWS": 32, "BLOCK": 1}
    for name, value in small.items():
        monkeypatch.setattr(bf16_layout, name, value)
    forget()
    try:
        parts = passes(*arrays)
    finally:
        forget()
    np.testing.assert_array_equal(parts[0], whole[0])
    np.testing.assert_array_equal(parts[1], whole[1])
    for found, expected in zip(parts, exact(*arrays), strict=True):
        close(found, expected)


@pytest.mark.parametrize("shape", [(33, 40, 330), (200, 130, 333)], ids=str)
@pytest.mark.parametrize("panels", [2000, 1 << 14])
def test_panels_laid_out_together_change_no_bit(shape, panels, monkeypatch):
    arrays, found = layer(*shape), []
    for size in (1, panels):
        monkeypatch.setattr(bf16_layout, "PANELS", size)
        forget()
        try:
            found.append(passes(*arrays))
        finally:
            forget()
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)
    for result, expected in zip(found[1], exact(*arrays), strict=True):
        close(result, expected)


def test_fewer_samples_than_the_scratch_is_for_need_no_more():
    for k, m in ((784, 512), (100, 10), (33, 47)):
        sizes = [matmul.packing_size(n, k, m, True) for n in range(1, 3000, 7)]
        assert sizes == sorted(sizes)


@pytest.mark.skipif(threads.thread_limit() < 2, reason="a second thread")
def test_a_scratch_for_one_thread_is_used_by_one():
    inputs, weights, bias, gradient = arrays = layer(128, 512, 100)
    size = bf16_layout.packing_size(128, 512, 100, operands.operands(True), 1)
    room, out = np.full(4 * size, 7, np.float32), np.empty_like(gradient)
    matmul.dense_forward(inputs, weights, bias, IDENTITY, out, room[:size], True)
    np.testing.assert_array_equal(room[size:], 7)
    close(out, exact(*arrays)[0])


def test_no_rows_give_no_gradient():
    out, slope, weights_gradient, bias_gradient = passes(*layer(0, 5, 7))
    assert out.shape == (0, 7) and slope.shape == (0, 5)
    assert (weights_gradient == 0).all() and (bias_gradient == 0).all()


def test_what_is_not_a_number_comes_through_to_its_row_alone():
    inputs, weights, bias, gradient = layer(40, 5, 3)
    inputs[1, 2] = np.nan
    out = passes(inputs, weights, bias, gradient, RELU)[0]
    others = np.arange(40) != 1
    assert np.isnan(out[1]).all() and np.isfinite(out[others]).all()


PLAYED = """
import sys
import numpy as np
from numba import njit
from ensync.kernels.dense import bf16_products
from ensync.kernels.simd import operands

@njit
def widened(half):
    bits = np.full(1, half, np.uint32) << 16
    return bits.view(np.float32)[0]

def product_of(columns):
    @njit
    def product(a, b, c, s):
        for p in range(32):
            for j in range(columns):
                total = np.float32(0)
                for o in range(s.outer):
                    for i in range(32 * s.inner):
                        word = np.full(1, b[o * s.b_outer + i // 2 * s.b_row + j], np.float32)
                        half = word.view(np.uint32)[0] >> (16 * (i % 2)) & 0xFFFF
                        total += widened(a[o * s.a_outer + p * s.a_row + i]) * widened(half)
                c[p * s.c_row + j] = total
    return product

bf16_products.TILES, bf16_products.NARROW_TILES = product_of(32), product_of(16)
bf16_products.start_tiles = bf16_products.end_tiles = njit(lambda: None)
operands.AMX = True
from kernels.dense import test_bf16_products as tests
for shape in ((33, 50, 49), (7, 130, 17), (70, 9, 12)):
    arrays = tests.layer(*shape)
    for found, expected in zip(tests.passes(*arrays), tests.exact(*arrays), strict=True):
        tests.close(found, expected)
"""


@pytest.mark.compiled
def test_what_is_laid_out_for_matrix_tiles_is_what_they_take(tiles, tmp_path):
    """With a product in place of the processor's that reads what theirs does, so that a host
    without them tests the rest (simd/matrix_tiles.py). Its kernels are kept apart.
    """
    if tiles:
        pytest.skip("the processor's own are tested")
    here = {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", PLAYED], check=True, env=os.environ | here, timeout=240)
