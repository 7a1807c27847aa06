"""The three products of a dense layer: forward, weight gradient, input gradient.

`bf16`: None, or True for products of numbers rounded to bf16 with float32 sums (bf16_products.py).
Then inputs, outputs and their gradients may be arrays of bf16 (uint16); weights and biases are
float32.
"""

import numba
import numpy as np

from ensync.kernels.dense import bf16_layout, bf16_products
from ensync.kernels.dense.products import (
    A_TRANSPOSED,
    B_TRANSPOSED,
    BLOCK,
    PACK_A_FROM,
    PLAIN,
    VECTORS,
    Operation,
    Panel,
    Terms,
    product_part,
    quotient,
    strip,
)
from ensync.kernels.elementwise.activations import GELU, IDENTITY, RELU, activate
from ensync.kernels.options import INNER, KERNEL
from ensync.kernels.simd.host import SIMD, VECTOR_BYTES, lanes_of
from ensync.kernels.simd.intrinsics import flush_tiny_numbers, lanes, pointer, restore
from ensync.kernels.simd.operands import operands
from ensync.kernels.simd.vectors import advance, fetch, load, store
from ensync.kernels.threads import get_threads, thread_limit

# Multiply-adds; less work than this is done before other threads have started.
SERIAL_BELOW = 1 << 19
# Samples after which the weight gradient starts over, so that its panel of B stays in the second
# cache, too.
SAMPLES = 1024
# Rows of A, up to which a wide B is laid out stretch by stretch; where a panel's rows are three
# whole cache lines it costs a third more than it saves.
FEW_ROWS = 0 if VECTOR_BYTES[SIMD] >= 64 else 32
FEW_ROWS_FROM = 1 << 21  # elements of B from which that pays: smaller ones stay in the caches
STRETCH, PANELS = 32, 32  # terms and panels of B laid out together: 96 to 192 KiB


