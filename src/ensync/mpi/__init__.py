"""What passes between ranks: the only home of mpi4py. Importing it initialises MPI, or says in a
sentence why it cannot.
"""

import os
import warnings

import mpi4py

from ensync.core.errors import EnsyncError
from ensync.core.signals import shielded
from ensync.mpi.launcher import check_after, check_before
from ensync.mpi.room import check_room


def _initialize() -> None:
    """Load the MPI library, check that the launcher belongs to it, and initialise it."""
    mpi4py.rc.initialize, mpi4py.rc.finalize = False, True
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise EnsyncError(
            f"no MPI library could be loaded ({' '.join(str(error).split())})",
            "MPICH or Open MPI",
            "install one with pip install 'ensync[mpich]', or load your site's own and set "
            "MPI4PY_LIBMPI to its libmpi.so",
        ) from None
    library = MPI.get_vendor()[0]
    if not MPI.Is_initialized():
        check_before(os.environ, library)
        check_room(os.environ, library)
        # One thread at a time calls MPI; THREAD_MULTIPLE, mpi4py's default, would make every call
        # take a lock.
        MPI.Init_thread(MPI.THREAD_SERIALIZED)
    check_after(os.environ, library, MPI.COMM_WORLD.size)


with warnings.catch_warnings(), shielded():
    warnings.simplefilter(
        "ignore", RuntimeWarning
    )  # mpi4py suspects a launcher of another MPI; the checks say it
    _initialize()
