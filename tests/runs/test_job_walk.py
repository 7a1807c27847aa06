"""How far a whole job walks: few modules take all of it, the others the sections and values that
they need.
"""

import sys

import pytest

from ensync.core.config.job import Job, dump_job, job_from_dict
from ensync.mpi.world import alone
from ensync.runs import studies
from ensync.runs.options import RunOptions
from ensync.runs.train import resume
from ensync.storage.sources.digits import read_digits
from ensync.storage.writing import write_dataset

pytestmark = pytest.mark.timeout(240)  # run alone, it compiles

MOST_MODULES = 13


def holds_job(value: object) -> bool:
    """Return whether a value is a job, or a collection of jobs."""
    if isinstance(value, dict):
        value = list(value.values())
    return isinstance(value, Job) or (
        isinstance(value, list | tuple) and any(isinstance(each, Job) for each in value)
    )


def modules_given_a_job(work) -> set[str]:
    """Return the modules of ensync, but for those of settings, with a function that work() gives
    a whole job.
    """
    found = set()

    def note(frame, event, argument):
        module, code = frame.f_globals.get("__name__", ""), frame.f_code
        if event == "call" and module.startswith("ensync.") and code.co_name[0] != "<":
            names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
            if any(holds_job(frame.f_locals.get(name)) for name in names):
                found.add(module)

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return {module for module in found if not module.startswith("ensync.core.config")}


def test_few_modules_take_a_whole_job(tmp_path):
    data, path, comm = tmp_path / "digits.h5", tmp_path / "job.toml", alone()
    write_dataset(data, read_digits(), validation=0.1, seed=1)
    job = job_from_dict(
        {
            "data": {"path": str(data)},
            "network": {"name": "mlp", "hidden": [8]},
            "training": {"epochs": 1, "batch": 256, "threads": 1},
            "output": {"directory": str(tmp_path / "run")},
        }
    )
    path.write_text(dump_job(job))
    for work in (
        lambda: studies.compare(comm, str(path), RunOptions()),
        lambda: resume(comm, str(tmp_path / "run" / "ensemble"), ("training.epochs=2",), False),
    ):
        walked = modules_given_a_job(work)
        assert len(walked) <= MOST_MODULES, "\n".join(sorted(walked))
