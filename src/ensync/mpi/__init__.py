"""What passes between ranks: the only home of mpi4py. Importing it initialises MPI, or says in a sentence why it cannot."""

import mpi4py

from ensync.errors import EnsyncError

# Only one thread at a time calls MPI; MPI_THREAD_MULTIPLE, mpi4py's default, would make every call take a lock.
mpi4py.rc.thread_level = "serialized"

try:
    from mpi4py import MPI as _MPI  # noqa: F401
except (ImportError, RuntimeError) as error:
    raise EnsyncError(
        f"no MPI library could be loaded ({' '.join(str(error).split())})",
        "MPICH or Open MPI",
        "install one with pip install 'ensync[mpich]', or load your site's own and set MPI4PY_LIBMPI to its libmpi.so",
    ) from error