def _share(n: int, inputs: int, outputs: int) -> int:
    """Return how many elements of scratch one part of a pass needs."""
    lane_count, samples = lanes_of(4), min(n, SAMPLES)  # float32 has the most lanes
    share = (max(samples, inputs, outputs) * VECTORS + 1) * lane_count
    if n >= PACK_A_FROM:
        share += samples * (min(BLOCK // samples, inputs) + 2 * lane_count)
    return max(share, STRETCH * PANELS * VECTORS * lane_count)


def packing_size(n: int, inputs: int, outputs: int, bf16: bool | None = None) -> int:
    """Return how many elements of scratch the three passes of a dense layer need for up to n
    samples, on the threads of this rank. Should it get more later, the passes use no more than now.
    """
    if flag := operands(bf16):
        return bf16_layout.packing_size(n, inputs, outputs, flag, thread_limit())
    return thread_limit() * _share(n, inputs, outputs) + lanes_of(4)


def _parts(scratch: np.ndarray, shape: tuple[int, int, int]) -> int:
    """Return into how many parts a pass of a layer (samples, inputs, outputs) is cut: one for each
    thread for which there is scratch.
    """
    return max(1, min(get_threads(), (scratch.size - lanes_of(4)) // _share(*shape)))


@numba.njit(**KERNEL)
def _product(a, b, c, bias, scratch, form, code, part, parts):
    """Compute one of `parts` parts of C = f(A B + bias), C = A B' or (C = A' B, bias = sum of
    B's rows): the form says which.
    """
    transposed, operation = form == A_TRANSPOSED, Operation(form, code)
    count, a_row, a_inner = (
        (a.shape[0], 1, a.shape[1]) if transposed else (a.shape[1], a.shape[1], 1)
    )
    stretch = SAMPLES if transposed else count
    state = flush_tiny_numbers()
    for start in range(0, count, stretch):
        terms = Terms(start, min(stretch, count - start), a_row, a_inner, b.shape[1])
        product_part(a, b, c, bias, scratch, terms, operation, part, parts)
    restore(state)


@numba.njit(parallel=True, **KERNEL)
def _product_by_threads(a, b, c, bias, scratch, form, code, parts):
    """All parts of a product, one for each thread."""
    for part in numba.prange(parts):
        _product(a, b, c, bias, scratch, form, code, np.int64(part), parts)


@numba.njit(**INNER)
def _pack_panels(source, row, terms, columns, width, target):
    """Copy `terms` rows of so many columns, read in one run each, to panels of `width` columns,
    (panels, terms, width).
    """
    full = lanes(source)
    for term in range(terms):
        for column in range(0, columns, width):
            for j in range(column, min(columns, column + width), full):
                count = min(full, columns - j)
                store(
                    target,
                    (terms - 1) * column + term * width + j,
                    load(source, term * row + j, count),
                    count,
                )


@numba.njit(parallel=True, **KERNEL)
def _few_rows_forward(a, b, c, bias, scratch, code, parts):
    """C = f(A B + bias) for few rows of A and a B that no cache holds.

    A panel of B by itself touches another page of memory with every term. So the terms are taken
    STRETCH at a time and PANELS panels together, whose rows are read in long runs while the run
    before is multiplied; C is added to, stretch by stretch. Each part has columns of its own.
    """
    panels = quotient(c.shape[1], VECTORS * lanes(c))
    for part in numba.prange(parts):
        state, place = flush_tiny_numbers(), part * STRETCH * PANELS * VECTORS * lanes(c)
        begin = panels * part // parts * VECTORS * lanes(c)
        end = min(c.shape[1], panels * (part + 1) // parts * VECTORS * lanes(c))
        for start in range(0, a.shape[1], STRETCH):
            _few_rows_stretch(a, b, c, bias, pointer(scratch, place), code, start, (begin, end))
        restore(state)


@numba.njit(**INNER)
def _few_rows_stretch(a, b, c, bias, scratch, code, start, span):
    """Add the product with STRETCH terms to the columns `span` = (first, end) of C; after the last
    terms apply f. scratch: the address of this part's.
    """
    (rows, inner), columns, width, (begin, end) = a.shape, c.shape[1], VECTORS * lanes(c), span
    count, last, at_a = min(STRETCH, inner - start), start + STRETCH >= inner, pointer(a, start)
    # The bias is added once, f applied to the whole sum.
    operation = Operation(PLAIN if start == 0 else B_TRANSPOSED, code if last else IDENTITY)
    terms = Terms(start, count, inner, 1, width)
    for first in range(begin, end, PANELS * width):
        stop = min(end, first + PANELS * width)
        _pack_panels(
            pointer(b, start * columns + first), columns, count, stop - first, width, scratch
        )
        following = start * columns + stop if stop < end else (start + STRETCH) * columns + begin
        ahead = pointer(b, following)
        for column in range(first, stop, width):
            at_b, panel = advance(scratch, (column - first) * count), Panel(column, 0, rows)
            strip(at_a, at_b, c, bias, at_a, terms, panel, operation, start > 0)
            for term in range(count):
                fetch(ahead, term * columns + column - first)
                fetch(ahead, term * columns + column - first + width - 1)


def _run_product(a, b, c, bias, scratch, form, code, shape, bf16) -> None:
    """Compute a product of a layer (samples, inputs, outputs), alone when starting threads would
    take longer.
    """
    samples, inputs, outputs = shape
    alone = samples * inputs * outputs < SERIAL_BELOW or get_threads() == 1
    if flag := operands(bf16):
        parts = 1 if alone else bf16_layout.most_parts(scratch.size, *shape, flag, get_threads())
        floor = np.float32(0 if code == RELU else -np.inf)
        bf16_products.run((a, b, c), bias, floor, scratch, form, flag, parts)
        if code not in (IDENTITY, RELU):
            activate(code, c)
    elif alone:
        _product(a, b, c, bias, scratch, form, code, 0, 1)
    else:
        _product_by_threads(a, b, c, bias, scratch, form, code, _parts(scratch, shape))


def dense_forward(
    inputs: np.ndarray,
    weights: np.ndarray,
    bias: np.ndarray,
    code: int,
    out: np.ndarray,
    scratch: np.ndarray,
    bf16: bool | None = None,
) -> None:
    """Write out = f(inputs @ weights + bias), f the activation `code`: any but GELU, whose gradient
    needs the sums.

    inputs: (n, k), weights: (k, m), bias: (m,), out: (n, m), scratch: at least packing_size(n, k,
    m, bf16) elements; C-contiguous, one type (but see above). n may be 0.
    """
    assert code != GELU
    shape = (*inputs.shape, bias.size)
    if 0 < len(inputs) <= FEW_ROWS and weights.size >= FEW_ROWS_FROM:
        _few_rows_forward(inputs, weights, out, bias, scratch, code, _parts(scratch, shape))
    else:
        _run_product(inputs, weights, out, bias, scratch, PLAIN, code, shape, bf16)


def dense_input_gradient(
    gradient: np.ndarray,
    weights: np.ndarray,
    out: np.ndarray,
    scratch: np.ndarray,
    bf16: bool | None = None,
) -> None:
    """Write out = gradient @ weights.T.

    gradient: (n, m), weights: (k, m), out: (n, k), scratch: at least packing_size(n, k, m, bf16)
    elements; C-contiguous, one type (but see above). n may be 0.
    """
    shape = (len(out), *weights.shape)
    _run_product(gradient, weights, out, scratch, scratch, B_TRANSPOSED, IDENTITY, shape, bf16)


def dense_weight_gradient(
    inputs: np.ndarray,
    gradient: np.ndarray,
    weights_gradient: np.ndarray,
    bias_gradient: np.ndarray,
    scratch: np.ndarray,
    bf16: bool | None = None,
) -> None:
    """Write weights_gradient = inputs.T @ gradient and bias_gradient = the sum of the gradient's
    rows.

    inputs: (n, k), gradient: (n, m), weights_gradient: (k, m), bias_gradient: (m,), scratch: at
    least packing_size(n, k, m, bf16) elements; C-contiguous, one type (but see above). With n = 0
    both become 0.
    """
    if len(inputs):
        _run_product(
            inputs,
            gradient,
            weights_gradient,
            bias_gradient,
            scratch,
            A_TRANSPOSED,
            IDENTITY,
            (*inputs.shape, bias_gradient.size),
            bf16,
        )
    else:
        weights_gradient[:] = 0
        bias_gradient[:] = 0
