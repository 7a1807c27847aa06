"""A second process that compiles from the other end: it leaves in the cache what a network
needs, and goes when it is not needed.
"""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ensync.core.config.job import plain_settings
from ensync.core.config.schema import Job
from ensync.nn.models import zoo
from ensync.runs import compiling

pytestmark = pytest.mark.timeout(400)  # run alone, the first tests compile

JOB = Job.model_validate(
    {"data": {"path": "-"}, "output": {"directory": "-"}, "network": {"hidden": [5]}}
)
SETTINGS = plain_settings(JOB)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    return tmp_path


def kernels(cache: Path) -> set[str]:
    return {path.name.split("-")[0] for path in cache.rglob("*.nbi")}


def wait_for(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


def test_the_second_process_leaves_compiled_kernels_for_the_first(cache):
    with compiling.compile_in_parallel(SETTINGS, (2, 3, 1), 4, cores=2, patience=0.0):
        assert wait_for(lambda: any("product" in name for name in kernels(cache)))


def test_it_is_not_started_where_all_is_loaded_in_time_or_there_is_one_core(cache, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: pytest.fail("started"))
    with compiling.compile_in_parallel(SETTINGS, (2, 3, 1), 4, cores=2, patience=30.0):
        pass
    with compiling.compile_in_parallel(SETTINGS, (2, 3, 1), 4, cores=1, patience=0.0):
        time.sleep(0.1)


def test_it_ends_with_the_process_that_started_it(cache):
    program = (
        "import sys, time\nfrom ensync.runs import compiling\n"
        "popen = compiling.subprocess.Popen\n"
        "def note(*a, **k):\n    p = popen(*a, **k)\n    print(p.pid, flush=True)\n    return p\n"
        "compiling.subprocess.Popen = note\n"
        f"with compiling.compile_in_parallel({SETTINGS!r}, (2, 3, 1), 4, cores=2, patience=0.0):\n"
        "    time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    number = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    status = Path(f"/proc/{number}/status")
    assert wait_for(lambda: not status.exists() or "State:\tZ" in status.read_text())


@pytest.mark.parametrize(
    "name", ["mlp", "minixception", "resnet", "lenet", "alexnet", "parashar-cnn"]
)
def test_layers_run_by_themselves_from_the_last(name):
    shape = (64, 64, 3) if name == "alexnet" else (28, 28, 1)
    network = zoo.build(
        JOB.model_copy(
            update={
                "network": type(JOB.network)(name=name, width=0.1 if name == "alexnet" else 1.0)
            }
        ),
        shape,
        3,
        2,
    )
    network.initialize(1)
    compiling.compile_backwards(network)
    assert np.isfinite(network.gradient).all()
