"""A throw-away Slurm of three nodes, and eight beside them, for the whole session."""

import os
import sys
from pathlib import Path

import pytest
from slurm.batch import CLUSTER, Site, run


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The running cluster, with the digits prepared and the kernels compiled."""
    if os.geteuid() != 0 or not Path("/etc/debian_version").exists():
        pytest.skip("a throw-away Slurm needs root on a Debian machine")
    site = Site(tmp_path_factory.mktemp("slurm"))
    ensync = Path(sys.prefix) / "bin" / "ensync"
    run(ensync, "data", "prepare", "digits", "--to", site.data)
    try:
        run(CLUSTER, "start", 3, 8)
        site.job("warm", "train", epochs=1).end()
        yield site
    finally:
        run(CLUSTER, "stop")
