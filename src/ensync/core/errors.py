"""The one error a user meets: what was given, what was expected, what to do; and how any text of
it may look.
"""

import difflib
import errno
import os
import unicodedata
from collections.abc import Iterable

JOINERS = (
    "\u200c\u200d"  # control characters that letters of some scripts need, and that move nothing
)
BETWEEN_LINES = ("Zl", "Zp")

_REASONS = {
    errno.ENOSPC: "no space is left on the device",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission is denied",
    errno.EPERM: "permission is denied",
    errno.ENOENT: "it does not exist (any more)",
    errno.ENOTDIR: "a part of the path is a file, not a directory",
    errno.ESTALE: "it does not exist (any more)",
    errno.EISDIR: "a directory of that name is in the way",
    errno.EFBIG: "the file system or a limit (ulimit -f) refuses a file of this size",
    errno.EIO: "the device reports an input/output error",
    errno.ENAMETOOLONG: "its name is too long for the file system",
    errno.ELOOP: "its symbolic links lead in a circle",
    errno.EMFILE: "this process has too many files open (ulimit -n)",
    errno.ENFILE: "this machine has too many files open",
    errno.ENOMEM: "there is not enough memory",
    errno.EAGAIN: "the system has no more of what it takes (ulimit -u, memory)",
}


class EnsyncError(Exception):
    """A mistake of the user's or of the machine's, told in one sentence of three parts.

    given: what was found ("training.epochs = -3"); expected: what would be right ("a whole number
    of at least 1"); action: what to do ("change it in the job file or with --set
    training.epochs=N").
    """

    exit_code = 2

    def __init__(self, given: str, expected: str, action: str) -> None:
        super().__init__(given, expected, action)
        self.given, self.expected, self.action = given, expected, action

    def __str__(self) -> str:
        return printable(f"{self.given}; expected {self.expected}; {self.action}.")


def plural(amount: int, one: str, many: str | None = None) -> str:
    """Return "1 rank" or "4 ranks"."""
    return f"{amount:,} {one if amount == 1 else many or one + 's'}"


def printable(text: str) -> str:
    """Return the text on one line, with control characters as \\x1b or \\n: a name from a file
    can neither steer a terminal nor begin a line.
    """
    if text.isprintable():
        return text
    return "".join(
        letter if _harmless(letter) else letter.encode("unicode_escape").decode() for letter in text
    )


def _harmless(letter: str) -> bool:
    kind = unicodedata.category(letter)
    return letter in JOINERS or not (kind.startswith("C") or kind in BETWEEN_LINES)


def printable_lines(text: str) -> str:
    """Return text of several lines with each of them `printable`."""
    return "\n".join(map(printable, text.split("\n")))


def reason(error: OSError) -> str:
    """Return what an operating-system error means, in words."""
    return _REASONS.get(error.errno or 0, error.strerror or str(error))


def sentence(error: BaseException) -> EnsyncError | None:
    """Return the sentence for an exception that comes from the machine, its memory and its
    files; None for a bug.
    """
    if isinstance(error, EnsyncError):
        return error
    if isinstance(error, MemoryError):
        return EnsyncError(
            "there is not enough memory" + (f" ({error})" if str(error) else ""),
            "memory for the network, its batches and the dataset",
            "start fewer ranks on a node, lower training.batch or training.slice, or take a "
            "smaller network (`ensync describe JOB.toml` estimates)",
        )
    if isinstance(error, OSError) and error.errno in _REASONS:
        names = [str(name) for name in (error.filename, error.filename2) if isinstance(name, str)]
        given = (
            f"{' -> '.join(names)} cannot be used because {reason(error)}"
            if names
            else f"the system refuses: {reason(error)}"
        )
        return EnsyncError(
            given,
            "files, directories and limits that allow it",
            "check the path, its permissions and the limits of this machine",
        )
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return EnsyncError(
            "the system refuses another thread",
            "room for the threads of each rank",
            "raise the limit (ulimit -u), or start fewer ranks on a node",
        )
    return None


def leads_nowhere(path: str | os.PathLike[str]) -> str:
    """Return ", a link to 'x' that leads nowhere" for such a link, whose data were perhaps not
    fetched; "" for what is no link.
    """
    try:
        return f", a link to '{os.readlink(path)}' that leads nowhere"
    except OSError:
        return ""


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Return " (did you mean 'x'?)" for the nearest allowed name, or "" when none is near.

    Names that look the same, in two normal forms of Unicode, are shown with escapes.
    """
    others = [other for other in allowed if other != name]
    for other in others:
        if unicodedata.normalize("NFC", other) == unicodedata.normalize("NFC", name):
            return f" (that is {ascii(name)}, and {ascii(other)} is there)"
    near = difflib.get_close_matches(name, others, n=1, cutoff=0.5)
    return f" (did you mean '{near[0]}'?)" if near else ""
