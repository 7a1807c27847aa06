"""Standard input, output and error as a user, a shell or a batch system leaves them: closed,
full, gone, of another encoding; and limits of a process.
"""

import errno
import os
import stat
import sys
import time
import warnings
from contextlib import suppress

from ensync.core.errors import EnsyncError, printable_lines, reason

try:
    import resource
except ImportError:  # not a Unix
    resource = None  # type: ignore[assignment]
try:
    import fcntl
    import termios
except ImportError:  # not a Unix
    fcntl = termios = None  # type: ignore[assignment]

FILES = 64  # open files that a rank needs at least: MPI's start takes some thirty
WANTED = 4096  # that it asks for, where the limit may be raised


def prepare() -> None:
    """Put something behind closed streams, raise the limit of open files, and let warnings be one
    line. Call before files are opened.

    A file that is opened while standard output is closed takes its place, and what is printed would
    be written into it.
    """
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, mode, closefd=False))
    if resource is not None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if 0 <= soft < WANTED and soft != hard:
            resource.setrlimit(
                resource.RLIMIT_NOFILE, (WANTED if hard < 0 else min(WANTED, hard), hard)
            )
    warnings.showwarning = lambda message, *_, **__: tell(f"warning: {message}")


def check_directory() -> None:
    """Refuse a working directory that was removed: paths relative to it lead nowhere."""
    try:
        os.getcwd()
    except OSError as error:
        raise EnsyncError(
            f"the working directory cannot be used ({error.strerror})",
            "one that exists",
            "change into another (cd) and start again",
        ) from None


def check_files() -> None:
    """Refuse a limit of open files under which MPI cannot start, and would say so in riddles."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0] if resource is not None else -1
    if 0 <= soft < FILES:
        raise EnsyncError(
            f"this process may have {soft} files open (ulimit -n)",
            f"at least {FILES}",
            "raise the limit, for instance with ulimit -n 1024",
        )


def say(text: str) -> None:
    """Write lines to standard output. A reader that has gone is not told; EnsyncError where a
    disk is full.
    """
    try:
        data = (printable_lines(text) + "\n").encode(
            getattr(sys.stdout, "encoding", None) or "utf-8", "backslashreplace"
        )
        sys.stdout.buffer.write(data) if hasattr(sys.stdout, "buffer") else sys.stdout.write(
            data.decode()
        )
        sys.stdout.flush()
    except OSError as error:
        leave(sys.stdout)
        if error.errno != errno.EPIPE:
            raise EnsyncError(
                f"standard output cannot be written because {reason(error)}",
                "room for what is printed",
                "print to another place",
            ) from None


def tell(text: str) -> None:
    """Write lines to standard error; where nobody reads it, they are lost."""
    flush()
    try:
        sys.stderr.write(printable_lines(text) + "\n")
    except (AttributeError, OSError, ValueError):
        pass
    flush()


def flush() -> None:
    """Write what the two streams still hold, where somebody takes it."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            leave(stream)


def wait_until_read(descriptor: int, limit: float) -> None:
    """Wait until whoever reads the pipe behind a descriptor has taken all that is in it, for at
    most `limit` seconds. Anything else than a pipe holds nothing back.
    """
    end = time.monotonic() + limit
    with suppress(OSError):
        while stat.S_ISFIFO(os.fstat(descriptor).st_mode) and time.monotonic() < end:
            waiting = fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4))
            if not any(waiting):
                return
            time.sleep(0.001)


def leave(stream: object) -> None:
    """Turn a stream that refuses away to nowhere, so that what it still holds is no trouble at
    the end of the process.
    """
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())  # type: ignore[attr-defined]
        os.close(nowhere)
    except (AttributeError, OSError, ValueError):
        pass
