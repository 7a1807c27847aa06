"""A small study on the digits, in this process."""

from pathlib import Path

from runs.helpers import COMM, job_maker
from runs.study.files import cells_in, results_in

from ensync.mpi.world import on_root
from ensync.runs import studies
from ensync.runs.options import RunOptions, StudyOptions
from ensync.runs.study.analysis import analyse
from ensync.storage.outputs import read_outputs


def study_maker(dataset, tmp_path, **sections):
    """Return a function from the settings of [study] and others to a job."""
    defaults = {
        "network": {"hidden": [8]},
        "training": {"epochs": 3, "batch": 20, "threads": 1},
        "optimizer": {"name": "momentum", "learning_rate": 0.05},
        **sections,
    }
    make = job_maker(dataset, tmp_path, **defaults)

    def job(name="study", own=None, **study):
        settings = {"seeds": 2, **study} | ({"own": own} if own else {})
        return make(name, study=settings)

    return job


def run(job, resume=False, overwrite=False, **options):
    """Run the cells of a study, and analyse them, unless it is one cell; return its directory.
    Collective.
    """
    wanted = RunOptions((), resume, overwrite)
    with studies.held_study(COMM, job, wanted, StudyOptions(**options)) as held:
        studies.train_cells(held)
    if "cell" not in options:
        on_root(COMM, lambda: analyse(held.directory))
    return held.directory


def gather(job):
    """Write what the cells of a study found, with the page; return its directory. Collective."""
    studies.study(COMM, job, RunOptions((), True, False), StudyOptions(gather=True))
    return Path(job.output.directory)


def cells(directory):
    """Return the results of all cells by name, without what a clock tells. Collective."""
    return on_root(COMM, lambda: cells_in(directory))


def outputs(directory, name):
    """Return what the networks of a cell answered. Collective."""
    return on_root(COMM, lambda: read_outputs(directory / "cells" / name / "outputs.h5"))


def whole(directory):
    """Return all numbers of a study: results, and bytes of the outputs. Collective."""
    return on_root(COMM, lambda: results_in(directory))


def times(directory):
    """Return when the result of each cell was written. Collective."""
    return on_root(
        COMM,
        lambda: {str(p): p.stat().st_mtime_ns for p in directory.glob("cells/*/*/*/cell.json")},
    )
