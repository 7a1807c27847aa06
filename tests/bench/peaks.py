"""What this machine can do at most: multiply-adds, and bytes from memory and from the caches.
Prints JSON.

python tests/bench/peaks.py
"""

import functools
import json
import time
from collections.abc import Callable

import numba
import numpy as np
from numba import types
from numba.extending import intrinsic

from ensync.kernels import threads
from ensync.kernels.simd.builder import INT64, Vectors
from ensync.kernels.simd.host import SIMD, lanes_of
from ensync.kernels.simd.intrinsics import pointer

# Sums that neither wait for one another nor leave the registers.
SUMS = {"avx512": 24, "avx2": 12, "neon": 24, "plain": 12}[SIMD]
ROUNDS = 200_000
MEMORY_BYTES, SECOND_CACHE_BYTES = 256 << 20, 512 << 10


@intrinsic
def multiply_adds(typing_context, address, rounds):
    """Do rounds x SUMS vector multiply-adds on registers only."""

    def generate(context, builder, signature, arguments):
        element = arguments[0].type.pointee
        vector = Vectors(builder.module, builder, element, lanes_of(4))
        factor, before, block = (
            vector.load(arguments[0]),
            builder.block,
            builder.append_basic_block("loop"),
        )
        builder.branch(block)
        builder.position_at_end(block)
        i, sums = builder.phi(INT64), [builder.phi(vector.type) for _ in range(SUMS)]
        following = [builder.add(i, INT64(1))] + [
            vector.multiply_add(factor, factor, x) for x in sums
        ]
        for state, first, later in zip(
            [i, *sums], [INT64(0)] + [factor] * SUMS, following, strict=True
        ):
            state.add_incoming(first, before)
            state.add_incoming(later, block)
        after = builder.append_basic_block("after")
        builder.cbranch(builder.icmp_signed("<", following[0], arguments[1]), block, after)
        builder.position_at_end(after)
        vector.store(functools.reduce(builder.fadd, following[1:]), arguments[0])
        return context.get_dummy_value()

    return types.void(address, types.int64), generate


@numba.njit(parallel=True)
def multiply_adds_on(places, rounds):
    """Run the multiply-adds on one thread for each row of `places`."""
    for part in numba.prange(places.shape[0]):
        multiply_adds(pointer(places, part * places.shape[1]), rounds)


@numba.njit(parallel=True, error_model="numpy", fastmath=True)
def read_on(vector, parts, times, sums):
    """Sum each thread's part of a vector so many times."""
    for part in numba.prange(parts):
        share = vector[part * (vector.size // parts) : (part + 1) * (vector.size // parts)]
        for _ in range(times):
            total = np.float32(0)
            for i in range(share.size):
                total += share[i]
            sums[part * 64] += total


@numba.njit(parallel=True)
def copy_on(source, target, parts):
    """Copy each thread's part of a vector."""
    for part in numba.prange(parts):
        share = slice(part * (source.size // parts), (part + 1) * (source.size // parts))
        target[share] = source[share]


def shortest(work: Callable[[], object], rounds: int = 30) -> float:
    """Return the shortest time of `work` in seconds: what others do on the machine only adds to it.

    One thread's time is its own, without the times it had to wait for a core.
    """
    clock = time.thread_time if threads.get_threads() == 1 else time.perf_counter
    work()
    times = []
    for _ in range(rounds):
        begin = clock()
        work()
        times.append(clock() - begin)
    return min(times)


@functools.cache
def multiply_add_peak(count: int) -> float:
    """Return float32 GFLOP/s of `count` threads."""
    threads.set_threads(count)
    places = np.full((count, 64), 1e-3, np.float32)
    return (
        2
        * SUMS
        * lanes_of(4)
        * ROUNDS
        * count
        / shortest(lambda: multiply_adds_on(places, ROUNDS))
        / 1e9
    )


@functools.cache
def copy_bandwidth(count: int) -> float:
    """Return GB/s read and written, together, by copying in memory on `count` threads."""
    threads.set_threads(count)
    source, target = (np.ones(MEMORY_BYTES // 4, np.float32) for _ in range(2))
    return 2 * MEMORY_BYTES / shortest(lambda: copy_on(source, target, count), 8) / 1e9


@functools.cache
def second_cache_bandwidth(count: int) -> float:
    """Return GB/s read from each thread's second cache, together."""
    threads.set_threads(count)
    vector, sums, times = (
        np.ones(SECOND_CACHE_BYTES // 4 * count, np.float32),
        np.zeros(64 * count, np.float32),
        20,
    )
    return times * vector.nbytes / shortest(lambda: read_on(vector, count, times, sums)) / 1e9


def peaks() -> dict[str, float | str | int]:
    """Return all figures for one thread and for as many as this process may use."""
    most = numba.config.NUMBA_NUM_THREADS
    found: dict[str, float | str | int] = {"simd": SIMD, "threads": most}
    for count in sorted({1, most}):
        found[f"multiply_add_gflops_{count}"] = round(multiply_add_peak(count), 1)
        found[f"copy_gb_s_{count}"] = round(copy_bandwidth(count), 1)
        found[f"second_cache_gb_s_{count}"] = round(second_cache_bandwidth(count), 1)
    return found


if __name__ == "__main__":
    print(json.dumps(peaks()))
