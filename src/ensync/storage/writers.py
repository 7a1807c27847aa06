"""Whether another process has a file open for writing, as far as locks tell: HDF5 takes one on
each file that it writes.
"""

import fcntl
import os
from pathlib import Path


def writer_of(path: str | os.PathLike[str]) -> str:
    """Return who holds the lock of a writer on the file ("another process, 1234"), "" when
    nobody does or it cannot be known.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return ""
    except BlockingIOError:
        number = _holder(os.fstat(descriptor).st_ino)
        return f"another process{f' ({number})' if number else ''}"
    except OSError:  # a file system without locks
        return ""
    finally:
        os.close(descriptor)


def _holder(inode: int) -> str:
    """Return the number of the process that holds a lock for writing on the file, where this
    system tells.
    """
    try:
        lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    except OSError:
        return ""
    held = [
        words[4]
        for words in lines
        if len(words) > 5 and words[3] == "WRITE" and words[5].rpartition(":")[2] == str(inode)
    ]
    return held[0] if held else ""
