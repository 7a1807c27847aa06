"""The three ways of convolution against obvious numpy, their gradients against the forward
pass's own definition.
"""

import naive
import numpy as np
import pytest
from convolutions import (
    DIRECT,
    PARTS,
    PRODUCT,
    SIDES,
    WINOGRAD,
    case,
    close,
    expected_gradients,
    passes,
)
from forced_vectors import start, succeeds

from ensync.kernels import threads
from ensync.kernels.convolution import conv2d, winograd
from ensync.kernels.elementwise.activations import GELU, IDENTITY, RELU
from ensync.kernels.simd.host import SIMD, VECTOR_BYTES


def sized(sizes):
    """Return sizes as a parameter; large ones are for compiled kernels."""
    n, h, w, channels, filters, *_ = sizes
    large = n * h * w * channels * filters > 16_000
    return pytest.param(sizes, marks=pytest.mark.compiled if large else ())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("sizes", [*map(sized, DIRECT + PRODUCT + WINOGRAD)], ids=str)
def test_three_passes(sizes, dtype):
    form, inputs, weights, bias, gradient = case(*sizes, dtype)
    assert form.is_winograd == (sizes in WINOGRAD) and form.is_product == (sizes in PRODUCT)
    found = passes(form, inputs, weights, bias, gradient)
    outputs = naive.convolution(
        inputs, weights, bias, form.stride, form.padding, form.groups, form.outputs[:2]
    )
    for one, other in zip(
        found, (outputs, *expected_gradients(form, inputs, weights, gradient)), strict=True
    ):
        close(one, other, dtype)


@pytest.mark.parametrize("sizes", [*map(sized, [SIDES[0], SIDES[1]])], ids=str)
@pytest.mark.parametrize("parts", [2, 3])
def test_tiles_are_summed_in_parts(sizes, parts, monkeypatch):
    """As those of many images are."""
    monkeypatch.setattr(winograd, "gradient_parts", lambda inputs, outputs: parts)
    form, inputs, weights, bias, gradient = case(*sizes, np.float32)
    found = passes(form, inputs, weights, bias, gradient)[2]
    close(found, expected_gradients(form, inputs, weights, gradient)[1], np.float32)


@pytest.mark.parametrize("sizes", WINOGRAD, ids=str)
def test_fewer_images_need_no_more_scratch(sizes):
    """A network reserves scratch once, for its largest batch."""
    form, *_ = case(*sizes, np.float32)
    needed = [form.scratch_size(n, np.dtype(np.float32)) for n in range(300)]
    assert needed == sorted(needed)


@pytest.mark.compiled
def test_nothing_is_written_beyond_the_scratch():
    for sizes in PARTS:
        form, inputs, weights, bias, gradient = case(*sizes, np.float32)
        assert winograd.gradient_parts(inputs.shape, gradient.shape) > 1
        size = form.scratch_size(len(inputs), inputs.dtype)
        scratch = np.full(size + 1024, 7, np.float32)
        conv2d.weight_gradient(form, inputs, gradient, scratch[:size], np.empty_like(weights), bias)
        assert (scratch[size:] == 7).all(), sizes


@pytest.mark.parametrize("sizes", [*map(sized, [DIRECT[0], PRODUCT[0], WINOGRAD[0]])], ids=str)
def test_relu_is_part_of_both_directions(sizes):
    form, inputs, weights, bias, gradient = case(*sizes, np.float32)
    found = passes(form, inputs, weights, bias, gradient, RELU)
    outputs = naive.convolution(
        inputs, weights, bias, form.stride, form.padding, form.groups, form.outputs[:2]
    )
    close(found[0], np.maximum(outputs, 0), np.float32)
    close(found[3], np.where(found[0] > 0, gradient, 0).sum(axis=(0, 1, 2)), np.float32)


def test_the_gradient_behind_gelu_is_a_function_of_the_sums():
    form, inputs, weights, bias, gradient = case(*DIRECT[0], np.float32)
    sums, *_, bias_gradient = passes(form, inputs, weights, bias, gradient, GELU)
    slope = naive.activation_slope("gelu", sums.astype(float))
    close(bias_gradient, (gradient * slope).sum(axis=(0, 1, 2)), np.float32)


@pytest.mark.parametrize("code", [IDENTITY, RELU])
@pytest.mark.parametrize("sizes", [DIRECT[0], PRODUCT[0], WINOGRAD[0]], ids=str)
def test_what_is_not_a_number_stays_so(sizes, code):
    form, inputs, weights, bias, gradient = case(*sizes, np.float32)
    inputs[-1] = np.nan
    outputs, *_ = passes(form, inputs, weights, bias, gradient, code)
    assert np.isnan(outputs[-1]).all() and np.isfinite(outputs[0]).all()


@pytest.mark.parametrize("sizes", [DIRECT[1], PRODUCT[0], WINOGRAD[0]], ids=str)
def test_no_images_give_no_gradient(sizes):
    form, inputs, weights, bias, gradient = case(0, *sizes[1:], np.float32)
    _, _, weights_gradient, bias_gradient = passes(form, inputs, weights, bias, gradient)
    assert not weights_gradient.any() and not bias_gradient.any()


@pytest.mark.parametrize(
    "sizes", [DIRECT[1], WINOGRAD[3], WINOGRAD[5], SIDES[2], SIDES[9], *PARTS], ids=str
)
@pytest.mark.compiled
def test_threads_do_not_change_a_bit(sizes):
    arrays, found, before = case(*sizes, np.float32), [], threads.get_threads()
    for count in (1, before):
        threads.set_threads(count)
        found.append(passes(*arrays))
    threads.set_threads(before)
    for one, many in zip(*found, strict=True):
        np.testing.assert_array_equal(one, many)


@pytest.mark.compiled
def test_agrees_with_pytorch():
    torch = pytest.importorskip("torch")
    for sizes in (WINOGRAD[0], WINOGRAD[5], DIRECT[2]):
        form, inputs, weights, bias, gradient = case(*sizes, np.float32)
        x, w = torch.tensor(inputs).permute(0, 3, 1, 2), torch.tensor(weights).permute(3, 2, 0, 1)
        x.requires_grad_(), w.requires_grad_()
        outputs = torch.nn.functional.conv2d(
            x, w, torch.tensor(bias), form.stride, form.padding, 1, form.groups
        )
        outputs.backward(torch.tensor(gradient).permute(0, 3, 1, 2))
        found = passes(form, inputs, weights, bias, gradient)
        close(found[0], outputs.detach().permute(0, 2, 3, 1).numpy(), np.float32)
        close(found[1], x.grad.permute(0, 2, 3, 1).numpy(), np.float32)
        close(found[2], w.grad.permute(2, 3, 1, 0).numpy(), np.float32)


@pytest.mark.parametrize("form", [name for name in VECTOR_BYTES if name != SIMD])
@pytest.mark.compiled
def test_every_form_of_vectors(form):
    """One type each: both are compiled in the host's own form."""
    dtype = "float64" if form == "plain" else "float32"
    program = (
        f"import test_conv2d as t, numpy as np; t.test_three_passes(t.WINOGRAD[1], np.{dtype})"
    )
    succeeds(start(program, form, __file__), limit=300)
