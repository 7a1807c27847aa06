"""Vectorised passes over memory by address: clear, add, move."""

from numba import njit

from ensync.kernels.options import INNER
from ensync.kernels.simd.intrinsics import lanes
from ensync.kernels.simd.vectors import load, store, zeros


@njit(**INNER)
def add_to(source, target, elements):
    full = lanes(source)
    for at in range(0, elements, full):
        count = min(full, elements - at)
        store(target, at, load(source, at, count) + load(target, at, count), count)


@njit(**INNER)
def clear(target, elements):
    full = lanes(target)
    for at in range(0, elements, full):
        store(target, at, zeros(target), min(full, elements - at))


@njit(**INNER)
def move_last_to_front(lines, have, kept, size):
    """Move the last `kept` of `have` lines of `size` elements to the front; return their number."""
    kept = min(kept, have)
    full, start = lanes(lines), (have - kept) * size
    for at in range(0, kept * size, full):
        store(lines, at, load(lines, start + at, full), full)
    return kept
