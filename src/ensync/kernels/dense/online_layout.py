"""The scratch array of one-sample training: the offsets of its parts, and the pieces of the
weights that threads share.
"""

import functools

import numpy as np

from ensync.kernels.simd.host import lanes_of
from ensync.kernels.simd.rows import CHAINS


def _record(names: str) -> np.dtype:
    """Return the type of records of integers, whose fields are attributes in Python, too."""
    return np.dtype((np.record, [(name, np.int64) for name in names.split()]))


# Samples whose updates are applied together, and rows of weights of one piece.
BLOCK = 32
PIECE = 208

# Per layer: inputs, outputs; both padded (rows: inputs and the bias); activation; offsets of the
# weights (rows, columns), of the block's inputs (BLOCK, rows) and of its pending updates, -rate *
# deltas (BLOCK, columns).
LAYER = _record("inputs outputs rows columns activation weights values deltas")
# Offsets of what layers share: means and scales of the pixels, products (pieces, BLOCK, columns)
# and inner products (pieces, BLOCK, BLOCK) of the first layer, vectors of one sample; then the
# numbers of pieces of the first layer and of all weights.
ROOM = _record("means scales products inner outputs sums gradient delta factors pieces weights")


@functools.lru_cache(maxsize=8)
def lay_out(
    sizes: tuple[int, ...], codes: tuple[int, ...], itemsize: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Return the layers' offsets in the scratch array (LAYER), the shared ones (ROOM), the pieces
    of the weights and the number of elements of the array.
    """
    unit = max(lanes_of(itemsize), CHAINS)
    end = 0

    def take(*shape: int) -> int:
        nonlocal end
        start, end = end, end + padded(int(np.prod(shape)), 16)
        return start

    plan = np.zeros(len(codes), LAYER)
    for index, (inputs, outputs, code) in enumerate(zip(sizes[:-1], sizes[1:], codes, strict=True)):
        rows, columns = padded(inputs + 1, unit), padded(outputs, unit)
        places = take(rows, columns), take(BLOCK, rows), take(BLOCK, columns)
        plan[index] = (inputs, outputs, rows, columns, code, *places)
    width = max(plan["rows"].max(), plan["columns"].max())
    pieces = -(-plan[0]["rows"] // PIECE)
    room = np.zeros(1, ROOM)
    room[0] = (
        take(sizes[0]),
        take(sizes[0]),
        take(pieces, BLOCK, plan[0]["columns"]),
        take(pieces, BLOCK, BLOCK),
        take(width),
        take(width),
        take(width),
        take(width),
        take(BLOCK),
        pieces,
        (plan["rows"] * plan["columns"]).sum(),
    )
    return plan, room, pieces_of(plan), end


def padded(count: int, unit: int) -> int:
    """Return count rounded up to a multiple of unit."""
    return -(-count // unit) * unit


def aligned_zeros(elements: int, dtype: np.dtype) -> np.ndarray:
    """Return zeros that start at a whole cache line."""
    room = np.zeros(elements + 64 // dtype.itemsize, dtype)
    start = -room.ctypes.data % 64 // dtype.itemsize
    return room[start : start + elements]


def views(work: np.ndarray, plan: np.ndarray) -> list[np.ndarray]:
    """Return each layer's weights and bias (inputs + 1, outputs) as views of the scratch array."""
    return [
        work[layer["weights"] :][: layer["rows"] * layer["columns"]].reshape(
            layer["rows"], layer["columns"]
        )[: layer["inputs"] + 1, : layer["outputs"]]
        for layer in plan
    ]


def prepare_inputs(
    work: np.ndarray, plan: np.ndarray, room: np.ndarray, mean: np.ndarray, inverse_std: np.ndarray
) -> None:
    """Write the bias inputs of 1 and spread mean and scale over the pixels."""
    for layer in plan:
        work[layer["values"] + layer["inputs"] :: layer["rows"]][:BLOCK] = 1
    features = plan[0]["inputs"]
    for place, values in (("means", mean), ("scales", inverse_std)):
        start = room[0][place]
        work[start : start + features].reshape(-1, len(values))[:] = values


def pieces_of(plan: np.ndarray) -> np.ndarray:
    """Return (layer, first row, row after the last) of each piece of the weights, in an order in
    which equal runs of pieces take equal times.
    """
    pieces = [
        (index, first, min(first + PIECE, layer["rows"]))
        for index, layer in enumerate(plan)
        for first in range(0, layer["rows"], PIECE)
    ]
    longest_first = sorted(
        pieces,
        key=lambda piece: (
            -(piece[2] - piece[1]) * plan[piece[0]]["columns"] * (2 if piece[0] == 0 else 1)
        ),
    )
    return np.array(_deal(longest_first))


def _deal(pieces: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Deal the pieces to two halves, each half to its own halves, and so on."""
    return pieces if len(pieces) < 3 else _deal(pieces[::2]) + _deal(pieces[1::2])
