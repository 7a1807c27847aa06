"""Convolutions, pooling and normalisation at the layers' real shapes, batch 32, beside PyTorch's
own operators in the same run.

python tests/bench/convolution_kernels.py     JSON lines: kernel, shape, pass, threads, us,
PyTorch's us, floor_us The floor of a convolution is its plain arithmetic at today's multiply-add
peak (Winograd may pass below it), that of the other kernels the bytes they must read and write at
today's copying speed. One thread's times are its own processor time.
"""

import importlib.util

import numpy as np
from harness import emit, environment
from peaks import copy_bandwidth, multiply_add_peak, peaks, shortest

from ensync.kernels import threads
from ensync.kernels.convolution import conv2d, depthwise, separable
from ensync.kernels.elementwise import normalization, pooling, response
from ensync.kernels.elementwise.activations import RELU
from ensync.nn.memory import empty

ROWS, FLOAT = 32, np.dtype(np.float32)
# image side, input channels, filters, size
CONVOLUTIONS = [
    (28, 1, 64, 3),
    (28, 64, 64, 3),
    (14, 64, 128, 3),
    (14, 128, 128, 3),
    (7, 128, 256, 3),
    (7, 256, 256, 3),
    (32, 3, 32, 3),
    (32, 32, 64, 3),
    (32, 64, 64, 1),
    (32, 128, 128, 1),
]
DEPTHWISE = [(32, 64), (32, 128)]
ROUNDS = 12


def filled(*shape: int) -> np.ndarray:
    """Return random numbers that start at a multiple of 64 bytes."""
    array = empty(shape, FLOAT)
    array[...] = np.random.default_rng(0).standard_normal(shape)
    return array


