"""Plain Python in place of the LLVM code of `ensync.kernels.simd`, so that kernels run with the JIT
off: every line of theirs counts for coverage, and every access is checked against its array.

    NUMBA_DISABLE_JIT=1 python -m pytest -p plain_simd -m plain tests/kernels

A pytest plugin: it replaces the functions before the kernels import them. An address is an array
seen flat and a position in it, a vector an array of as many elements as the register has lanes.
"""

import dataclasses
import importlib
import itertools
import math
import os

import numpy as np


@dataclasses.dataclass(frozen=True)
class Address:
    """The element `at` of a flat array."""

    array: np.ndarray
    at: int

    def __getitem__(self, index):
        return self.part(index, 1)[0]

    def __setitem__(self, index, value):
        self.part(index, 1)[0] = value

    @property
    def dtype(self):
        return self.array.dtype

    def part(self, index, count):
        """Return `count` elements from `index` on as a view; all of them must exist."""
        first = self.at + index if count else 0
        assert 0 <= first and first + count <= self.array.size, "beyond the array"
        return self.array[first : first + count]


def widened(values):
    """Return bf16 numbers, given as their upper 16 bits, as float32; others as they are."""
    if values.dtype != np.uint16:
        return values.copy()
    return (values.astype(np.uint32) << 16).view(np.float32)


