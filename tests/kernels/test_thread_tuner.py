"""The number of threads that the time of steps chooses, on a simulated machine of two cores."""

import numba
import numpy as np
import pytest

from ensync.kernels import threads
from ensync.kernels.thread_tuner import ThreadTuner

pytestmark = pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="one CPU")
IDLE = {
    1: 1.65,
    2: 1.0,
}  # seconds of a step by threads, in those of a step on two where nothing else runs
SIZES = [1e-4, 4e-4, 7e-3, 0.1, 2.0]


class Machine:
    """Steps of `size` seconds. Beside a busy program two threads wait for a turn of the
    scheduler now and then.
    """

    def __init__(self, size, seed=1):
        self.size, self.busy, self.random = size, False, np.random.default_rng(seed)
        self.said = []
        threads.set_threads(2)
        self.tuner = ThreadTuner(self.said.append)

    def step(self, count):
        """Return the seconds of a step on so many threads, 3 % more or less."""
        seconds = self.size * IDLE[count] * self.random.normal(1, 0.03)
        if self.busy and count == 2:
            seconds += self.random.poisson(seconds / 1.5e-3) * 4e-3  # a turn lost for each 1.5 ms
        return seconds

    def run(self, seconds):
        """Train so long; return the time over that of the better fixed number of threads for the
        same steps.
        """
        spent, steps = 0.0, 0
        while spent < seconds:
            taken = self.step(threads.get_threads())
            self.tuner.note(taken)
            spent, steps = spent + taken, steps + 1
        return spent / min(sum(self.step(count) for _ in range(steps)) for count in (1, 2))


@pytest.fixture(autouse=True)
def threads_of_before():
    """Leave the number of threads as it was."""
    before = threads.thread_limit()
    yield
    threads.set_threads(before)


@pytest.mark.parametrize("size", SIZES)
def test_on_an_idle_machine_trials_cost_at_most_a_twentieth(size):
    machine = Machine(size)
    assert machine.run(max(3.0, 150 * size)) < 1.05 and machine.run(30.0) < 1.02
    assert threads.get_threads() == 2 and not machine.said


@pytest.mark.parametrize("size", SIZES)
def test_beside_a_busy_program_steps_go_on_on_one_thread_until_it_ends(size):
    machine = Machine(size)
    machine.busy = True
    assert machine.run(max(3.0, 150 * size)) < 1.5 and machine.run(10.0) < 1.15
    machine.busy = False
    machine.run(max(15.0, 400 * size))
    assert machine.run(10.0) < 1.05 and threads.get_threads() == 2
    machine.busy = True
    assert machine.run(max(3.0, 150 * size)) < 1.5
    assert len(machine.said) == 1 and "training.threads=1" in machine.said[0]


@pytest.mark.parametrize("before", [5, 30, 43, 100, 1000])
def test_long_steps_beside_a_busy_program_go_on_on_one_thread_after_some(before):
    machine = Machine(2.0)
    for _ in range(before):
        machine.tuner.note(machine.step(threads.get_threads()))
    machine.busy = True
    for _ in range(6):
        machine.tuner.note(machine.step(threads.get_threads()))
    assert threads.get_threads() == 1 and len(machine.said) == 1


def test_long_steps_take_more_threads_again_within_some_minutes():
    machine = Machine(2.0)
    machine.busy = True
    machine.run(4000.0)
    machine.busy = False
    machine.run(1000.0)
    assert threads.get_threads() == 2


def test_a_network_too_small_for_two_threads_gets_one(monkeypatch):
    machine = Machine(1e-4)
    monkeypatch.setitem(IDLE, 1, 0.8)
    machine.run(1.0)
    assert threads.get_threads() == 1


def test_all_threads_are_back_at_the_end():
    machine = Machine(4e-4)
    machine.busy = True
    with machine.tuner:
        machine.run(2.0)
        assert threads.get_threads() == numba.get_num_threads() == 1 and threads.thread_limit() == 2
    assert threads.get_threads() == numba.get_num_threads() == 2
