"""bf16 numbers: rounding against numpy's, products against exact ones of rounded operands,
convolutions against float64, and arrays of them.
"""

import naive
import numpy as np
import pytest
from brain_floats import narrow, rounded, widened
from numba import njit

from ensync.kernels import threads
from ensync.kernels.convolution import conv2d, separable
from ensync.kernels.elementwise import average_pooling, normalization, pooling
from ensync.kernels.elementwise.activations import IDENTITY, RELU
from ensync.kernels.flags import flag
from ensync.kernels.simd import bf16_gain, host, operands
from ensync.kernels.simd.host import bf16_missing, lanes_of
from ensync.kernels.simd.intrinsics import pointer
from ensync.kernels.simd.panels import ROWS, VECTORS, Strides, panel
from ensync.kernels.simd.vectors import load, pair, store, store_halves

pytestmark = pytest.mark.skipif(bool(bf16_missing()), reason=f"no bf16: {bf16_missing()}")
FULL = lanes_of(4)
TILES = pytest.param(
    True, marks=pytest.mark.skipif(not host.AMX, reason="no matrix tiles (AMX) here"), id="tiles"
)


@pytest.fixture(params=[pytest.param(False, id="vectors"), TILES])
def tiles(request, monkeypatch):
    """Whether products are by matrix tiles or by vectors."""
    monkeypatch.setattr(conv2d, "AMX", request.param)
    monkeypatch.setattr(operands, "AMX", request.param)
    return request.param


@njit
def halves(source, target):
    store_halves(pointer(target, 0), 0, load(pointer(source, 0), 0, 16))


def as_float(array):
    return widened(array) if array.dtype == np.uint16 else array


@njit
def pairs(a, b, target):
    store(pointer(target, 0), 0, pair(load(pointer(a, 0), 0, 16), load(pointer(b, 0), 0, 16)), 16)


def special_values():
    random = np.random.default_rng(1)
    tie = np.array(
        [1 + 2.0**-8, 1 + 3 * 2.0**-8, -1 - 2.0**-8, np.inf, -np.inf, 0.0, -0.0, 3e38], np.float32
    )
    return np.concatenate([tie, random.standard_normal(FULL - tie.size).astype(np.float32)])


def test_numbers_are_rounded_to_the_nearest():
    values, other = special_values(), special_values()[::-1].copy()
    side, mixed = np.zeros(FULL, np.float32), np.zeros(FULL, np.float32)
    halves(values, side)
    pairs(values, other, mixed)
    np.testing.assert_array_equal(
        side.view(np.uint16)[:FULL], rounded(values).view(np.uint32) >> 16
    )
    np.testing.assert_array_equal(
        mixed.view(np.uint32),
        rounded(values).view(np.uint32) >> 16 | rounded(other).view(np.uint32),
    )


def test_not_a_number_stays_one():
    found = np.zeros(FULL, np.float32)
    halves(np.full(FULL, np.nan, np.float32), found)
    assert np.isnan((found.view(np.uint16)[:FULL].astype(np.uint32) << 16).view(np.float32)).all()


@njit
def copied(source, target, count):
    store(pointer(target, 0), 0, load(pointer(source, 0), 0, count), count)


@pytest.mark.parametrize("count", [FULL, 5])
def test_an_array_of_bf16_is_widened_where_it_is_read_and_rounded_where_it_is_written(count):
    values = special_values()
    kept, back = np.full(FULL, 7, np.uint16), np.full(FULL, 7, np.float32)
    copied(values, kept, count)
    np.testing.assert_array_equal(kept, [*narrow(values)[:count], *[7] * (FULL - count)])
    copied(kept, back, count)
    np.testing.assert_array_equal(back[:count], rounded(values)[:count])
    assert (back[count:] == 7).all()


