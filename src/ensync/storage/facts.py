"""What `ensync doctor` asks of this home: whether the file system takes whole files, and whether
HDF5's locks work on it.
"""

import os
import shutil
import tempfile
from pathlib import Path

import h5py

from ensync.core.errors import EnsyncError
from ensync.storage.atomic import write_atomically


def hdf5_version() -> str:
    """Return the version of the HDF5 library."""
    version: str = h5py.version.hdf5_version
    return version


def existing(directory: str | os.PathLike[str]) -> Path:
    """Return the directory, or the nearest one above it that exists."""
    path = Path(directory).absolute()
    return next(parent for parent in (path, *path.parents) if parent.is_dir())


def file_system(directory: Path) -> tuple[str, int]:
    """Return the type of the file system ("ext4", "nfs4", "lustre"; "unknown") and its free
    bytes.
    """
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        mounts = []
    above = [(len(point), kind) for point, kind in mounts if directory.is_relative_to(point)]
    return max(above, default=(0, "unknown"))[1], shutil.disk_usage(directory).free


def write_trouble(directory: Path) -> str:
    """Return why a file cannot be written whole into the directory, "" when it can."""
    probe = directory / f".ensync-doctor-{os.getpid()}"
    try:
        write_atomically(probe, [b"x"])
        probe.unlink()
    except EnsyncError as error:
        return str(error).rstrip(".")
    except OSError as error:
        return f"{probe}: {error.strerror}"
    return ""


def lock_trouble(directory: Path) -> str:
    """Return why HDF5 cannot lock a file in the directory, "" when it can."""
    with tempfile.TemporaryDirectory(dir=directory, prefix=".ensync-doctor-") as scratch:
        try:
            with h5py.File(Path(scratch, "probe.h5"), "w", locking=True):
                pass
        except OSError as error:
            return str(error).splitlines()[0][:120]
    return ""
