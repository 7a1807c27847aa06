"""Operands of matrix products: numbers of one type, or pairs of bf16 numbers, each in the place of
one float32.

`bf16` is None or a flag (flags.py) that the compiler knows, so that it compiles one form of each:
BF16 for products by vectors, BF16_TILES for those by matrix tiles (matrix_tiles.py). Kernels do not
ask for it themselves: they call what stands here, and the microkernels (panels.py).
"""

from numba import njit

from ensync.kernels.flags import Flag
from ensync.kernels.options import INNER, KERNEL
from ensync.kernels.simd.host import AMX
from ensync.kernels.simd.intrinsics import lanes
from ensync.kernels.simd.vectors import as_bf16, load, pair, store, store_halves, zeros

# How `store_operand` stores a vector of bf16: unchanged, as float32; rounded, half as long; or
# rounded and paired with the float32 numbers that are stored there. Other types: unchanged.
PLAIN, ROUNDED, PAIRED = 0, 1, 2

BF16, BF16_TILES = Flag("BF16"), Flag("BF16 by tiles")


def operands(bf16: bool | None) -> Flag | None:
    """Return the flag of products on this host: None for numbers of one type, else of bf16."""
    if not bf16:
        return None
    return BF16_TILES if AMX else BF16


@njit(forceinline=True, **KERNEL)
def numbers_per_term(bf16):
    """Return how many numbers a term of a product's sum holds."""
    return 1 if bf16 is None else 2


@njit(forceinline=True, **KERNEL)
def terms_of(numbers, bf16):
    """Return the terms that an even number of numbers is."""
    return numbers if bf16 is None else numbers // 2


@njit(forceinline=True, **INNER)
def as_operand(address, bf16):
    """Return an address of numbers as one to which `store` writes operands."""
    if bf16 is None:
        return address
    return as_bf16(address)


@njit(forceinline=True, **INNER)
def store_operand(target, index, vector, count, way, bf16):
    """Store a vector in one of the three ways."""
    if bf16 is None:
        store(target, index, vector, count)
    elif way == ROUNDED:
        store_halves(target, index, vector)
    elif way == PAIRED:
        store(target, index, pair(load(target, index, count), vector), count)
    else:
        store(target, index, vector, count)


@njit(forceinline=True, **INNER)
def operand_index(index, way, bf16):
    """Return where the number `index` of a row is stored, in elements of the row's type."""
    if bf16 is None:
        return index
    return index // 2 if way == ROUNDED else index


@njit(**INNER)
def pair_rows(values, rows, width, bf16):
    """Make each two rows of `width` float32 numbers one row of pairs, in place. An odd last row is
    paired with zeros. Without bf16 nothing changes.
    """
    if bf16 is not None:
        full = lanes(values)
        for row in range(0, rows, 2):
            for j in range(0, width, full):
                above = load(values, row * width + j, full)
                below = (
                    load(values, (row + 1) * width + j, full) if row + 1 < rows else zeros(values)
                )
                store(values, row // 2 * width + j, pair(above, below), full)
