"""Runs of the tests end with them."""

import sys

import pytest


@pytest.fixture(autouse=True)
def nothing_stays_held():
    """Give back what the runs of a test hold once it is over."""
    yield
    if helpers := sys.modules.get("runs.helpers"):
        helpers.give_back()
