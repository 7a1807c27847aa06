"""Under mpirun a failing rank ends the test run at once, and only rank 0 writes the report."""

import gc
import os
import signal
import sys
import time

import pytest

from ensync.core.streams import wait_until_read


@pytest.hookimpl(
    trylast=True
)  # after the reporter, which the silent ranks redirect, and pytest-mpi
def pytest_configure(config):
    """Make the ranks of a run with --with-mpi or --only-mpi fail as one, and hear SIGHUP under
    nohup, too.
    """
    config.addinivalue_line(
        "markers",
        "compiled: needs compiled kernels, for their speed, threads or vectors; the others also "
        "run in plain Python (make test-plain)",
    )
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if config.getoption("--with-mpi", False) or config.getoption("--only-mpi", False):
        from mpi4py import MPI

        config.pluginmanager.register(RankReports(config, MPI.COMM_WORLD), "ensync-rank-reports")


def pytest_collection_finish():
    """Leave what was imported out of each later look for garbage."""
    gc.freeze()


def pytest_terminal_summary(terminalreporter):
    """Say how many damaged files were tried."""
    tried = getattr(sys.modules.get("mutations"), "tried", {"read": 0})
    if count := sum(tried.values()):
        terminalreporter.write_line(
            f"{count:,} mutations tried: {tried['refused']:,} refused in a sentence, "
            f"{tried['read']:,} read"
        )


class RankReports:
    """A test that fails on one rank only would leave the others waiting for it: tell it and
    abort all ranks.
    """

    def __init__(self, config, comm):
        self.config, self.comm = config, comm
        if comm.rank > 0:  # a second report would be mixed into rank 0's; the exit code stays
            config.pluginmanager.getplugin("terminalreporter")._tw._file = open(os.devnull, "w")
        for plugin in config.pluginmanager.get_plugins():
            if (
                type(plugin).__name__ == "MPIPlugin"
            ):  # pytest-mpi's: one header line instead of its closing block
                plugin._is_testing_mpi = False

    def pytest_report_header(self):
        """Say in one line what runs the tests."""
        from mpi4py import MPI

        name, version = MPI.get_vendor()
        return f"mpi: {name} {'.'.join(map(str, version))}, {self.comm.size} rank(s)"

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(self, item):
        """Look at a test's outcome after everything else did (expected failures have become
        skips).
        """
        report = yield
        if report.failed and self.comm.size > 1:
            self._end(f"{report.nodeid} failed in {report.when}\n{report.longreprtext}")
        return report

    def pytest_collectreport(self, report):
        """End the run when this rank cannot collect what the others run."""
        if report.failed and self.comm.size > 1:
            self._end(f"{report.nodeid} cannot be collected\n{report.longreprtext}")

    def _end(self, reason):
        capture = self.config.pluginmanager.getplugin("capturemanager")
        capture.suspend_global_capture(in_=True)
        sys.__stderr__.write(f"\n[rank {self.comm.rank} of {self.comm.size}] {reason}\n")
        sys.__stderr__.flush()
        wait_until_read(2, 5)  # what the launcher has not read at an abort may be lost
        time.sleep(0.1)
        self.comm.Abort(1)
