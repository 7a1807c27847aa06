"""What bf16 is worth on this CPU: some have the instructions, but at less than float32's speed."""

from time import perf_counter

import numpy as np
from numba import njit

from ensync.kernels.options import KERNEL
from ensync.kernels.simd.intrinsics import lanes, pointer
from ensync.kernels.simd.panels import ROWS, VECTORS, panel

PLAIN, PAIRS = panel(started=False), panel(started=False, pairs=True)
TERMS, TIMES, TRIES = 64, 100, 5


@njit(**KERNEL)
def _products(a, b, c, terms, times):
    width = VECTORS * lanes(a)
    for _ in range(times):
        PLAIN(
            pointer(a, 0),
            pointer(b, 0),
            pointer(c, 0),
            pointer(c, 0),
            terms,
            terms,
            1,
            width,
            0,
            width,
        )


@njit(**KERNEL)
def _pair_products(a, b, c, terms, times):
    width = VECTORS * lanes(a)
    for _ in range(times):
        PAIRS(
            pointer(a, 0),
            pointer(b, 0),
            pointer(c, 0),
            pointer(c, 0),
            terms,
            terms,
            1,
            width,
            0,
            width,
        )


def bf16_gain() -> float:
    """Return how many times as fast as in float32 products are in bf16, measured for a few
    tenths of a millisecond.
    """
    width = VECTORS * 16
    a, b, c = (
        np.zeros(rows * width, np.float32) for rows in (ROWS * TERMS // width + 1, TERMS, ROWS)
    )
    seconds = []
    for products, terms in ((_products, TERMS), (_pair_products, TERMS // 2)):
        products(a, b, c, terms, 1)
        seconds.append(min(_time(products, a, b, c, terms) for _ in range(TRIES)))
    return seconds[0] / seconds[1]


def _time(products, *arguments) -> float:
    begin = perf_counter()
    products(*arguments, TIMES)
    return perf_counter() - begin