def convolution_passes(side: int, c: int, k: int, size: int) -> dict:
    """Return the passes of a convolution as functions without arguments."""
    form = conv2d.Convolution(
        (side, side, c), (size, size), (side, side, k), 1, (size // 2, size // 2)
    )
    inputs, outputs, weights, bias = (
        filled(ROWS, side, side, c),
        filled(ROWS, side, side, k),
        filled(*form.weights_shape),
        filled(k),
    )
    slope, zeros, scratch = (
        filled(ROWS, side, side, c),
        np.zeros(c, FLOAT),
        filled(form.scratch_size(ROWS, FLOAT)),
    )
    return {
        "forward": lambda: conv2d.forward(form, inputs, weights, bias, RELU, scratch, outputs),
        "input gradient": lambda: conv2d.input_gradient(
            form, outputs, weights, zeros, scratch, slope
        ),
        "weight gradient": lambda: conv2d.weight_gradient(
            form, inputs, outputs, scratch, weights, bias
        ),
    }


def depthwise_passes(side: int, c: int) -> dict:
    """Return the passes of a depthwise 3x3 convolution."""
    inputs, outputs, weights = (
        filled(ROWS, side, side, c),
        filled(ROWS, side, side, c),
        filled(3, 3, c),
    )
    zeros, partial = np.zeros(c, FLOAT), filled(ROWS, 3, 3, c)
    return {
        "forward": lambda: depthwise.depthwise_forward(inputs, weights, zeros, 1, (1, 1), outputs),
        "input gradient": lambda: depthwise.depthwise_input_gradient(
            outputs, weights, zeros, 1, (1, 1), inputs
        ),
        "weight gradient": lambda: depthwise.depthwise_weight_gradient(
            inputs, outputs, 1, (1, 1), partial, weights
        ),
    }


def torch_passes(side: int, c: int, k: int, size: int, groups: int) -> dict:
    """Return PyTorch's passes of the same convolution, channels last; none where it is not
    installed.
    """
    if importlib.util.find_spec("torch") is None:
        return {}
    import torch

    torch.set_num_threads(threads.get_threads())
    inputs, outputs = (
        torch.tensor(filled(ROWS, side, side, n)).permute(0, 3, 1, 2) for n in (c, k)
    )
    weights = torch.tensor(filled(k, c // groups, size, size)).contiguous(
        memory_format=torch.channels_last
    )
    bias = torch.tensor(filled(k)) if groups == 1 else None

    def backward(*mask: bool):
        options = [1, 1], [size // 2] * 2, [1, 1], False, [0, 0], groups
        return lambda: torch.ops.aten.convolution_backward(
            outputs, inputs, weights, [k] if groups == 1 else None, *options, mask
        )

    def forward():
        found = torch.nn.functional.conv2d(inputs, weights, bias, 1, size // 2, 1, groups)
        return found if groups > 1 else found.relu_()

    with torch.no_grad():
        return {
            "forward": forward,
            "input gradient": backward(True, False, False),
            "weight gradient": backward(False, True, groups == 1),
        }


def compare(kernel: str, shape: tuple, ours: dict, theirs: dict, floor: float, work: float) -> None:
    """Measure each pass of both, in turns, and print it."""
    for name, run in ours.items():
        times = [
            (
                shortest(run, ROUNDS // 3),
                shortest(theirs[name], ROUNDS // 3) if name in theirs else None,
            )
            for _ in range(3)
        ]
        seconds, other = (
            None if None in column else min(column) for column in zip(*times, strict=True)
        )
        emit(
            {
                "kernel": kernel,
                "shape": shape,
                "pass": name,
                "threads": threads.get_threads(),
                "us": 1e6 * seconds,
                "torch_us": None if other is None else 1e6 * other,
                "floor_us": 1e6 * floor,
                "of_floor": floor / seconds,
                "times_faster": None if other is None else other / seconds,
                "gflops": work / seconds / 1e9,
            }
        )


def other_kernels(side: int, c: int) -> dict:
    """Return normalisations and pooling with the bytes that each must move, as (bytes,
    function).
    """
    rows, size = ROWS * side * side, 4 * ROWS * side * side * c
    values, gradient, out, pooled = (
        filled(rows, c),
        filled(rows, c),
        filled(rows, c),
        filled(ROWS, side // 2, side // 2, c),
    )
    affine, factors, skip = filled(3, c), filled(2, c), np.zeros((0, c), FLOAT)
    partial, sums, chosen = (
        filled(normalization.blocks(rows), 3, c),
        np.zeros((2, c)),
        np.zeros(pooled.shape, np.uint8),
    )
    picture = values.reshape(ROWS, side, side, c)
    window, response_settings = (
        ((2, 2), 2, (0, 0)),
        (2.0, 5, 1e-4, 0.75, filled(response.scratch_size(c, 5, FLOAT.itemsize))),
    )
    return {
        "channel sums": (size, lambda: normalization.channel_sums(values, partial, sums)),
        "normalize, relu": (
            2 * size,
            lambda: normalization.normalize(values, affine, skip, True, out),
        ),
        "gradient sums": (
            2 * size,
            lambda: normalization.channel_gradient_sums(
                gradient, values, affine, True, partial, sums
            ),
        ),
        "normalize backward": (
            3 * size,
            lambda: normalization.normalize_backward(gradient, values, affine, True, factors, out),
        ),
        "max pooling": (
            size * 21 // 16,
            lambda: pooling.max_pool_forward(picture, *window, pooled, chosen),
        ),
        "max pooling backward": (
            size * 21 // 16,
            lambda: pooling.max_pool_backward(pooled, chosen, *window, picture),
        ),
        "local response": (
            2 * size,
            lambda: response.response_forward(values, *response_settings, out),
        ),
        "local response backward": (
            3 * size,
            lambda: response.response_backward(gradient, values, *response_settings, out),
        ),
    }


def separable_passes(side: int, c: int) -> dict:
    """Return both directions of the fused separable unit."""
    z, outputs, gradient, out = (filled(ROWS, side, side, c) for _ in range(4))
    affine, bias, depth, weights, factors = (
        filled(3, c),
        filled(c),
        filled(3, 3, c),
        filled(c, c),
        filled(2, c),
    )
    zeros, scratch, partial, sums = (
        np.zeros(c, FLOAT),
        filled(separable.scratch_size((side, side, c), 3, c)),
        filled(ROWS, 3, c),
        np.zeros((2, c)),
    )
    no_skip = np.zeros((0, side, side, c), FLOAT)
    given = separable.Input(z, affine, True)
    filters = separable.Filters(depth, zeros, weights, bias)
    buffers = separable.Buffers(scratch, partial)
    return {
        "forward": lambda: separable.separable_forward(given, filters, outputs, sums, buffers),
        "backward": lambda: separable.separable_backward(
            separable.Output(gradient, outputs, affine, True, factors),
            given,
            filters,
            no_skip,
            separable.Gradients(out, depth, weights),
            sums,
            buffers,
        ),
    }


def main() -> None:
    """Measure every kernel on one thread and on all."""
    found = peaks()
    emit(environment() | found)
    for count in sorted({1, found["threads"]}):
        peak, copied = 1e9 * multiply_add_peak(count), 1e9 * copy_bandwidth(count)
        threads.set_threads(count)
        for side, c, k, size in CONVOLUTIONS:
            work = 2 * ROWS * side * side * size * size * c * k
            compare(
                "convolution",
                (side, c, k, size),
                convolution_passes(side, c, k, size),
                torch_passes(side, c, k, size, 1),
                work / peak,
                work,
            )
        for side, c in DEPTHWISE:
            work, moved = 18 * ROWS * side * side * c, 8 * ROWS * side * side * c
            compare(
                "depthwise",
                (side, c, 3),
                depthwise_passes(side, c),
                torch_passes(side, c, c, 3, c),
                moved / copied,
                work,
            )
            for name, run in separable_passes(side, c).items():
                work = (1 if name == "forward" else 3) * 2 * ROWS * side * side * c * (c + 9)
                compare("separable unit", (side, c), {name: run}, {}, work / peak, work)
            for name, (moved, run) in other_kernels(side, c).items():
                compare(name, (side, c), {"": run}, {}, moved / copied, 0)


if __name__ == "__main__":
    main()
