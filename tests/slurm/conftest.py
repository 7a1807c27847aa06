"""A throw-away Slurm of three nodes, and three beside them, for the whole session."""

import os
import sys
from pathlib import Path

import pytest
from slurm.batch import CLUSTER, Site, run, wait_for


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The running cluster, with the digits prepared and the kernels compiled."""
    if os.geteuid() != 0 or not Path("/etc/debian_version").exists():
        pytest.skip("a throw-away Slurm needs root on a Debian machine")
    site = Site(tmp_path_factory.mktemp("slurm"))
    ensync = Path(sys.prefix) / "bin" / "ensync"
    run(ensync, "data", "prepare", "digits", "--to", site.data)
    try:
        run(CLUSTER, "start", 3, 3)
        site.job("warm", "train", epochs=1).end()
        yield site
    finally:
        run(CLUSTER, "stop")


@pytest.fixture
def power(site):
    """Cut a node's power: power("n2"). It is back, and idle, after the test."""
    dead = []

    def cut(node):
        dead.append(node)
        run(CLUSTER, "kill", node)

    yield cut
    for node in dead:
        run(CLUSTER, "revive", node)
        wait_for(
            lambda: set(run("sinfo", "-h", "-N", "-n", node, "-o", "%t").split()) == {"idle"},
            60,
            f"{node} to be back",
        )
