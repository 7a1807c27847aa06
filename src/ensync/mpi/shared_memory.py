"""One copy of an array for all ranks of a node, in MPI shared memory."""

import mmap
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable
from math import prod

import numpy as np
from mpi4py import MPI

from ensync.core.activity import Doing, doing
from ensync.core.errors import EnsyncError
from ensync.mpi.room import SHARED_DIRECTORY
from ensync.mpi.world import Comm, node_of, on_root, patient_barrier

# Where MPICH and Open MPI keep shared windows on Linux, and what they need beside them. A container
# often has 64 MiB there; writing past the end kills the rank with SIGBUS and no reason, so the
# space is looked at first.
_MARGIN = 16 << 20

# The window and node communicator behind each array handed out, by the address of its data.
_open: dict[int, tuple[MPI.Win, Comm]] = {}


def node_shared(
    comm: Comm, shape: tuple[int, ...], dtype: np.dtype | type, fill: Callable[[np.ndarray], None]
) -> np.ndarray:
    """Return an array that all ranks of a node share, filled by the node's first rank. Collective.

    Where shared memory is short every rank fills a copy of its own and rank 0 warns with the
    reason. The array is to be read only. An EnsyncError of `fill` is raised on all ranks. `release`
    gives the memory back.
    """
    node = node_of(comm)
    dtype = np.dtype(dtype)
    nbytes = prod(shape) * dtype.itemsize
    reasons = comm.allgather(
        free_space_obstacle(nbytes) if node.rank == 0 and node.size > 1 else ""
    )
    window = None
    if any(reasons) or node.size == 1 or nbytes == 0:
        array = np.empty(shape, dtype)
    else:
        window = MPI.Win.Allocate_shared(nbytes if node.rank == 0 else 0, dtype.itemsize, comm=node)
        array = np.frombuffer(memoryview(window.Shared_query(0)[0]), dtype, prod(shape)).reshape(
            shape
        )
    if comm.rank == 0 and any(reasons):
        warnings.warn(
            f"each rank keeps its own copy of the data: {next(filter(None, reasons))}", stacklevel=2
        )
    _fill_together(comm, node, window, array, fill)
    return array


def free_space_obstacle(nbytes: int) -> str:
    """Return why nbytes cannot be shared on this node, or ""."""
    if not os.path.isdir(SHARED_DIRECTORY):
        return f"{MPI.Get_processor_name()} has no {SHARED_DIRECTORY}"
    free = shutil.disk_usage(SHARED_DIRECTORY).free
    if free >= nbytes + _MARGIN:
        return ""
    return (
        f"{SHARED_DIRECTORY} on {MPI.Get_processor_name()} has {free / 1e6:.0f} MB free "
        f"of the {(nbytes + _MARGIN) / 1e6:.0f} MB needed"
    )


def _fill_together(
    comm: Comm,
    node: Comm,
    window: MPI.Win | None,
    array: np.ndarray,
    fill: Callable[[np.ndarray], None],
) -> None:
    """Fill the array where this rank is to, wait asleep for the others, and raise any rank's
    EnsyncError everywhere.
    """
    failure = None
    if window is not None:
        window.Fence()
        _open[array.ctypes.data] = window, node
    if window is None or node.rank == 0:
        try:
            with doing(Doing.READING):
                fill(array)
        except EnsyncError as error:
            failure = error
    patient_barrier(comm)
    if window is None:
        node.Free()
    else:
        window.Fence()
    failures = [failure for failure in comm.allgather(failure) if failure is not None]
    if failures:
        release(array)
        raise failures[0]


def release(array: np.ndarray) -> None:
    """Give back the memory of an array of `node_shared`, which must not be touched again.
    Collective over the node's ranks.
    """
    if array.ctypes.data in _open:
        for part in _open.pop(array.ctypes.data):
            part.Free()


def node_file(node: Comm, nbytes: int) -> tuple[int, mmap.mmap]:
    """Return a descriptor and zeroed memory that all ranks of a node share. Collective over them.

    A file of the system's memory that loses its name at once: nothing is left of it, however the
    job ends.
    """
    name = on_root(node, lambda: _make_file(nbytes))
    descriptor = os.open(name, os.O_RDWR | os.O_CLOEXEC)
    patient_barrier(node)
    if node.rank == 0:
        os.unlink(name)
    return descriptor, mmap.mmap(descriptor, nbytes)


def _make_file(nbytes: int) -> str:
    directory = SHARED_DIRECTORY if os.path.isdir(SHARED_DIRECTORY) else tempfile.gettempdir()
    try:
        descriptor, name = tempfile.mkstemp(prefix="ensync-", dir=directory)
        os.write(
            descriptor, bytes(nbytes)
        )  # what is missing there is told here, and not by a signal later
        os.close(descriptor)
        return name
    except OSError as error:
        raise EnsyncError(
            f"{directory} on {MPI.Get_processor_name()} cannot be written ({error.strerror})",
            f"{nbytes} bytes there for the ranks' watchdog",
            "make room, or leave it out with --set training.watchdog=0",
        ) from None
