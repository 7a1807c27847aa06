"""Random whole runs beside a plain PyTorch loop in float64: each epoch's losses, the end, the
parameters kept, and the test.

ENSYNC_FUZZ sets the number of runs (make fuzz: hundreds), ENSYNC_FUZZ_SEED the first.
"""

import importlib.util
import random

import numpy as np
import pytest
from mutations import rounds
from runs.helpers import COMM, begin, common_digits, gathered, job_maker

from ensync.mpi.world import on_root
from ensync.runs import lifecycle, results
from ensync.runs.networks import rows_together
from ensync.strategies import strategy_of

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.mpi,
    pytest.mark.timeout(600),
    pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="wants PyTorch"),
    pytest.mark.skipif(COMM.size > 3, reason="1 to 3 ranks tell"),
]
ROWS = 230
CLOSE = {"rtol": 1e-6, "atol": 1e-9}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return common_digits(tmp_path_factory, ROWS)


@pytest.fixture
def make_job(dataset, tmp_path):
    return job_maker(dataset, tmp_path)


class Draw(random.Random):
    """The tables of a job, drawn with a number as seed."""

    def maybe(self, share, **settings):
        return settings if self.random() < share else {}

    def tables(self, ranks):
        training = self.training()
        batch, members = training["batch"], self.random() < 0.25
        return {
            "network": {"layers": self.layers()}
            | (
                self.maybe(0.2, batch_norm="local")
                if ranks == 1 and "deterministic" not in training
                else {}
            ),
            "training": training | ({"strategy": "ensemble"} if members else {}),
            "ensemble": {
                "members": self.randint(1, 3),
                "start": self.choice(["own", "shared"]),
                "data": self.choice(["shards", "bootstrap", "full"]),
            }
            if members
            else {},
            "optimizer": self.optimizer(),
            "schedule": self.schedule(),
            "plateau": self.maybe(
                0.4,
                patience=self.choice([1, 2]),
                factor=self.choice([0.1, 0.5]),
                threshold=self.choice([0.0, 1e-4, 0.3]),
                minimum=self.choice([0.0, 1e-3]),
            ),
            "growth": {}
            if batch == "full"
            else self.maybe(
                0.4,
                every_epochs=self.choice([1, 2]),
                batch=self.choice([2, 3]),
                largest_batch=self.choice([batch, 40, 4096]),
                learning_rate=self.choice([1.0, 1.4, 0.7]),
            ),
            "checkpoint": {
                "every_epochs": self.choice([0, 1]),
                "every_steps": self.choice([0, 0, 3]),
            },
        }

    def layers(self):
        norm = {
            "kind": "batch_normalization",
            "activation": "relu",
            "momentum": self.choice([0.5, 0.9]),
            "unbiased": self.random() < 0.5,
        }
        hidden = [
            {
                "kind": "dense",
                "units": self.choice([5, 16]),
                "activation": self.choice(["relu", "tanh"]),
            }
        ] * self.choice([0, 1, 2])
        if self.random() < 0.4:
            return [*hidden, *self.choice([[], [norm]]), {"kind": "dense"}]
        convolution = {
            "kind": "convolution",
            "filters": self.choice([2, 4]),
            "stride": self.choice([1, 2]),
            "use_bias": False,
        }
        block = {
            "kind": "residual",
            "activation": "relu",
            "layers": [
                {"kind": "convolution", "filters": convolution["filters"], "use_bias": False},
                norm | {"activation": "identity"},
            ],
        }
        return [
            convolution,
            norm,
            *self.choice([[], [block]]),
            {"kind": "max_pooling"},
            {"kind": "flatten"},
            *hidden,
            {"kind": "dense"},
        ]

    def training(self):
        training = {
            "precision": "float64",
            "epochs": self.randint(2, 5),
            "batch": self.choice([3, 10, 16, 32, 50, 150, "full"]),
            "seed": self.randint(0, 99),
        }
        training |= self.choice(
            [
                {"label_smoothing": self.choice([0.0, 0.1])},
                {},
                {"loss": "mean_squared_error", "targets": [-0.5, 0.9]},
                {"loss": "half_squared_error"},
            ]
        )
        training |= self.maybe(0.5, slice=self.choice([7, 20, 64])) | self.maybe(
            0.5, weight_average=self.choice([0.5, 0.9, 0.99])
        )
        training |= self.maybe(0.4, early_stopping=self.choice([1, 2]), epochs=9) | self.maybe(
            0.5, best_weights=True
        )
        return training | self.maybe(0.2, deterministic=True, virtual_shards=self.choice([3, 8]))

    def optimizer(self):
        name = self.choice(["sgd", "momentum", "nesterov", "adam", "adamw"])
        adam = (
            self.maybe(0.5, preset="keras") | self.maybe(0.3, epsilon=1e-4, beta2=0.99)
            if name.startswith("adam")
            else {}
        )
        rate = (
            self.choice([0.003, 0.01])
            if adam or name.startswith("adam")
            else self.choice([0.02, 0.1])
        )
        return (
            {"name": name, "learning_rate": rate}
            | adam
            | self.maybe(0.4, weight_decay=self.choice([1e-4, 0.03]))
            | self.maybe(0.4, clip_norm=self.choice([0.1, 1.0]))
        )

    def schedule(self):
        warmup = self.maybe(0.4, warmup_epochs=self.choice([0.1, 0.3, 1.0, 1.7]))
        return warmup | self.choice(
            [
                {},
                {"name": "cosine"} | self.maybe(0.5, minimum=0.1),
                {
                    "name": "step",
                    "step_epochs": self.choice([0.1, 0.2, 0.5, 0.7, 1.0, 1.5]),
                    "factor": 0.8,
                },
                {"name": "multi_step", "milestones": [0.3, 1.2], "factor": 0.7},
            ]
        )


