"""The strategies: the settings name them all, and each says who trains what."""

import numpy as np
import pytest

from ensync.core.config.job import job_from_dict
from ensync.core.config.strategies import STRATEGIES as SETTINGS
from ensync.core.errors import EnsyncError
from ensync.core.fusion import OF_ONE
from ensync.strategies import STRATEGIES, settled, strategy_of
from ensync.strategies.strategy import Phase

LABELS = np.arange(30) % 3


def job_of(strategy, **ensemble):
    return job_from_dict(
        {
            "data": {"path": "x.h5"},
            "training": {"strategy": strategy, "epochs": 5},
            "ensemble": ensemble,
            "output": {"directory": "x"},
        }
    )


def test_settings_and_strategies_agree():
    assert list(STRATEGIES) == list(SETTINGS)
    for name, kind in STRATEGIES.items():
        assert kind.name == name and SETTINGS[name].help
        job = job_of(name)
        job = job.model_copy(
            update={"fusion": job.fusion.model_copy(update={"method": "hard_voting"})}
        )
        fusion = "hard_voting" if SETTINGS[name].ensemble else OF_ONE
        assert strategy_of(job).fusion_method == fusion, "[fusion] has an effect where it says"


def test_synchronous_training_is_one_member_on_all_rows():
    job = job_of("synchronous", members=4)
    strategy = strategy_of(job)
    assert strategy.members(3) == 1 and settled(job, 3) == job
    assert strategy.phases(3) == [Phase(1, 5)] and not strategy.independent
    np.testing.assert_array_equal(strategy.rows(LABELS, 1, 0), np.arange(30))


def test_an_ensemble_has_a_member_for_each_rank_unless_the_job_says_otherwise():
    open_job = job_of("ensemble")
    job = settled(open_job, 3)
    assert job.ensemble.members == 3 and settled(job, 7) == job
    strategy = strategy_of(job)
    assert strategy.phases(7) == strategy_of(open_job).phases(3) == [Phase(3, 5)]
    rows = [strategy.rows(LABELS, 3, member) for member in range(3)]
    np.testing.assert_array_equal(np.sort(np.concatenate(rows)), np.arange(30))
    with pytest.raises(EnsyncError, match="at most 4096"):
        settled(open_job, 5000)


def test_members_start_apart_only_where_the_job_says_so():
    for start, streams in (("own", [0, 1, 2]), ("shared", [0, 0, 0]), ("synchronous", [0, 0, 0])):
        job = job_of("ensemble", members=3, start=start)
        assert [strategy_of(job).start_values(member) for member in range(3)] == streams
    job = job_of("synchronous")
    assert strategy_of(job).start_values(0) == 0


@pytest.mark.parametrize(("epochs", "reached"), [(2, 2), (9, 5)])
def test_a_synchronous_start_is_a_phase_of_its_own_on_all_rows(epochs, reached):
    job = job_of("ensemble", members=3, start="synchronous", synchronous_epochs=epochs)
    strategy = strategy_of(job)
    assert strategy.phases(2) == [Phase(1, reached), Phase(3, 5)]
    np.testing.assert_array_equal(strategy.rows(LABELS, 1, 0), np.arange(30))
    assert len(strategy.rows(LABELS, 3, 0)) == 10
    one = job.model_copy(update={"ensemble": job.ensemble.model_copy(update={"members": 1})})
    assert strategy_of(one).phases(2) == [Phase(1, 5)]
