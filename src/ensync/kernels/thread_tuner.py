"""The number of threads while training: as many as make steps fastest beside what else runs here.

Threads of a kernel wait for each other at its end. Where another process takes one of their cores,
each wait can last a turn of the scheduler (milliseconds), and steps on two threads take longer than
on one. No way of waiting cures that, because the late thread does not run. So the time of steps
decides: from time to time a few steps run on half or twice as many threads, and the faster number
stays. Results do not depend on the number of threads.
"""

from collections.abc import Callable

from ensync.kernels.threads import thread_limit, use_threads

FEWER, MORE = 1, -1  # directions of a trial: to half as many threads, to twice as many
SOONEST = {
    FEWER: 0.2,
    MORE: 1.0,
}  # seconds of steps between two trials at first; lost trials double it
LATEST = 10.0
STEPS_A_SECOND = 100  # trials of long steps come as rarely as those of steps of 10 ms,
RAREST = 200  # but after so many steps at the latest
LENGTH = {FEWER: 0.03, MORE: 0.06}  # seconds of a trial, which has at least two steps
WINS, HOPELESS = 0.93, 1.15  # a step on trial over a usual one: below it wins, above it ends early
RECENT, ERRATIC = 0.05, 1.3  # seconds of steps that, so many times as slow, call for fewer threads
LONG = 2.0  # seconds of two slow steps in a row, which call for them at once,
SHORT = 0.5  # but not of steps that are shorter than this
COLD = 2  # first steps, which touch memory for the first time
STANDS = 3.0  # seconds for which more threads must stay the better choice


class Mean:
    """The mean seconds of the latest steps; where `span` is given, older ones count ever less."""

    def __init__(self, span: float = float("inf")) -> None:
        self.span, self.seconds, self.steps = span, 0.0, 0.0

    def add(self, seconds: float) -> None:
        """Count a step."""
        if self.seconds > self.span and self.steps > 8:
            self.seconds, self.steps = self.seconds / 2, self.steps / 2
        self.seconds, self.steps = self.seconds + seconds, self.steps + 1

    @property
    def value(self) -> float:
        """Seconds a step."""
        return self.seconds / max(self.steps, 1.0)


class ThreadTuner:
    """Chooses among the rank's threads, half of them, a quarter ... and one.

    tell: called with a sentence when fewer threads than the rank has are chosen for the first time.
    As a context manager it lets kernels use all threads of the rank again at the end.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.tell: Callable[[str], None] | None = tell
        self.counts = [thread_limit()]
        while self.counts[-1] > 1:
            self.counts.append(self.counts[-1] // 2)
        self.place, self.trial = 0, 0  # in `counts`, and the direction of the trial at hand
        self.usual, self.recent, self.tried = Mean(0.5), Mean(), Mean()
        self.slow = Mean()  # the latest steps, as far as each is slow
        self.now = Mean()  # all steps: the clock
        self.waits = dict(SOONEST)
        self.last = dict.fromkeys(SOONEST, (0.0, 0.0))  # seconds and steps at the last trial
        self.raised = -STANDS  # seconds at the last change to more threads
        self.urgent = False  # whether fewer threads are to be tried at once

    def __enter__(self) -> "ThreadTuner":
        return self

    def __exit__(self, *exception: object) -> None:
        self.trial = 0
        use_threads(self.counts[0])

    def note(self, seconds: float) -> None:
        """Take the seconds of a step, without waits for other ranks; choose the threads of the
        next.

        Steps must be alike: those of smaller batches are not to be noted.
        """
        self.now.add(seconds)
        if self.now.steps <= COLD:
            return
        if self.trial:
            self._go_on(seconds)
            return
        slow = seconds > SHORT and self._is_slow(seconds)
        self.usual.add(seconds)
        if slow:
            self._watch_long_steps(seconds)
        elif self.slow.steps:
            self.slow = Mean()
        self.recent.add(seconds)
        if self.recent.seconds > RECENT and self.recent.steps >= 4:
            if self.recent.value > ERRATIC * self.usual.value:
                self.waits[FEWER] = SOONEST[FEWER]
            self.recent = Mean()
        self.trial = next((direction for direction in SOONEST if self._is_due(direction)), 0)
        if self.trial:
            self.tried, self.slow, self.urgent = Mean(), Mean(), False
            use_threads(self.counts[self.place + self.trial])

    def _is_slow(self, seconds: float) -> bool:
        return self.usual.steps >= COLD and seconds > ERRATIC * self.usual.value

    def _watch_long_steps(self, seconds: float) -> None:
        """Let two slow steps in a row, where they are long, stand for the usual ones: others would
        hide for minutes what changed.
        """
        self.slow.add(seconds)
        if self.slow.steps >= 2 and self.slow.seconds > LONG:
            self.usual.seconds, self.usual.steps = self.slow.seconds, self.slow.steps
            self.waits[FEWER], self.urgent = SOONEST[FEWER], True

    def _is_due(self, direction: int) -> bool:
        (seconds, steps), wait = self.last[direction], self.waits[direction]
        passed = self.now.seconds - seconds, self.now.steps - steps
        possible = 0 <= self.place + direction < len(self.counts)
        if not possible or passed[0] < wait:
            return False
        urgent = direction == FEWER and self.urgent
        return passed[1] >= (COLD if urgent else min(wait * STEPS_A_SECOND, RAREST))

    def _go_on(self, seconds: float) -> None:
        """Count a step on trial; end the trial when it is long enough, or hopeless."""
        tried, usual = self.tried, self.usual
        tried.add(seconds)
        length = LENGTH[self.trial]
        if tried.seconds > length / 3 and tried.value > HOPELESS * usual.value:
            self._end(False)
        elif tried.seconds > length and tried.steps >= 2:
            self._end(tried.value < WINS * usual.value)

    def _end(self, won: bool) -> None:
        direction, self.trial = self.trial, 0
        self.last[direction] = self.now.seconds, self.now.steps
        if won:
            self._move(direction)
        else:
            self.waits[direction] = min(LATEST, 2 * self.waits[direction])
            use_threads(self.counts[self.place])

    def _move(self, direction: int) -> None:
        """Keep the threads on trial. More of them that soon proved worse are tried ever more
        rarely.
        """
        if direction == MORE:
            self.raised = self.now.seconds
        else:
            soon = self.now.seconds - self.raised < STANDS
            self.waits[MORE] = min(LATEST, 2 * self.waits[MORE]) if soon else SOONEST[MORE]
            self._tell_once()
        self.waits[FEWER] = SOONEST[FEWER]
        self.last = dict.fromkeys(SOONEST, (self.now.seconds, self.now.steps))
        self.place += direction
        self.usual.seconds, self.usual.steps = self.tried.seconds, self.tried.steps
        self.recent = Mean()

    def _tell_once(self) -> None:
        if self.tell is None:
            return
        more, fewer = self.counts[self.place], self.counts[self.place + FEWER]
        slow, fast = (f"{1e3 * mean.value:.3g} ms" for mean in (self.usual, self.tried))
        self.tell(
            f"a step takes {slow} on {more} threads and {fast} on {fewer}: other programs use "
            "these "
            "cores, or the network is small; fewer threads are used until that changes, with the "
            f"same results; --set training.threads={fewer} fixes the number"
        )
        self.tell = None
