"""The three passes of dense layers at real shapes: time, GFLOP/s and the share of this machine's
multiply-add peak.

python tests/bench/dense_kernels.py     JSON lines: shape (samples, inputs, outputs), pass, threads,
floor_us at the peak of today
"""

import numpy as np
from harness import emit, environment
from peaks import multiply_add_peak, peaks, shortest

from ensync.kernels import threads
from ensync.kernels.dense import matmul
from ensync.kernels.elementwise.activations import RELU

SHAPES = [
    (32, 784, 100),
    (32, 100, 100),
    (32, 100, 10),
    (128, 784, 512),
    (128, 512, 256),
    (128, 256, 10),
    (512, 512, 512),
    (1024, 1024, 1024),
    (4096, 784, 512),
]


def aligned(*shape: int) -> np.ndarray:
    """Return ones that start at a multiple of 64 bytes."""
    size = int(np.prod(shape))
    room = np.ones(size + 16, np.float32)
    start = -room.ctypes.data // 4 % 16
    return room[start : start + size].reshape(shape)


def passes(n: int, k: int, m: int) -> dict:
    """Return the three passes of a layer as functions without arguments."""
    inputs, weights, bias, out, gradient = (
        aligned(n, k),
        aligned(k, m),
        aligned(m),
        aligned(n, m),
        aligned(n, m),
    )
    slope, weights_gradient, bias_gradient = aligned(n, k), aligned(k, m), aligned(m)
    scratch = aligned(matmul.packing_size(n, k, m))
    return {
        "forward": lambda: matmul.dense_forward(inputs, weights, bias, RELU, out, scratch),
        "input gradient": lambda: matmul.dense_input_gradient(gradient, weights, slope, scratch),
        "weight gradient": lambda: matmul.dense_weight_gradient(
            inputs, gradient, weights_gradient, bias_gradient, scratch
        ),
    }


def main() -> None:
    """Measure every shape and pass on one thread and on all."""
    found = peaks()
    emit(environment() | found)
    for count in sorted({1, found["threads"]}):
        peak = multiply_add_peak(count)
        threads.set_threads(count)
        for shape in SHAPES:
            work = 2 * np.prod(shape) / 1e9
            for name, run in passes(*shape).items():
                seconds = shortest(run, int(min(1000, max(20, 60 / work))))
                emit(
                    {
                        "shape": shape,
                        "pass": name,
                        "threads": count,
                        "us": 1e6 * seconds,
                        "floor_us": 1e6 * work / peak,
                        "gflops": work / seconds,
                        "of_peak": work / seconds / peak,
                    }
                )


if __name__ == "__main__":
    main()
