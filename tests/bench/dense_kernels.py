"""The three passes of dense layers at real shapes, in float32 and bf16: time, GFLOP/s and the share
of this machine's multiply-add peak (in bf16: float32's times what a product gains, measured).

python tests/bench/dense_kernels.py     JSON lines: shape (samples, inputs, outputs), pass,
precision, threads, floor_us at the peak of today; in bf16 how many times as fast as in float32
"""

import numpy as np
from harness import emit, environment
from peaks import multiply_add_peak, peaks, shortest

from ensync.kernels import threads
from ensync.kernels.dense import matmul
from ensync.kernels.elementwise.activations import RELU
from ensync.kernels.simd.bf16_gain import bf16_gain
from ensync.kernels.simd.host import bf16_missing

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
    (32, 3136, 2048),
    (128, 3136, 2048),
]
PRECISIONS = ("float32",) if bf16_missing() else ("float32", "bf16")


def aligned(*shape: int) -> np.ndarray:
    """Return ones that start at a multiple of 64 bytes."""
    size = int(np.prod(shape))
    room = np.ones(size + 16, np.float32)
    start = -room.ctypes.data // 4 % 16
    return room[start : start + size].reshape(shape)


def passes(n: int, k: int, m: int, bf16: bool | None) -> dict:
    """Return the three passes of a layer as functions without arguments."""
    inputs, weights, bias, out, gradient = (
        aligned(n, k),
        aligned(k, m),
        aligned(m),
        aligned(n, m),
        aligned(n, m),
    )
    slope, weights_gradient, bias_gradient = aligned(n, k), aligned(k, m), aligned(m)
    scratch = aligned(matmul.packing_size(n, k, m, bf16))
    return {
        "forward": lambda: matmul.dense_forward(inputs, weights, bias, RELU, out, scratch, bf16),
        "input gradient": lambda: matmul.dense_input_gradient(
            gradient, weights, slope, scratch, bf16
        ),
        "weight gradient": lambda: matmul.dense_weight_gradient(
            inputs, gradient, weights_gradient, bias_gradient, scratch, bf16
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
            plain = {}
            for precision in PRECISIONS:
                most = peak * (bf16_gain() if precision == "bf16" else 1)
                for name, run in passes(*shape, precision == "bf16" or None).items():
                    seconds = shortest(run, int(min(1000, max(20, 60 / work))))
                    record = {
                        "shape": shape,
                        "pass": name,
                        "precision": precision,
                        "threads": count,
                        "us": 1e6 * seconds,
                        "floor_us": 1e6 * work / most,
                        "gflops": work / seconds,
                        "of_peak": work / seconds / most,
                    }
                    if plain.setdefault(name, seconds) != seconds:
                        record["times_float32"] = plain[name] / seconds
                    emit(record)


if __name__ == "__main__":
    main()