def halves(values):
    """Return float32 numbers rounded to bf16, to the nearest and among equals to even."""
    bits = values.astype(np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return np.where(np.isnan(values), bits >> 16 | 0x40, rounded).astype(np.uint16)


def lanes(like):
    """Return the number of elements in a vector."""
    from ensync.kernels.simd.host import lanes_of

    return lanes_of(4 if like.dtype == np.uint16 else like.dtype.itemsize)


def line(address):
    from ensync.kernels.simd.host import CACHE_LINE

    return CACHE_LINE // address.dtype.itemsize


def pointer(array, offset):
    assert array.flags.c_contiguous
    return Address(array.reshape(-1), int(offset))


def transpose_block(source, source_row, target, target_row):
    size = lanes(source)
    for i, j in itertools.product(range(size), repeat=2):
        target.part(j * target_row + i, 1)[:] = source.part(i * source_row + j, 1)


def advance(address, elements):
    return Address(address.array, address.at + int(elements))


def as_bf16(address):
    return Address(address.array.view(np.uint16), 2 * address.at)


def _load(address, index, first, count, size):
    values = np.zeros(size, np.float32 if address.dtype == np.uint16 else address.dtype)
    count = min(count, size)
    if first < count:
        values[first:count] = widened(address.part(index + first, count - first))
    return values


def load(address, index, count):
    return _load(address, index, 0, count, lanes(address))


def load_between(address, index, first, count):
    return _load(address, index, first, count, lanes(address))


def load_as(like, address, index, count):
    return _load(address, index, 0, count, like.size)


def store(address, index, vector, count):
    count = max(0, min(count, vector.size))
    assert address.dtype == np.uint16 or address.dtype == vector.dtype
    given = vector[:count]
    address.part(index, count)[:] = halves(given) if address.dtype == np.uint16 else given


def store_halves(address, index, vector):
    address.part(index, vector.size // 2)[:] = halves(vector).view(address.dtype)


def pair(a, b):
    return np.stack([halves(a), halves(b)], -1).reshape(-1).view(np.float32)


def zeros(address):
    return np.zeros(lanes(address), np.float32 if address.dtype == np.uint16 else address.dtype)


def splat(address, scalar):
    vector = zeros(address)
    vector[:] = scalar
    return vector


def splat_as(like, address, scalar):
    return np.full(like.size, scalar, address.dtype)


def fma(a, b, c):
    """a * b + c, rounded once where a product of the type is exact in float64."""
    return (a.astype(np.float64) * b + c).astype(a.dtype)


def lifted(like, number):
    return np.full(like.size, number, like.dtype)


def tail(x, power):
    return np.array([math.erfc(abs(float(value)) / math.sqrt(2)) / 2 for value in x], x.dtype)


def nothing(*arguments):
    return 0


def tile(rows, vectors, simd=None):
    """Return the plain form of `tiles.tile`."""

    def kernel(a, b, c, bias, geometry, floor):
        g = geometry
        for row in range(g.row_count):
            group, within = divmod(g.skipped + row, g.group)
            within -= g.skipped
            total = np.zeros(g.column_count)
            for outer, inner in itertools.product(range(g.outer), range(g.inner)):
                at = outer * g.a_outer + group * g.a_group + within * g.a_row + inner * g.a_inner
                b_at = outer * g.b_outer + inner * g.b_inner
                total += a.part(at, 1).astype(float) * b.part(b_at, g.column_count)
            if g.has_bias:
                total += bias.part(0, g.column_count)
            target = c.part(row * g.c_row, g.column_count)
            total += target if g.accumulate else 0
            target[:] = np.where(total < floor, floor, total)

    return kernel


def panel(started, rows=None, vectors=None, in_lanes=False):
    """Return the plain form of `panels.panel`."""
    from ensync.kernels.simd import panels

    rows, vectors = rows or panels.ROWS, vectors or panels.VECTORS

    def kernel(a, b, s, c, inner, strides, bf16):
        size = lanes(a)
        width = vectors * size
        for row in range(min(rows, size) if in_lanes else rows):
            total = np.zeros(width)
            if started:
                total += s.part(row * strides.s_row, width)
            for term in range(inner):
                factor = a.part(row * strides.a_row + term * strides.a_inner, 1)
                columns = b.part(term * strides.b_inner, width)
                if bf16 is not None:
                    factor = widened(factor.view(np.uint16)).astype(float)
                    total += widened(columns.view(np.uint16)).reshape(-1, 2) @ factor
                else:
                    total += factor.astype(float) * columns
            given = total.astype(np.float32 if c.dtype == np.uint16 else c.dtype)
            for first in range(0, width, size):
                store(c, row * strides.c_row + first, given[first : first + size], size)

    return kernel


def make_product(rows, vectors):
    """Return the plain form of `rows.make_product`."""

    def kernel(a, b, c, a_row, a_step, b_row, depth):
        width = vectors * lanes(a)
        for row in range(rows):
            total = c.part(row * b_row, width).astype(float)
            for k in range(depth):
                total += a.part(row * a_row + k * a_step, 1).astype(float) * b.part(
                    k * b_row, width
                )
            c.part(row * b_row, width)[:] = total

    return kernel


def make_dots(square):
    """Return the plain form of `rows.make_dots`."""

    def kernel(a, b, c, a_row, b_row, c_row, width):
        from ensync.kernels.simd.rows import square_of

        rows, queries = square_of(lanes(a)) if square else (lanes(a), 1)
        for row, query in itertools.product(range(rows), range(queries)):
            product = a.part(row * a_row, width).astype(float) @ b.part(query * b_row, width)
            c.part(query * c_row + row, 1)[:] = product

    return kernel


REPLACED = {
    "simd.intrinsics": {
        "lanes": lanes,
        "line": line,
        "pointer": pointer,
        "flush_tiny_numbers": nothing,
        "restore": nothing,
        "transpose_block": transpose_block,
    },
    "simd.vectors": {
        "advance": advance,
        "as_bf16": as_bf16,
        "load": load,
        "load_between": load_between,
        "load_as": load_as,
        "store": store,
        "store_halves": store_halves,
        "pair": pair,
        "fetch": nothing,
        "fetch_to_write": nothing,
        "zeros": zeros,
        "splat": splat,
        "splat_as": splat_as,
        "fma": fma,
        "square_root": np.sqrt,
        "power": np.power,
        "greater": np.greater,
        "greater_or_nan": lambda a, b: (a > b) | np.isnan(a),
        "equal": np.equal,
        "choose": np.where,
        "maximum": lambda a, b: np.where(a > b, a, b),
    },
    "simd.tiles": {"tile": tile},
    "simd.panels": {"panel": panel},
    "elementwise.gelu": {"lifted": lifted, "exponential": np.exp, "tail": tail},
    "elementwise.functions": {
        "as_bits": lambda value: value.view(np.uint32),
        "as_float32": lambda bits: bits.view(np.float32),
    },
}


def replace(module, functions):
    """Put the functions into a module, which has those of their names."""
    module = importlib.import_module(f"ensync.kernels.{module}")
    assert functions.keys() <= vars(module).keys()
    vars(module).update(functions)


def pytest_configure(config):
    """Replace the functions; numpy's integers may wrap around, as those of kernels do."""
    assert os.environ.get("NUMBA_DISABLE_JIT") == "1", "set NUMBA_DISABLE_JIT=1"
    np.seterr(over="ignore", invalid="ignore", divide="ignore")
    for module, functions in REPLACED.items():
        replace(module, functions)
    from ensync.kernels.simd import rows

    tiles = {f"tile_{count}": make_product(rows.TILE_ROWS, count) for count in (1, 2, 3)}
    single = {f"row_{count}": make_product(1, count) for count in (1, 2, 4, 8)}
    dots = {"dots_row": make_dots(False), "dots_square": make_dots(True)}
    replace("simd.rows", tiles | single | dots)
