"""What the machine allows, measured: multiply-adds per second, and one pass that reads and writes an array in cache."""

import time
from collections.abc import Callable

import harness
import numpy as np
from numba import njit, prange

from ensync.kernels import threads
from ensync.kernels.rows import TILE_ROWS, tile_3
from ensync.kernels.simd import lanes_of, pointer

DEPTH, REPEATS = 1024, 1000


@njit(parallel=True)
def multiply_adds(scratch: np.ndarray, count: int) -> None:
    """Register tiles of products, on every thread, whose operands never leave the first-level cache: B is one row throughout."""
    for index in prange(count):
        at = index * 2 * DEPTH
        for _ in range(REPEATS):
            tile_3(pointer(scratch, at), pointer(scratch, at + DEPTH), pointer(scratch, at + DEPTH + 256), 0, 1, 0, DEPTH)


@njit
def read_and_write(values: np.ndarray, passes: int) -> None:
    """Scale an array in place, again and again."""
    for i in range(passes):
        factor = np.float32(2) if i % 2 else np.float32(0.5)
        for j in range(values.size):
            values[j] *= factor


def _seconds(call: Callable[[], None]) -> float:
    call()
    times = []
    for _ in range(9):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return min(times)


def peak(count: int) -> float:
    """Return the float32 operations per second that so many threads reach without waiting for memory."""
    threads.set_threads(count)
    scratch = np.zeros(count * 2 * DEPTH, np.float32)
    operations = count * REPEATS * 2 * TILE_ROWS * 3 * lanes_of(4) * DEPTH
    return operations / _seconds(lambda: multiply_adds(scratch, count))


def pass_seconds(elements: int) -> float:
    """Return the seconds of one thread's pass that reads and writes so many float32."""
    values = np.ones(elements, np.float32)
    return _seconds(lambda: read_and_write(values, 200)) / 200


def report(cases: list[tuple[tuple[int, ...], int]], counts: list[int]) -> None:
    """Print, per case and number of threads, the time of the arithmetic alone and of one pass over the weights."""
    rows = []
    for count in counts:
        flops = peak(count)
        for sizes, batch in cases:
            row = {"network": "-".join(map(str, sizes)), "batch": batch, "threads": count, "peak_gflops": flops / 1e9,
                   "arithmetic_us": 1e6 * batch * harness.operations(sizes) / flops,
                   "pass_us": 1e6 * pass_seconds(harness.parameters(sizes))}
            harness.emit({"floor": True, **row})
            rows.append(row)
    harness.table("Floors: the arithmetic of a step at the measured peak; one read and write of the parameters by one thread", rows)
