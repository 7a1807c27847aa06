"""Signals become a wish to stop.

Noted from the first line of the program, obeyed at once while a run is prepared, then between two
steps.
"""

import os
import signal
import threading
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

# A time limit, a preemption or the end of a terminal's session: run again to continue.
AGAIN = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU, signal.SIGHUP)
STOPPED = 75  # exit code: EX_TEMPFAIL of sysexits.h
INTERRUPTED = 130
TRAINING = ("train", "resume", "compare", "sweep")  # verbs to run again when a signal ends them


class StoppedEarly(BaseException):
    """A signal came while there was nothing to save.

    No Exception: a compiler in whose midst it is raised must not take it for its own.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    def __str__(self) -> str:
        return (
            f"stopped by {signal.Signals(self.number).name} during preparation, before a step "
            "was trained; "
            "what was saved before is intact; run the same command again."
        )


def _nothing() -> None:
    """Look for nothing."""


class StopRequest:
    """The first signal received, or 0. While `at_once` is true a signal raises StoppedEarly.

    look: called whenever it is asked; sets `number` where others have received a signal.
    """

    number: int = 0
    at_once: bool = False

    def __init__(self) -> None:
        self.look: Callable[[], None] = _nothing

    def __call__(self) -> int:
        self.look()
        return 1 if self.number else 0

    def receive(self, number: int, frame: types.FrameType | None) -> None:
        """Note the signal; a second Ctrl-C interrupts at once."""
        if number == signal.SIGINT and self.number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = self.number or number
        if self.at_once:
            raise StoppedEarly(self.number)


_stop_request = StopRequest()  # of this process
_noting = False  # since the first line of the program


def note_signals(arguments: Sequence[str]) -> None:
    """Note signals from here on where the command line's verb trains.

    Let Ctrl-C end the process, whatever the verb. A signal that is ignored, as nohup has it for
    SIGHUP, stays so. Until MPI has started (`shielded`) signals wait: threads that are made by
    imports inherit that, so that none of them takes a signal while MPI's handler is in place.
    """
    global _noting
    signal.signal(signal.SIGINT, _leave)
    if arguments and arguments[0] in TRAINING:
        _noting = True
        _catch()
        signal.pthread_sigmask(signal.SIG_BLOCK, AGAIN)


def _leave(number: int, frame: types.FrameType | None) -> None:
    os._exit(INTERRUPTED)  # not by the signal itself: MPICH's mpirun would end with 2 then


def _catch() -> dict[int, Any]:
    """Let `_wish` receive the signals that are not ignored; return what handled them before."""
    heard = [number for number in AGAIN if signal.getsignal(number) != signal.SIG_IGN]
    return {number: signal.signal(number, _stop_request.receive) for number in heard}


def raise_interrupts() -> None:
    """Let Ctrl-C raise KeyboardInterrupt from here on, for what knows how to leave tidily."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Ended(BaseException):
    """A signal that ends what cannot go on later."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number, self.code = number, 128 + number


@contextmanager
def ending_tidily() -> Iterator[None]:
    """Raise Ended inside the block, once, when Ctrl-C, SIGTERM or SIGHUP comes: what follows is
    ignored while the block clears up.
    """
    heard = [
        number
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) != signal.SIG_IGN
    ]
    came: list[int] = []

    def end(number: int, frame: types.FrameType | None) -> None:
        if not came:
            came.append(number)
            raise Ended(number)

    before = {number: signal.signal(number, end) for number in heard}
    try:
        yield
    except Exception as error:  # a library may have made another error of it
        if came:
            raise Ended(came[0]) from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def shielded() -> Iterator[None]:
    """Keep signals back while a library starts that takes them for itself.

    MPICH catches SIGUSR1 in MPI_Init and drops it.

    What came meanwhile is received after the block, by the handlers from before it. Threads that
    the library starts leave these signals to this one. Ctrl-C ends the process at once where
    `note_signals` has said so: a rank whose neighbour is gone would wait in MPI_Init for ever,
    where Python's own handlers never run.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    import ctypes  # here, because the first line should come soon

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, *AGAIN)}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, AGAIN)
    ending = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda number: os._exit(INTERRUPTED))
    if before[signal.SIGINT] is _leave:
        ctypes.CDLL(None).signal(ctypes.c_int(signal.SIGINT), ending)
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # None: not Python's to put back
                signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask - set(AGAIN) if _noting else mask)


@contextmanager
def leaving_at_once() -> Iterator[None]:
    """Raise StoppedEarly inside the block when a signal comes, and before it when one has come."""
    if _stop_request.number:
        raise StoppedEarly(_stop_request.number)
    _stop_request.at_once = True
    try:
        yield
    finally:
        _stop_request.at_once = False


def ask_to_stop() -> None:
    """Wish from within the program that the run stops, as SIGTERM does."""
    _stop_request.number = _stop_request.number or signal.SIGTERM


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Note SIGINT and those of AGAIN while the block runs; put the old handlers back after it, and
    forget what came where a program goes on after it (one that imports Ensync).
    """
    before = _catch() | {signal.SIGINT: signal.signal(signal.SIGINT, _stop_request.receive)}
    if not _noting:
        _stop_request.number = 0
    try:
        yield _stop_request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if not _noting:
            _stop_request.number = 0
