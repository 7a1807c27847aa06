"""Convolutions by matrix tiles: their products are exact, so that rounded operands give what
float64 gives but for the last bits of float32 sums.
"""

import naive
import numpy as np
import pytest
from brain_floats import narrow, rounded
from convolutions import DIRECT, PRODUCT, WINOGRAD, case, close, expected_gradients, passes

from ensync.kernels import threads
from ensync.kernels.convolution import conv2d, tiled_gradient
from ensync.kernels.elementwise.activations import IDENTITY, RELU
from ensync.kernels.simd import host

pytestmark = [
    pytest.mark.compiled,
    pytest.mark.skipif(not host.AMX, reason="no matrix tiles (AMX) here"),
]
GROUPED = [sizes for sizes in WINOGRAD if sizes[-1] > 1]
GROUPED += [(3, 9, 7, 34, 48, 5, 1, 2, 2), (2, 9, 8, 40, 64, 3, 2, 1, 2)]
SIZES = [sizes for sizes in (*DIRECT, *PRODUCT, *WINOGRAD) if sizes[-1] == 1] + GROUPED
# One channel and one filter; sides below a tile's rows; more images than are laid out together.
SIZES += [
    (2, 6, 7, 1, 1, 3, 1, 1, 1),
    (3, 1, 1, 70, 20, 1, 1, 0, 1),
    (2, 17, 3, 48, 16, 5, 1, 2, 1),
    (200, 14, 14, 40, 72, 3, 1, 1, 1),
    (70, 16, 15, 64, 33, 3, 2, 1, 1),
]
# Filters that are small beside the images, and larger ones: (images, ..., parts of the images).
PARTS = {
    (5, 20, 20, 16, 16, 3, 1, 1, 1): 4,
    (137, 12, 11, 3, 20, 5, 2, 2, 1): 4,
    (200, 14, 14, 40, 72, 3, 1, 1, 1): 16,
    (40, 4, 4, 200, 200, 3, 1, 1, 1): 1,
}
SIZES += [sizes for sizes in PARTS if sizes not in SIZES]


def tiled(sizes):
    """A case with bf16 products, whose operands are bf16 numbers."""
    form, inputs, weights, bias, gradient = case(*sizes, np.float32)
    form = conv2d.Convolution(
        form.image, form.filter, form.outputs, form.stride, form.padding, form.groups, True
    )
    assert form.is_tiled and form.takes_bf16 and not form.is_winograd and not form.is_product
    return form, rounded(inputs), rounded(weights), bias, rounded(gradient)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_three_passes(sizes):
    form, inputs, weights, bias, gradient = tiled(sizes)
    found = passes(form, inputs, weights, bias, gradient)
    forward = naive.convolution(
        inputs, weights, bias, form.stride, form.padding, form.groups, form.outputs[:2]
    )
    expected = forward, *expected_gradients(form, inputs, weights, gradient)
    for one, other in zip(found, expected, strict=True):
        close(one, other, np.float32)


@pytest.mark.parametrize("sizes", [DIRECT[1], WINOGRAD[0], GROUPED[-1], *PARTS], ids=str)
def test_arrays_of_bf16_hold_the_same_numbers(sizes):
    """In bf16 images give the same weights' gradients to the bit, and images that are rounded."""
    form, inputs, weights, bias, gradient = tiled(sizes)
    zeros = np.zeros(form.image[2], np.float32)

    def run(keep):
        given, slope = keep(inputs), keep(gradient)
        outputs, back, weights_gradient = (np.empty_like(x) for x in (slope, given, weights))
        scratch = np.full(form.scratch_size(len(given), weights.dtype), np.nan, np.float32)
        conv2d.forward(form, given, weights, bias, RELU, scratch, outputs)
        conv2d.weight_gradient(form, given, slope, scratch, weights_gradient, zeros)
        conv2d.input_gradient(form, slope, weights, zeros, scratch, back)
        return weights_gradient, outputs, back

    (same, *halves), (exact, *images) = run(narrow), run(np.copy)
    np.testing.assert_array_equal(same, exact)
    for half, image in zip(halves, images, strict=True):
        np.testing.assert_array_equal(half, narrow(image))


@pytest.mark.parametrize("sizes", PARTS, ids=str)
def test_sums_are_apart_where_filters_are_small(sizes):
    form, *_ = tiled(sizes)
    of = tiled_gradient.Form(*form.image, *form.filter, *form.outputs, form.stride, *form.padding)
    assert tiled_gradient.gradient_parts(sizes[0], of) == PARTS[sizes]


def test_groups_of_few_channels_stay_in_float32():
    form = conv2d.Convolution((8, 8, 30), (3, 3), (8, 8, 32), 1, (1, 1), 2, True)
    assert not form.is_tiled and not form.takes_bf16


@pytest.mark.parametrize("sizes", [DIRECT[3], WINOGRAD[3], *PARTS], ids=str)
def test_threads_do_not_change_a_bit(sizes):
    arrays, found, before = tiled(sizes), [], threads.get_threads()
    for count in (1, before):
        threads.set_threads(count)
        found.append(passes(*arrays))
    threads.set_threads(before)
    for one, many in zip(*found, strict=True):
        np.testing.assert_array_equal(one, many)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_fewer_images_need_no_more_scratch(sizes):
    """A network reserves scratch once, for its largest batch."""
    form, *_ = tiled(sizes)
    needed = [form.scratch_size(n, np.dtype(np.float32)) for n in range(300)]
    assert needed == sorted(needed)


def test_nothing_is_written_beyond_the_scratch():
    for sizes in SIZES:
        form, inputs, weights, bias, gradient = tiled(sizes)
        size = form.scratch_size(len(inputs), inputs.dtype)
        scratch = np.full(size + 1024, 7, np.float32)
        outputs, slope = np.empty_like(gradient), np.empty_like(inputs)
        conv2d.forward(form, inputs, weights, bias, IDENTITY, scratch[:size], outputs)
        conv2d.weight_gradient(form, inputs, gradient, scratch[:size], np.empty_like(weights), bias)
        zeros = np.zeros(inputs.shape[3], np.float32)
        conv2d.input_gradient(form, gradient, weights, zeros, scratch[:size], slope)
        assert (scratch[size:] == 7).all(), sizes