@pytest.mark.parametrize(
    "started,rows,vectors", [(False, ROWS, VECTORS), (True, 8, VECTORS), (True, 8, 1)]
)
def test_a_panel_is_the_product_of_rounded_numbers(started, rows, vectors):
    random, inner, width = np.random.default_rng(2), 18, vectors * FULL
    a, b = (
        random.standard_normal((rows, inner)).astype(np.float32),
        random.standard_normal((inner, width)).astype(np.float32),
    )
    c = random.standard_normal((rows, width)).astype(np.float32)
    expected = rounded(a).astype(float) @ rounded(b) + (c if started else 0)
    packed = (rounded(b[0::2]).view(np.uint32) >> 16 | rounded(b[1::2]).view(np.uint32)).view(
        np.float32
    )
    packed_a = (
        rounded(a[:, 0::2]).view(np.uint32) >> 16 | rounded(a[:, 1::2]).view(np.uint32)
    ).view(np.float32)
    kernel = panel(started, rows, vectors)

    @njit
    def run(a, b, c, bf16):
        strides = Strides(inner // 2, 1, width, width, width)
        to = pointer(c, 0)
        kernel(pointer(a, 0), pointer(b, 0), to, to, inner // 2, strides, bf16)

    run(packed_a, packed, c, flag(True))
    np.testing.assert_allclose(c, expected, rtol=0, atol=1e-5)


CASES = [
    (2, 9, 8, 16, 48),
    (3, 7, 7, 32, 16),
    (5, 12, 10, 64, 64),
    (2, 8, 8, 144, 128),  # this one in blocks that threads share
    (3, 5, 6, 16, 16),
    (3, 7, 13, 32, 48),
    (5, 14, 9, 64, 32),
    (2, 17, 14, 32, 32),
    (4, 7, 14, 256, 256),
    (61, 7, 8, 128, 144),
]


def passes(case, bf16, dtype, keep=np.asarray):
    """The arrays that the three passes write; `keep` makes those of images what lies in memory."""
    n, h, w, c, k = case
    random, form = (
        np.random.default_rng(h + c),
        conv2d.Convolution((h, w, c), (3, 3), (h, w, k), 1, (1, 1), 1, bf16),
    )
    inputs, weights, gradient = (
        random.standard_normal(shape).astype(dtype)
        for shape in ((n, h, w, c), form.weights_shape, (n, h, w, k))
    )
    inputs, gradient = keep(inputs), keep(gradient)
    found = [
        np.full_like(x, 0x7FFF if x.dtype == np.uint16 else np.nan)
        for x in (gradient, inputs, weights)
    ]
    scratch, zeros = (
        np.full(form.scratch_size(n, np.dtype(dtype)), np.nan, dtype),
        np.zeros(max(c, k), dtype),
    )
    conv2d.forward(form, inputs, weights, zeros[:k], IDENTITY, scratch, found[0])
    conv2d.input_gradient(form, gradient, weights, zeros[:c], scratch, found[1])
    conv2d.weight_gradient(form, inputs, gradient, scratch, found[2], zeros[:k])
    return found


def spread(found, expected):
    return np.sqrt(np.mean((found - expected) ** 2)) / expected.std()


@pytest.mark.parametrize("keep", [np.asarray, narrow])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_convolution_is_near_the_exact_one(case, keep, tiles):
    """By 1.5 % of the results' spread: four times what rounding the operands costs, for the 4x4
    tiles of Winograd's algorithm.
    """
    for found, exact in zip(
        passes(case, True, np.float32, keep), passes(case, None, np.float64), strict=True
    ):
        assert 1e-3 < spread(as_float(found), exact) < 0.015


@pytest.mark.parametrize("keep", [np.asarray, narrow])
@pytest.mark.parametrize("c,k", [(32, 48), (5, 33)])
def test_filters_of_one_pixel_are_products_of_rounded_operands(c, k, keep, tiles):
    n, h, w = 3, 7, 6
    random, form = (
        np.random.default_rng(c),
        conv2d.Convolution((h, w, c), (1, 1), (h, w, k), 1, (0, 0), 1, True),
    )
    x, g, weights = (
        rounded(random.standard_normal(shape))
        for shape in ((n, h, w, c), (n, h, w, k), form.weights_shape)
    )
    bias, zeros = random.standard_normal(k).astype(np.float32), np.zeros(c, np.float32)
    inputs, gradient = keep(x), keep(g)
    assert form.takes_bf16
    scratch = np.full(form.scratch_size(n, np.dtype(np.float32)), np.nan, np.float32)
    outputs, slope = np.empty_like(gradient), np.empty_like(inputs)
    weights_gradient, bias_gradient = np.empty_like(weights), np.empty_like(bias)
    conv2d.forward(form, inputs, weights, bias, RELU, scratch, outputs)
    conv2d.input_gradient(form, gradient, weights, zeros, scratch, slope)
    conv2d.weight_gradient(form, inputs, gradient, scratch, weights_gradient, bias_gradient)
    flat, slopes, matrix = (a.reshape(-1, a.shape[-1]).astype(float) for a in (x, g, weights))
    for found, expected in (
        (outputs, np.maximum(flat @ matrix + bias, 0)),
        (slope, slopes @ matrix.T),
        (weights_gradient, flat.T @ slopes),
    ):
        tolerance = 4e-3 if found.dtype == np.uint16 else 2e-6
        np.testing.assert_allclose(
            as_float(found).reshape(expected.shape),
            expected,
            rtol=tolerance,
            atol=2e-6 * np.abs(expected).max(),
        )


def test_a_convolution_in_groups_takes_bf16_arrays(tiles):
    n, h, w, c, k, groups = 2, 7, 6, 32, 64, 2
    random, form = (
        np.random.default_rng(3),
        conv2d.Convolution((h, w, c), (3, 3), (h, w, k), 1, (1, 1), groups, True),
    )
    assert form.takes_bf16
    inputs, gradient = (
        rounded(random.standard_normal(shape)) for shape in ((n, h, w, c), (n, h, w, k))
    )
    weights, bias = (
        random.standard_normal(form.weights_shape).astype(np.float32),
        random.standard_normal(k).astype(np.float32),
    )

    def run(keep):
        x, g, scratch = (
            keep(inputs),
            keep(gradient),
            np.empty(form.scratch_size(n, np.dtype(np.float32)), np.float32),
        )
        outputs, slope, weights_gradient, bias_gradient = (
            np.empty_like(g),
            np.empty_like(x),
            np.empty_like(weights),
            np.empty_like(bias),
        )
        conv2d.forward(form, x, weights, bias, RELU, scratch, outputs)
        conv2d.close_activation(RELU, outputs, g, scratch, bias_gradient)
        conv2d.weight_gradient(form, x, g, scratch, weights_gradient, bias_gradient)
        conv2d.input_gradient(form, g, weights, np.zeros(c, np.float32), scratch, slope)
        return outputs, slope, weights_gradient, bias_gradient

    for found, expected in zip(run(narrow), run(np.copy), strict=True):
        np.testing.assert_array_equal(
            *(as_float(found), rounded(expected)) if found.dtype == np.uint16 else (found, expected)
        )


def test_channels_that_do_not_fill_vectors_stay_in_float32(monkeypatch):
    monkeypatch.setattr(conv2d, "AMX", False)
    case = (2, 9, 8, 20, 33)
    for found, plain in zip(
        passes(case, True, np.float32), passes(case, None, np.float32), strict=True
    ):
        np.testing.assert_array_equal(found, plain)


def separable_passes(dtype, bf16, keep=np.asarray, normalized=True, sizes=(3, 9, 5, 32, 64)):
    """The arrays that a separable unit writes; `keep` makes those of images what lies in memory."""
    (n, h, w, c, k), random = sizes, np.random.default_rng(4)
    draw = lambda *shape: random.standard_normal(shape).astype(dtype)  # noqa: E731
    z, gradient, skip = (
        keep(rounded(draw(n, h, w, channels)).astype(dtype)) for channels in (c, k, c)
    )
    before = draw(3, c) if normalized else np.repeat(np.array([[0], [1], [0]], dtype), c, axis=1)
    depth, weights, bias, after, coefficients, zeros = (
        draw(3, 3, c),
        draw(c, k),
        draw(k),
        draw(3, k),
        draw(2, k),
        np.zeros(k, dtype),
    )
    scratch = np.full(separable.scratch_size((h, w, c), 3, k), np.nan, dtype)
    outputs, slope, depth_gradient, weights_gradient = (
        np.full_like(x, 0x7FFF if x.dtype == np.uint16 else np.nan)
        for x in (gradient, z, depth, weights)
    )
    sums, sums_before = np.empty((2, k)), np.zeros((2, c))
    given = separable.Input(z, before, normalized)
    filters = separable.Filters(depth, zeros, weights, bias)
    buffers = separable.Buffers(scratch, np.empty((n, 3, k), dtype))
    separable.separable_forward(given, filters, outputs, sums, buffers, bf16)
    separable.separable_backward(
        separable.Output(gradient, outputs, after, False, coefficients),
        given,
        filters,
        skip,
        separable.Gradients(slope, depth_gradient, weights_gradient),
        sums_before,
        separable.Buffers(scratch, np.empty((n, 3, c), dtype)),
        bf16,
    )
    return [outputs, sums, slope, depth_gradient, weights_gradient, *[sums_before] * normalized]


@pytest.mark.parametrize(
    "keep,normalized", [(np.asarray, True), (np.asarray, False), (narrow, True), (narrow, False)]
)
def test_a_separable_unit_is_near_the_exact_one(keep, normalized, tiles):
    found = separable_passes(np.float32, True, keep, normalized)
    for one, exact in zip(
        found, separable_passes(np.float64, None, normalized=normalized), strict=True
    ):
        assert 1e-5 < spread(as_float(one), exact) < 0.006


@pytest.mark.parametrize("h,w", [(2, 4), (3, 5), (4, 4), (3, 7), (1, 33), (13, 5)])
def test_separable_units_of_images_smaller_than_tiles(h, w, tiles):
    sizes = (2, h, w, 32, 32)
    found = separable_passes(np.float32, True, narrow, True, sizes)
    for one, exact in zip(found, separable_passes(np.float64, None, sizes=sizes), strict=True):
        assert 1e-5 < spread(as_float(one), exact) < 0.008


@pytest.mark.parametrize("c", [64, 19])
def test_normalisation_and_pooling_of_bf16_arrays_are_those_of_the_same_numbers_in_float32(c):
    n, random = 3, np.random.default_rng(c)
    draw = lambda *shape: random.standard_normal(shape).astype(np.float32)  # noqa: E731
    affine, coefficients, images, slopes, small = (
        draw(3, c),
        draw(2, c),
        draw(n, 8, 6, c),
        draw(n, 8, 6, c),
        draw(n, 4, 3, c),
    )

    def passes(keep):
        x, g, above = (keep(rounded(values)) for values in (images, slopes, small))
        flat, given, partial = (
            x.reshape(-1, c),
            g.reshape(-1, c),
            np.empty((normalization.blocks(n * 48), 3, c), np.float32),
        )
        normal, behind, pooled, back, spread_back = (
            np.empty_like(flat),
            np.empty_like(given),
            np.empty_like(above),
            np.empty_like(x),
            np.empty_like(x),
        )
        sums, gradient_sums, means, chosen = (
            np.empty((2, c)),
            np.empty((2, c)),
            np.empty((n, c), np.float32),
            np.empty(above.shape, np.uint8),
        )
        normalization.channel_sums(flat, partial, sums)
        normalization.normalize(flat, affine, given, True, normal)
        normalization.channel_gradient_sums(given, flat, affine, True, partial, gradient_sums)
        normalization.normalize_backward(given, flat, affine, True, coefficients, behind)
        pooling.max_pool_forward(x, (2, 2), 2, (0, 0), pooled, chosen)
        pooling.max_pool_backward(above, chosen, (2, 2), 2, (0, 0), back)
        average_pooling.global_average_forward(x, means)
        average_pooling.global_average_backward(means, spread_back)
        return sums, gradient_sums, means, chosen, normal, behind, pooled, back, spread_back

    for found, expected in zip(passes(narrow), passes(np.asarray), strict=True):
        np.testing.assert_array_equal(
            *(as_float(found), rounded(expected)) if found.dtype == np.uint16 else (found, expected)
        )


def test_every_tap_of_a_large_window_of_bf16_takes_its_own_gradient():
    images, gradient = (
        rounded(np.random.default_rng(1).standard_normal((2, side, side, 19))) for side in (17, 1)
    )
    window, chosen, found = (
        ((17, 17), 1, (0, 0)),
        np.empty(gradient.shape, pooling.tap_type((17, 17))),
        np.empty(images.shape, np.uint16),
    )
    pooling.max_pool_forward(narrow(images), *window, narrow(gradient), chosen)
    pooling.max_pool_backward(narrow(gradient), chosen, *window, found)
    np.testing.assert_array_equal(
        widened(found), naive.max_pool_gradient(images, gradient, *window)
    )


def test_threads_do_not_change_a_bit(tiles):
    before, found = threads.get_threads(), []
    for count in (1, before):
        threads.set_threads(count)
        found.append(
            [
                *passes(CASES[2], True, np.float32),
                *passes(CASES[8], True, np.float32),
                *separable_passes(np.float32, True, narrow),
            ]
        )
    threads.set_threads(before)
    for one, many in zip(*found, strict=True):
        np.testing.assert_array_equal(one, many)


def test_the_gain_is_the_ratio_of_the_shortest_times(monkeypatch):
    times = {
        None: iter([1.0, 9.0, 8.0, 6.0, 7.0, 9.0]),  # the first compiles
        flag(True): iter([1.0, 5.0, 3.0, 4.0, 5.0, 5.0]),
    }
    monkeypatch.setattr(bf16_gain, "_time", lambda a, b, c, bf16: next(times[bf16]))
    assert bf16_gain.bf16_gain() == 2.0
