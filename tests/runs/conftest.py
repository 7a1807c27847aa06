"""Runs of the tests end with them."""

import sys

import pytest


@pytest.fixture(autouse=True)
def nothing_stays_held():
    """Give back what the runs of a test hold once it is over."""
    yield
    if helpers := sys.modules.get("runs.helpers"):
        helpers.give_back()


@pytest.fixture(scope="session", autouse=True)
def a_thread_for_each_of_several_ranks(pytestconfig):
    """Threads of ranks that share cores wait for each other."""
    if pytestconfig.getoption("--with-mpi"):
        from ensync.kernels.threads import set_threads
        from ensync.mpi.world import world

        if world().size > 1:
            set_threads(1)


@pytest.fixture(scope="module")
def one_thread():
    """More ranks than cores must not bring their threads as well."""
    from ensync.kernels.threads import get_threads, set_threads

    before = get_threads()
    set_threads(1)
    yield
    set_threads(before)
