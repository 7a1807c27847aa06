"""Does the launcher (mpirun, srun) belong to the MPI library? If not, every rank would think
that it is alone.
"""

import sys
import time
from collections.abc import Mapping
from pathlib import Path

from ensync.core.errors import EnsyncError
from ensync.core.launching import started


def check_before(environment: Mapping[str, str], library: str) -> None:
    """Refuse Open MPI's mpirun for another library, before that one initialises: MPICH would
    abort with a riddle.
    """
    size, _, name = started(environment)
    if library != "Open MPI" and name.startswith("OMPI") and size > 1:
        raise EnsyncError(*_mismatch(environment, library, "cannot join them"))


def check_after(environment: Mapping[str, str], library: str, size: int) -> None:
    """Refuse a launcher that started more ranks than the communicator of all ranks has."""
    if started(environment)[0] > size:
        raise EnsyncError(*_mismatch(environment, library, f"sees {size}"))


def _mismatch(environment: Mapping[str, str], library: str, sees: str) -> tuple[str, str, str]:
    """Return the three parts of the error on the launcher's first rank; let the others leave
    after it has spoken.
    """
    size, rank, name = started(environment)
    if rank > 0:
        time.sleep(1)
        raise SystemExit(EnsyncError.exit_code)
    own = Path(sys.executable).parent / "mpirun"
    mpirun = str(own) if own.exists() else "its own mpirun"
    plugin = "pmix" if library == "Open MPI" else "pmi2"
    return (
        f"the launcher started {size} ranks ({name}={size}) but {library} {sees}",
        "a launcher that belongs to the MPI library",
        f"start with {mpirun}, or in Slurm with srun --mpi={plugin}",
    )
