"""The fused unit against the kernels that it fuses, which have tests of their own."""

import numpy as np
import pytest

from ensync.kernels import threads
from ensync.kernels.convolution import depthwise, separable
from ensync.kernels.elementwise import normalization

CASES = [
    (2, 8, 7, 32, 64, True, True, False),
    (3, 7, 5, 64, 32, False, False, True),
    (18, 5, 5, 32, 32, True, False, True),
]
pytestmark = pytest.mark.compiled  # its arrays are large
TOLERANCE = {np.float32: 2e-5, np.float64: 1e-12}


def case(n, h, w, c, k, normalized, relu, skipped, dtype):
    random = np.random.default_rng(h * w + c)
    shapes = {
        "z": (n, h, w, c),
        "before": (3, c),
        "depthwise": (3, 3, c),
        "weights": (c, k),
        "bias": (k,),
        "gradient": (n, h, w, k),
        "after": (3, k),
        "coefficients": (2, k),
        "skip": (n if skipped else 0, h, w, c),
    }
    arrays = {name: random.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}
    if not normalized:
        arrays["before"][:] = [[0], [1], [0]]
    return arrays, normalized, relu


def fused(arrays, normalized, relu):
    a, dtype = arrays, arrays["z"].dtype
    (n, h, w, c), k = a["z"].shape, a["bias"].size
    scratch = np.full(separable.scratch_size((h, w, c), 3, k), np.nan, dtype)
    zeros, sums, sums_before = (
        np.zeros(max(c, k), dtype),
        np.full((2, k), np.nan),
        np.full((2, c), np.nan),
    )
    outputs, slope, *gradients = (
        np.full_like(a[name], np.nan) for name in ("gradient", "z", "depthwise", "weights")
    )
    given = separable.Input(a["z"], a["before"], normalized)
    filters = separable.Filters(a["depthwise"], zeros, a["weights"], a["bias"])
    buffers = separable.Buffers(scratch, np.empty((n, 3, k), dtype))
    separable.separable_forward(given, filters, outputs, sums, buffers)
    separable.separable_backward(
        separable.Output(a["gradient"], outputs, a["after"], relu, a["coefficients"]),
        given,
        filters,
        a["skip"],
        separable.Gradients(slope, *gradients),
        sums_before,
        separable.Buffers(scratch, np.empty((n, 3, c), dtype)),
    )
    return [outputs, sums, slope, *gradients] + [sums_before] * normalized


def one_after_the_other(arrays, normalized, relu):
    a, dtype = arrays, arrays["z"].dtype
    (c, k), (center, scale, shift) = a["weights"].shape, a["before"]
    x = np.maximum((a["z"] - center) * scale + shift, 0) if normalized else a["z"]
    d, behind, slope, depth_gradient = (
        np.empty_like(x),
        np.empty_like(a["gradient"]),
        np.empty_like(x),
        np.empty_like(a["depthwise"]),
    )
    depthwise.depthwise_forward(x, a["depthwise"], np.zeros(c, dtype), 1, (1, 1), d)
    outputs = d @ a["weights"] + a["bias"]
    flat = [v.reshape(-1, k) for v in (a["gradient"], outputs, behind)]
    normalization.normalize_backward(*flat[:2], a["after"], relu, a["coefficients"], flat[2])
    from_pointwise = behind @ a["weights"].T
    depthwise.depthwise_input_gradient(
        from_pointwise, a["depthwise"], np.zeros(c, dtype), 1, (1, 1), slope
    )
    depthwise.depthwise_weight_gradient(
        x,
        from_pointwise,
        1,
        (1, 1),
        np.empty((len(x), *depth_gradient.shape), dtype),
        depth_gradient,
    )
    slope = slope + a["skip"] if len(a["skip"]) else slope
    masked = np.where(x > 0, slope, 0)
    sums = np.stack([outputs.sum((0, 1, 2)), outputs.var((0, 1, 2)) * (outputs.size // k)])
    sums_before = [
        np.stack([masked.sum((0, 1, 2)), (masked * (a["z"] - center)).sum((0, 1, 2))])
    ] * normalized
    return [
        outputs,
        sums,
        slope,
        depth_gradient,
        d.reshape(-1, c).T @ behind.reshape(-1, k),
        *sums_before,
    ]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("sizes", CASES, ids=str)
def test_equals_the_kernels_one_after_the_other(sizes, dtype):
    arguments = case(*sizes, dtype)
    for one, other in zip(fused(*arguments), one_after_the_other(*arguments), strict=True):
        np.testing.assert_allclose(
            one, other, rtol=0, atol=TOLERANCE[dtype] * max(1, np.abs(other).max())
        )


def test_no_images_give_no_gradient():
    found = fused(*case(0, 8, 8, 32, 32, True, True, False, np.float32))
    assert not any(array.any() for array in found[1:2] + found[3:])


def test_threads_do_not_change_a_bit():
    found, before = [], threads.get_threads()
    for count in (1, before):
        threads.set_threads(count)
        found.append(fused(*case(*CASES[2], np.float32)))
    threads.set_threads(before)
    for one, many in zip(*found, strict=True):
        np.testing.assert_array_equal(one, many)
