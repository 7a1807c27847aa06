"""Signals as wishes to stop, where a program goes on after one."""

import os
import signal

from ensync.core.signals import leaving_at_once, stop_on_signals


def test_a_signal_to_one_run_is_forgotten_by_the_next_work_of_a_program():
    with stop_on_signals() as stop_request:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop_request() == 1 and stop_request.number == signal.SIGTERM
    with leaving_at_once():
        pass
    with stop_on_signals() as stop_request:
        assert stop_request() == 0
