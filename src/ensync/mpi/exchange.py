"""Named arrays between rank 0 and the others."""

import numpy as np

from ensync.core.activity import Doing, doing
from ensync.mpi.world import Comm

_TAG = 71


def arrays_to_root(
    comm: Comm, source: int, arrays: dict[str, np.ndarray] | None
) -> dict[str, np.ndarray] | None:
    """Return on rank 0 the arrays that rank `source` passes; the other ranks pass None, get None
    and need not call.
    """
    return arrays_between(comm, source, 0, arrays)


def arrays_between(
    comm: Comm, source: int, target: int, arrays: dict[str, np.ndarray] | None
) -> dict[str, np.ndarray] | None:
    """Return on rank `target` the arrays that rank `source` passes; the other ranks pass None, get
    None and need not call.
    """
    if comm.rank not in (target, source):
        return None
    if source == target:
        return arrays
    if comm.rank == source:
        assert arrays is not None
        with doing(Doing.EXCHANGE):
            comm.send([(name, a.shape, a.dtype.str) for name, a in arrays.items()], target, _TAG)
            for array in arrays.values():
                comm.Send(np.ascontiguousarray(array), target, _TAG)
        return None
    with doing(Doing.EXCHANGE):
        received = {
            name: np.empty(shape, dtype)
            for name, shape, dtype in comm.recv(source=source, tag=_TAG)
        }
        for array in received.values():
            comm.Recv(array, source, _TAG)
    return received


def join_on_root(comm: Comm, values: np.ndarray) -> np.ndarray | None:
    """Return on rank 0 the vectors (n,) of all ranks, of one dtype, one after the other; None
    elsewhere. Collective.
    """
    with doing(Doing.GATHERING):
        sizes = comm.gather(len(values))
        joined = np.empty(sum(sizes), values.dtype) if sizes is not None else None
        comm.Gatherv(values, None if joined is None else [joined, sizes])
    return joined


def arrays_from_root(comm: Comm, arrays: dict[str, np.ndarray] | None) -> dict[str, np.ndarray]:
    """Return on every rank the arrays that rank 0 passes. Collective."""
    with doing(Doing.EXCHANGE):
        layout = comm.bcast(
            [(name, a.shape, a.dtype.str) for name, a in arrays.items()]
            if arrays is not None
            else None
        )
        held = (
            {name: np.ascontiguousarray(a) for name, a in arrays.items()}
            if arrays is not None
            else {n: np.empty(s, d) for n, s, d in layout}
        )
        for array in held.values():
            comm.Bcast(array)
    return held