@pytest.mark.parametrize("number", rounds(4))
def test_random_runs(make_job, number):
    trained = begin(COMM, make_job(**Draw(number).tables(COMM.size)))
    start, _ = gathered(trained)
    trained = lifecycle.train(trained)
    found, positions = gathered(trained)
    evaluator = results.evaluator_of_session(trained)
    fused, ended = evaluator.fuse("soft_voting"), evaluator.ended
    trouble = on_root(COMM, lambda: compare(trained, start, found, positions, ended, fused))
    if trouble:
        pytest.skip(trouble)


def member_of(vectors, member, kind=""):
    prefix = f"members/{member:04d}/{kind}"
    return {name: vectors[prefix + name] for name in ("parameters", "statistics")}


def compare(trained, start, found, positions, ended, fused):
    """Train every member once more, one after the other; return why that tells nothing, or ""."""
    from runs.torch_runs import Run

    job, members, loaders = trained.job, trained.mesh.members, trained.loaders
    network = next(iter(trained.trainers.values())).network
    splits = {
        name: (normalised(loaders, name), getattr(loaders, name).labels)
        for name in ("train", "validation", "test")
    }

    def once_more(member, noise=0.0):
        rows = strategy_of(job).rows(loaders.train.labels, members, member)
        begin = member_of(start, member)
        begin["parameters"] = begin["parameters"] * (
            1 + noise * np.random.default_rng(member).standard_normal(len(begin["parameters"]))
        )
        return Run(
            job,
            network,
            begin,
            splits,
            rows,
            member,
            rows_together(job, network, len(rows)),
        ).train()

    try:
        runs = [once_more(member) for member in range(members)]
    except ValueError as error:
        assert "more than 1 value per channel" in str(error)
        return "PyTorch normalises no batch of one row"
    try:
        for member, run in enumerate(runs):
            compare_member(
                run,
                member,
                [r for r in trained.state.history if r["member"] == member],
                found,
                positions[member],
                ended[member],
            )
        compare_test(runs, job, splits["test"][1], fused)
    except AssertionError:
        if all(alike(run, once_more(member, 1e-13)) for member, run in enumerate(runs)):
            raise
        return "a run that magnifies rounding"
    return ""


def compare_member(run, member, records, found, position, ended):
    for ours, theirs in zip(records, run.history, strict=not run.diverged):
        for name, value in theirs.items():
            assert ours[name] == pytest.approx(value, rel=1e-6, abs=1e-9), (
                f"{name} of member {member} in epoch {theirs['epoch']}"
            )
    if run.diverged:
        assert ended.startswith(f"diverged in epoch {len(run.history) + 1}")
        return
    assert ended == records[-1]["ended"] == run.ended and position["best_epoch"] == run.best_epoch
    for kind, replica in (("", run.replica), ("average/", run.average), ("best/", run.best)):
        assert (replica is not None) == (f"members/{member:04d}/{kind}parameters" in found), kind
        for name, values in run.vectors(replica).items() if replica is not None else ():
            np.testing.assert_allclose(
                member_of(found, member, kind)[name],
                values,
                **CLOSE,
                err_msg=f"{kind}{name} of member {member}",
            )


def compare_test(runs, job, labels, fused):
    if sound := [run.scores() for run in runs if not run.diverged]:
        mean = np.mean(sound, axis=0)
        assert fused.accuracy == pytest.approx((mean.argmax(1) == labels).mean(), abs=1e-12)
        if job.training.loss == "cross_entropy":
            assert fused.loss == pytest.approx(
                -np.log(mean[np.arange(len(labels)), labels]).mean(), rel=1e-6
            )


def alike(one, other):
    """Whether two runs whose starts differ in the last digits have the same losses to nine."""
    return len(one.history) == len(other.history) and all(
        ours["validation_loss"] == pytest.approx(theirs["validation_loss"], rel=1e-9)
        for ours, theirs in zip(one.history, other.history, strict=True)
    )


def normalised(loaders, split):
    """Return a split's images as a network sees them, float64."""
    loader = getattr(loaders, split)
    return (
        loaders.dataset.read(split, 0, len(loader)).reshape(len(loader), -1).astype(float)
        - loader.mean
    ) * loader.inverse_std
