"""What bf16 is worth on this CPU: some have the instructions, but at less than float32's speed."""

from time import perf_counter

import numpy as np
from numba import njit

from ensync.kernels.flags import Flag, flag
from ensync.kernels.options import KERNEL
from ensync.kernels.simd import matrix_tiles
from ensync.kernels.simd.host import AMX
from ensync.kernels.simd.intrinsics import lanes, pointer
from ensync.kernels.simd.panels import ROWS, VECTORS, Strides, panel
from ensync.kernels.simd.vectors import as_bf16

PANEL, TILES = panel(started=False), matrix_tiles.tile_product(added=False)
TERMS, TIMES, TRIES = 64, 100, 5
TILE_ROWS = 2 * matrix_tiles.SIDE


@njit(**KERNEL)
def _products(a, b, c, terms, times, bf16):
    width, to = VECTORS * lanes(a), pointer(c, 0)
    for _ in range(times):
        strides = Strides(terms, 1, width, 0, width)
        PANEL(pointer(a, 0), pointer(b, 0), to, to, terms, strides, bf16)


@njit(**KERNEL)
def _tile_products(a, b, c, terms, times):
    strides = matrix_tiles.Strides(1, terms // matrix_tiles.TERMS, 0, terms, 0, 32, 32)
    matrix_tiles.start_tiles()
    for _ in range(times):
        TILES(as_bf16(pointer(a, 0)), pointer(b, 0), pointer(c, 0), strides)
    matrix_tiles.end_tiles()


def bf16_gain() -> float:
    """Return how many times as fast as in float32 products are in bf16, measured for a few
    tenths of a millisecond.
    """
    size = TILE_ROWS * max(TERMS, VECTORS * 16)
    a, b, c = (np.zeros(size + TERMS * VECTORS * 16, np.float32) for _ in range(3))
    rates = []
    for bf16 in (None, flag(True)):
        _time(a, b, c, bf16)  # compiled
        rates.append(min(_time(a, b, c, bf16) for _ in range(TRIES)))
    return rates[0] / rates[1]


def _time(a: np.ndarray, b: np.ndarray, c: np.ndarray, bf16: Flag | None) -> float:
    """Return the seconds for a row of products."""
    begin = perf_counter()
    if bf16 is None or not AMX:
        _products(a, b, c, TERMS if bf16 is None else TERMS // 2, TIMES, bf16)
        rows = ROWS
    else:
        _tile_products(a, b, c, TERMS, TIMES)
        rows = TILE_ROWS
    return (perf_counter() - begin) / rows
