"""Whether rank 0's lines end up on a terminal or in a log, behind an MPI launcher too."""

from __future__ import annotations

import errno
import io
import os
import select
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, TextIO, cast

from ensync.core.errors import reason
from ensync.core.streams import tell

if TYPE_CHECKING:
    from rich.console import Console as RichConsole

LAUNCHERS = ("mpirun", "mpiexec", "prterun", "orterun", "hydra_pmi_proxy", "prted", "prte", "orted")


@dataclass(frozen=True)
class Terminal:
    """A terminal that shows what this process prints."""

    columns: int


def find_terminal(stream: TextIO) -> Terminal | None:
    """Return the terminal behind the stream, None when its lines go into a file or a pipe.

    The stream alone does not show it: MPICH's launcher reads its ranks through pipes and forwards
    to the terminal, Open MPI's gives them a pseudo-terminal and forwards to a log. So the output of
    the launcher is looked at where one is an ancestor of this process.
    """
    if os.environ.get("TERM", "dumb") == "dumb" or not _is_process_output(stream):
        return None
    launcher = _launcher()
    if launcher is None:
        return Terminal(_columns(stream.fileno())) if stream.isatty() else None
    try:
        return _terminal_of(launcher)
    except OSError:
        return None


def _terminal_of(process: int) -> Terminal | None:
    """Return the terminal that another process's standard output is. OSError when it may not be
    looked at.
    """
    path = f"/proc/{process}/fd/1"
    if not stat.S_ISCHR(os.stat(path).st_mode):
        return None
    descriptor = os.open(path, os.O_WRONLY | os.O_NOCTTY)
    try:
        return Terminal(_columns(descriptor)) if os.isatty(descriptor) else None
    finally:
        os.close(descriptor)


def _is_process_output(stream: TextIO) -> bool:
    """Return whether the stream is this process's standard output or a terminal, not a file or a
    test's buffer.
    """
    try:
        return stream.fileno() == 1 or stream.isatty()
    except (AttributeError, OSError, ValueError):
        return False


def _columns(descriptor: int) -> int:
    """Return the width of the terminal, 80 when it is not known."""
    try:
        return os.get_terminal_size(descriptor).columns or 80
    except OSError:
        return 80


def _launcher() -> int | None:
    """Return the process number of the outermost MPI launcher right above this process, None
    without one (or without /proc).
    """
    found, process = None, os.getppid()
    while process > 1:
        try:
            name, parent = _name_and_parent(process)
        except (OSError, ValueError):
            return found
        if name in LAUNCHERS:
            found = process
        elif found:
            return found
        process = parent
    return found


def _name_and_parent(process: int) -> tuple[str, int]:
    """Return the name (at most 15 letters, as the kernel keeps it) and the parent of a process."""
    text = Path(f"/proc/{process}/stat").read_text()
    name, rest = text[text.index("(") + 1 : text.rindex(")")], text[text.rindex(")") + 2 :]
    return name, int(rest.split()[1])


class Output:
    """A text stream whose every write is one system call, so that the lines of several ranks do not
    mix.

    After an error (a closed pipe, a full disk) it writes nothing more: training goes on without
    its log.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stdout
        self.encoding = getattr(self.stream, "encoding", None) or "utf-8"
        self.open, self.trouble = True, ""

    def write(self, text: str) -> int:
        """Write the text at once; what the stream's encoding lacks is shown as "?"."""
        if self.open and text:
            try:
                self._write(text)
            except (AttributeError, OSError, ValueError) as error:
                self.open = False
                self._note(error)
        return len(text)

    def _note(self, error: Exception) -> None:
        """Remember why lines are lost, and say it at once; a reader that has gone knows it."""
        if isinstance(error, OSError) and error.errno not in (errno.EPIPE, errno.EBADF):
            self.trouble = f"standard output cannot be written because {reason(error)}"
            tell(f"warning: {self.trouble}; the lines from here on are lost")

    def _write(self, text: str) -> None:
        try:
            descriptor = self.stream.fileno()
        except (AttributeError, io.UnsupportedOperation):
            self.stream.write(text)
            self.stream.flush()
            return
        self.stream.flush()
        data = text.encode(self.encoding, "replace")
        while data:
            try:
                data = data[os.write(descriptor, data) :]
            except BlockingIOError:  # a launcher may have made the shared terminal non-blocking
                select.select([], [descriptor], [])

    def flush(self) -> None:
        """Nothing is held back."""

    def isatty(self) -> bool:
        """Return whether the stream says it is a terminal (rich asks)."""
        return self.open and self.stream.isatty()


def rich_console(output: Output, terminal: Terminal) -> RichConsole:
    """Return rich's console for a terminal, colours as the terminal has them and NO_COLOR
    allows.
    """
    from rich.console import Console as RichConsole

    class SteadyConsole(RichConsole):
        """Never hides the cursor: a run that is aborted could not bring it back."""

        def show_cursor(self, show: bool = True) -> bool:
            return False

    file = cast("IO[str]", output)  # rich writes, flushes and asks isatty, no more
    return SteadyConsole(
        file=file, force_terminal=True, width=terminal.columns, legacy_windows=False
    )
