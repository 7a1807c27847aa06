"""What the tests of whole runs on ranks share: a cut of the digits, a job, a run to its end or
to a signal, and what it left.
"""

from functools import partial

import pytest
from mpi4py import MPI

from ensync.core.config.job import job_from_dict
from ensync.core.fusion import OF_ONE
from ensync.core.signals import StopRequest
from ensync.mpi.world import on_root
from ensync.report.console import make_console
from ensync.runs import lifecycle, results, start, state
from ensync.runs.planned import PlannedRun
from ensync.storage.sources.digits import read_digits
from ensync.storage.writing import write_dataset

COMM = MPI.COMM_WORLD
SILENT = make_console(1)


def write_digits(path, rows, seed=1):
    """Write a dataset of the first so many digits, from rank 0. Collective."""

    def write():
        source = read_digits()
        source.images["train"], source.labels["train"] = (
            source.images["train"][:rows],
            source.labels["train"][:rows],
        )
        write_dataset(path, source, validation=0.1, seed=seed)

    on_root(COMM, write)


def common_digits(tmp_path_factory, rows):
    """Return the path of a new dataset, the same on all ranks."""
    path = COMM.bcast(
        str(tmp_path_factory.mktemp("data") / "digits.h5") if COMM.rank == 0 else None
    )
    write_digits(path, rows)
    return path


def job_maker(dataset, tmp_path, **defaults):
    """Return a function from a run's name and the settings of sections, which replace
    `defaults`, to a job in a directory that all ranks know.
    """
    directory = COMM.bcast(str(tmp_path))

    def make(name="run", **sections):
        tables = {
            "data": {"path": dataset},
            "output": {"directory": f"{directory}/{name}"},
            **defaults,
        }
        for section, values in sections.items():
            tables[section] = tables.get(section, {}) | values
        return job_from_dict(tables)

    return make


HELD = []  # what gives back the images and the communicators of runs, the oldest first


def give_back():
    """Give back what the runs of a test hold of MPI, which has some hundreds of it. Collective."""
    while HELD:
        HELD.pop()()


def context(comm, job, stop_request=None):
    planned = PlannedRun(job, comm)
    loaders = planned.open(comm)
    HELD.append(loaders.close)
    return planned.context(loaders, SILENT, stop_request or StopRequest())


def _held(session):
    HELD.append(partial(lifecycle.close, session))
    return session


def begin(comm, job, stop_request=None):
    PlannedRun(job, comm).take_directory(comm, SILENT)
    return _held(start.start(context(comm, job, stop_request)))


def run(comm, job, stop_request=None):
    return lifecycle.train(begin(comm, job, stop_request))


def resume(comm, loaded, job):
    return lifecycle.train(_held(start.resume(context(comm, job), loaded)))


def gathered(trained):
    """Return the vectors and positions of all members, the same on every rank."""
    arrays, positions = state.gather_members(trained.mesh, trained.trainers)
    return trained.comm.bcast({k: v.copy() for k, v in arrays.items()}), trained.comm.bcast(
        positions
    )


def assert_tested_alike(trained, other):
    """Assert that two runs of one network have the same figures in its test. Collective."""
    figures = [
        results.result_of(results.evaluator_of_session(each), [OF_ONE], 0.0)
        for each in (trained, other)
    ]
    if COMM.rank == 0:
        ours, theirs = (each.test[OF_ONE] for each in figures)
        assert ours.confusion == theirs.confusion and ours.rows == theirs.rows
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-10)


class StopAt(StopRequest):
    """Ask to stop after so many looks, on one rank only."""

    def __init__(self, looks, rank=0):
        super().__init__()
        self.left, self.rank = looks, rank

    def __call__(self):
        self.left -= 1
        if self.left == 0 and COMM.rank == self.rank:
            self.number = 10
        return super().__call__()
