"""Signals become a wish to stop, which the training loop reads between two steps."""

import signal
import types
from collections.abc import Iterator
from contextlib import contextmanager

AGAIN = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)   # a time limit or preemption: run again to continue


def raise_interrupts() -> None:
    """Let Ctrl-C raise KeyboardInterrupt from here on, for what knows how to leave tidily."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


class StopWish:
    """The first signal received, or 0."""

    number: int = 0

    def __call__(self) -> int:
        return 1 if self.number else 0

    def receive(self, number: int, frame: types.FrameType | None) -> None:
        """Note the signal; a second Ctrl-C interrupts at once."""
        if number == signal.SIGINT and self.number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = self.number or number


@contextmanager
def stop_on_signals() -> Iterator[StopWish]:
    """Catch SIGINT, SIGTERM, SIGUSR1, SIGUSR2 and SIGXCPU while the block runs and put the old handlers back after it."""
    wish = StopWish()
    before = {number: signal.signal(number, wish.receive) for number in (signal.SIGINT, *AGAIN)}
    try:
        yield wish
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
