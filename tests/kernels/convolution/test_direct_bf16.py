"""Direct convolutions of bf16 numbers by vectors are exact products of rounded operands."""

import naive
import numpy as np
import pytest
from brain_floats import rounded
from convolutions import DIRECT, PRODUCT, case, close, expected_gradients, passes

from ensync.kernels import threads
from ensync.kernels.convolution import conv2d
from ensync.kernels.simd import operands
from ensync.kernels.simd.host import bf16_missing

pytestmark = [
    pytest.mark.compiled,
    pytest.mark.skipif(bool(bf16_missing()), reason=f"no bf16: {bf16_missing()}"),
]
# Few channels in 3x3 filters; sums of an odd number; a group of one channel with several filters.
SIZES = [
    *(sizes for sizes in (*DIRECT, *PRODUCT) if sizes[-1] == 1 or sizes[3] > sizes[-1]),
    (2, 9, 8, 8, 8, 3, 1, 1, 1),
    (3, 12, 11, 5, 33, 5, 1, 2, 1),
    (2, 9, 8, 9, 6, 3, 1, 1, 3),
    (2, 27, 27, 48, 40, 5, 1, 2, 1),
]


@pytest.fixture(autouse=True)
def by_vectors(monkeypatch):
    """Without matrix tiles."""
    monkeypatch.setattr(conv2d, "AMX", False)
    monkeypatch.setattr(operands, "AMX", False)


def in_bf16(form):
    return conv2d.Convolution(
        form.image, form.filter, form.outputs, form.stride, form.padding, form.groups, True
    )


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_products_are_of_rounded_operands(sizes):
    form, inputs, weights, bias, gradient = case(*sizes, np.float32)
    found = passes(in_bf16(form), inputs, weights, bias, gradient)
    x, w, g = map(rounded, (inputs, weights, gradient))
    forward = naive.convolution(
        x, w, bias, form.stride, form.padding, form.groups, form.outputs[:2]
    )
    slope, weights_gradient, _ = expected_gradients(form, x, w, g)
    bias_gradient = gradient.sum(axis=(0, 1, 2))
    for one, other in zip(found, (forward, slope, weights_gradient, bias_gradient), strict=True):
        close(one, other, np.float32)


def test_a_channel_of_its_own_stays_in_float32():
    form, *arrays = case(1, 6, 6, 4, 4, 3, 1, 0, 4, np.float32)
    for one, other in zip(passes(in_bf16(form), *arrays), passes(form, *arrays), strict=True):
        np.testing.assert_array_equal(one, other)


def test_threads_do_not_change_a_bit():
    form, *arrays = case(9, 12, 11, 5, 33, 5, 1, 2, 1, np.float32)
    found, before = [], threads.get_threads()
    for count in (1, min(2, before)):
        threads.set_threads(count)
        found.append(passes(in_bf16(form), *arrays))
    threads.set_threads(before)
    for one, two in zip(*found, strict=True):
        np.testing.assert_array_equal(one, two)
