"""Which runner does the steps of a job, and that both do the same."""

import numpy as np
import pytest
from training.test_training_features import make_trainee

from ensync.core.config.optimizers import Optimizer
from ensync.core.config.schema import Job
from ensync.core.config.training import Training
from ensync.kernels.simd.host import bf16_missing
from ensync.training.runners import MiniBatchRunner, OneSampleRunner, runner_of

ONE_SAMPLE = {
    "training": {"batch": 1},
    "optimizer": {"name": "sgd", "learning_rate": 0.01},
}


def trainer_of(**sections):
    for name, values in ONE_SAMPLE.items():
        sections[name] = values | sections.get(name, {})
    return make_trainee(**sections)


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"schedule": {"name": "step", "step_epochs": 2}},
        {"training": {"early_stopping": 3, "best_weights": True}},
        {"training": {"loss": "mean_squared_error", "targets": [0.1, 0.9]}},
        {"plateau": {"patience": 2}},
        {"optimizer": {"momentum": 0.5}},
    ],
)
def test_the_one_sample_runner_takes_what_it_supports(sections):
    assert isinstance(trainer_of(**sections).runner, OneSampleRunner)


@pytest.mark.parametrize(
    "sections",
    [
        {"training": {"batch": 2}},
        {"training": {"label_smoothing": 0.1}},
        {"training": {"weight_average": 0.9}},
        {"lookahead": {"every_steps": 5}},
        {"optimizer": {"groups": [{"parameters": "*.bias", "factor": 2.0}]}},
        {"training": {"deterministic": True}},
        {"optimizer": {"name": "momentum"}},
        {"optimizer": {"weight_decay": 0.1}},
        {"optimizer": {"clip_norm": 1.0}},
        {"schedule": {"name": "cosine"}},
        {"schedule": {"name": "step", "step_epochs": 0.5}},
        {"schedule": {"warmup_epochs": 1}},
        {"growth": {"every_epochs": 1}},
        {"augmentation": {"flip": True}},
        {"network": {"hidden": [9], "dropout": 0.1}},
        pytest.param(
            {"training": {"precision": "bf16"}},
            marks=pytest.mark.skipif(bool(bf16_missing()), reason=f"no bf16: {bf16_missing()}"),
        ),
    ],
)
def test_it_leaves_the_rest_to_mini_batches(sections):
    assert isinstance(trainer_of(**sections).runner, MiniBatchRunner)


@pytest.mark.parametrize("section", ["training", "optimizer"])
def test_an_option_that_it_does_not_know_makes_it_decline(section):
    """A setting that is added later: with its default it changes nothing, with another value the
    runner declines.
    """
    base = {"training": Training, "optimizer": Optimizer}[section]

    class Later(base):
        lookahead: int = 0

    class LaterJob(Job):
        __annotations__ = {section: Later}

    for value, runner in ((0, OneSampleRunner), (3, MiniBatchRunner)):
        trainer = trainer_of()
        tables = {name: getattr(trainer.job, name) for name in Job.model_fields}
        given = tables[section].model_dump() | {"lookahead": value}
        trainer.job = LaterJob.model_construct(**tables | {section: Later(**given)})
        assert isinstance(runner_of(trainer, 1), runner)


def test_both_runners_do_the_same_steps():
    """Without rounding to float32, to the last digits."""
    fast, plain = trainer_of(), trainer_of()
    for runner, trainer in ((OneSampleRunner, fast), (MiniBatchRunner, plain)):
        steps = runner(trainer)
        rows, metrics = trainer.rows[:40], []
        for first in range(0, 40, 40 if runner is OneSampleRunner else 1):
            last = 40 if runner is OneSampleRunner else first + 1
            metrics.append(steps.run(rows[first:last], 0, [1.0]))
        trainer.position.loss_sum = sum(each.loss_sum for each in metrics)
        trainer.position.correct = sum(each.correct for each in metrics)
        assert trainer.optimizer.steps == 40
    np.testing.assert_allclose(fast.network.parameters, plain.network.parameters, rtol=1e-9)
    assert fast.position.loss_sum == pytest.approx(plain.position.loss_sum, rel=1e-9)
    assert fast.position.correct == plain.position.correct
