"""Callbacks of a run on several ranks: rank 0 calls them, and an error in one ends all ranks."""

import pytest
from runs.helpers import COMM, HELD, SILENT, common_digits, job_maker

from ensync.core.errors import EnsyncError
from ensync.core.signals import StopRequest
from ensync.mpi.world import on_root
from ensync.report.callbacks import Callback
from ensync.runs import lifecycle, start
from ensync.runs.planned import PlannedRun
from ensync.runs.state import has_checkpoint

pytestmark = [
    pytest.mark.mpi,
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.timeout(300),
]  # the first test may compile


class Failing(Callback):
    """Fails after the second epoch."""

    def on_epoch_end(self, metrics):
        assert COMM.rank == 0
        if metrics.epoch == 2:
            raise OSError("the logger is down")


def test_an_error_ends_all_ranks_after_a_checkpoint(tmp_path_factory, tmp_path):
    make_job = job_maker(
        common_digits(tmp_path_factory, 100),
        tmp_path,
        network={"hidden": [8]},
        training={"epochs": 4, "batch": 50},
        checkpoint={"every_epochs": 0},
    )
    planned = PlannedRun(make_job(), COMM, [Failing()] if COMM.rank == 0 else [])
    planned.take_directory(COMM, SILENT)
    loaders = planned.open(COMM)
    HELD.append(loaders.close)
    session = start.start(planned.context(loaders, SILENT, StopRequest()))
    with pytest.raises(EnsyncError, match="callback Failing failed with OSError: the logger is"):
        lifecycle.train(session)
    assert on_root(COMM, lambda: has_checkpoint(planned.directory))
    assert {trainer.position.epoch for trainer in session.trainers.values()} == {2}
    lifecycle.close(session)
