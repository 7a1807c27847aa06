"""Sizes of convolutions, their three passes, and what is expected of these by obvious numpy."""

import naive
import numpy as np

from ensync.kernels.convolution import conv2d as c
from ensync.kernels.elementwise.activations import GELU, IDENTITY

# n, h, w, channels, filters, size, stride, padding, groups
DIRECT = [
    (2, 9, 8, 3, 5, 3, 1, 1, 1),
    (9, 6, 7, 20, 8, 3, 2, 1, 1),
    (2, 13, 11, 4, 6, 5, 2, 2, 2),
    (1, 23, 23, 3, 17, 11, 4, 2, 1),
    (3, 10, 12, 6, 6, 5, 1, 2, 1),
    (9, 5, 9, 1, 1, 3, 1, 1, 1),
    (2, 20, 20, 1, 34, 3, 1, 1, 1),
    (1, 6, 6, 4, 4, 3, 1, 0, 4),
    (2, 7, 6, 6, 8, 1, 2, 0, 1),
    (2, 5, 6, 3, 5, 3, 1, 7, 1),
    (1, 3, 2, 20, 20, 3, 1, 4, 1),
    (2, 5, 6, 4, 6, 3, 3, 5, 2),
    (2, 5, 6, 4, 6, 1, 1, 2, 1),
]  # the last four: windows that see only zeros
PRODUCT = [(2, 8, 7, 6, 9, 1, 1, 0, 1)]
WINOGRAD = [
    (2, 9, 8, 16, 33, 3, 1, 1, 1),
    (3, 7, 7, 17, 40, 3, 1, 1, 1),
    (1, 10, 6, 16, 16, 3, 1, 0, 1),
    (33, 4, 4, 20, 16, 3, 1, 2, 1),
    (10, 15, 15, 130, 129, 3, 1, 1, 1),
    (3, 9, 8, 32, 66, 3, 1, 1, 2),
    (2, 7, 7, 51, 48, 3, 1, 0, 3),
]
# Sides in tiles of four, three and both, images of one tile, and blocks with several kinds of
# tiles; the last in blocks that threads share.
SIDES = [
    (2, 5, 6, 16, 16, 3, 1, 1, 1),
    (3, 7, 13, 17, 16, 3, 1, 1, 1),
    (5, 14, 9, 16, 34, 3, 1, 1, 1),
    (2, 17, 14, 16, 20, 3, 1, 1, 1),
    (3, 13, 17, 20, 16, 3, 1, 2, 1),
    (40, 3, 1, 16, 16, 3, 1, 1, 1),
    (2, 2, 12, 16, 16, 3, 1, 1, 1),
    (2, 7, 10, 34, 32, 3, 1, 0, 2),
    (60, 7, 6, 16, 17, 3, 1, 1, 1),
    (4, 7, 14, 256, 256, 3, 1, 1, 1),
    (36, 7, 8, 128, 130, 3, 1, 1, 1),
]
# Filters that are small beside the images, whose tiles are summed in parts: each in one block, and
# in several.
PARTS = [(6, 24, 23, 16, 16, 3, 1, 1, 1), (70, 14, 13, 40, 33, 3, 1, 1, 1)]
WINOGRAD += SIDES + PARTS
TOLERANCE = {np.float32: 2e-5, np.float64: 1e-12}


def case(n, h, w, channels, filters, size, stride, padding, groups, dtype):
    random = np.random.default_rng(h * w + channels)
    oh, ow = (h + 2 * padding - size) // stride + 1, (w + 2 * padding - size) // stride + 1
    form = c.Convolution(
        (h, w, channels), (size, size), (oh, ow, filters), stride, (padding, padding), groups
    )
    shapes = (n, h, w, channels), form.weights_shape, (filters,), (n, *form.outputs)
    return form, *(random.standard_normal(shape).astype(dtype) for shape in shapes)


def passes(form, inputs, weights, bias, gradient, code=IDENTITY):
    """Run all passes into arrays filled with NaN, so that what is not written shows; the scratch
    too.
    """
    outputs, slope, weights_gradient, bias_gradient = (
        np.full_like(x, np.nan) for x in (gradient, inputs, weights, bias)
    )
    scratch = np.full(form.scratch_size(len(inputs), inputs.dtype), np.nan, inputs.dtype)
    gradient = gradient.copy()
    c.forward(form, inputs, weights, bias, IDENTITY if code == GELU else code, scratch, outputs)
    c.close_activation(code, outputs, gradient, scratch, bias_gradient)
    c.weight_gradient(form, inputs, gradient, scratch, weights_gradient, bias_gradient)
    c.input_gradient(
        form, gradient, weights, np.zeros(inputs.shape[3], inputs.dtype), scratch, slope
    )
    return outputs, slope, weights_gradient, bias_gradient


def close(found, expected, dtype):
    np.testing.assert_allclose(
        found, expected, rtol=0, atol=TOLERANCE[dtype] * max(1, np.abs(expected).max(initial=0))
    )


def expected_gradients(form, inputs, weights, gradient):
    """The forward pass is linear: its transposed application, one sum per tap."""
    slope, weights_gradient = np.zeros(inputs.shape), np.zeros(weights.shape)
    (oh, ow, k), groups = form.outputs, form.groups
    seen = naive.windows(inputs, form.filter, form.stride, form.padding, (oh, ow))
    pad = np.zeros((len(inputs), inputs.shape[1] + 40, inputs.shape[2] + 40, inputs.shape[3]))
    ci, co = inputs.shape[3] // groups, k // groups
    for group in range(groups):
        some, out = slice(group * ci, (group + 1) * ci), slice(group * co, (group + 1) * co)
        weights_gradient[..., out] = np.einsum(
            "nyxabc,nyxo->abco", seen[..., some], gradient[..., out].astype(float)
        )
        back = np.einsum("nyxo,abco->nyxabc", gradient[..., out].astype(float), weights[..., out])
        for y in range(oh):
            for x in range(ow):
                top, left = (
                    20 + y * form.stride - form.padding[0],
                    20 + x * form.stride - form.padding[1],
                )
                pad[:, top : top + form.filter[0], left : left + form.filter[1], some] += back[
                    :, y, x
                ]
    slope[:] = pad[:, 20 : 20 + inputs.shape[1], 20 : 20 + inputs.shape[2]]
    return slope, weights_gradient, gradient.sum(axis=(0, 1, 2))
