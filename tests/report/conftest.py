"""A comparison as its file would hold it: five rows, ten classes, four members, made up from a
seed.
"""

import math

import numpy as np
import pytest

CLASSES = [
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
]
FUSIONS = ("soft_voting", "hard_voting", "weight_averaging")


def confusion(accuracy: float, seed: int, classes: int = 10, images: int = 1000) -> list[list[int]]:
    """Return made-up counts of so many images per class, about `accuracy` of them right."""
    random = np.random.default_rng(seed)
    likeness = random.gamma(0.5, size=(classes, classes))
    np.fill_diagonal(likeness, 0)
    shares = (1 - accuracy) * likeness / likeness.sum(axis=1, keepdims=True)
    hard = random.uniform(0.2, 1.8, classes)[:, None]
    shares = shares * hard / hard.mean()
    np.fill_diagonal(shares, 1 - shares.sum(axis=1))
    return [random.multinomial(images, row).tolist() for row in shares]


def history(
    epochs: int, best: float, seconds: float, rate: float, member: int = 0, seed: int = 0
) -> list[dict]:
    """Return made-up records of one network."""
    random = np.random.default_rng(seed)
    records = []
    for epoch in range(1, epochs + 1):
        reached = best - 0.2 * math.exp(-epoch / 3) + random.normal(0, 0.002)
        records.append(
            {
                "event": "epoch",
                "member": member,
                "epoch": epoch,
                "step": 430 * epoch,
                "train_loss": 0.6 * math.exp(-epoch / 5) + 0.12,
                "train_accuracy": reached + 0.002 * epoch,
                "validation_loss": 0.35 + 0.3 * math.exp(-epoch / 2),
                "validation_accuracy": reached,
                "learning_rate": 1e-3,
                "samples_per_second": rate * random.uniform(0.95, 1.05),
                "seconds": seconds / epochs,
                "elapsed": seconds * epoch / epochs,
            }
        )
    return records


def make_row(
    name: str, strategy: str, counts: list, seconds: float, ranks: int = 4, **more: object
) -> dict:
    """Return a row of the comparison."""
    counts = np.array(counts)
    right = float(np.trace(counts) / counts.sum())
    base = {
        "name": name,
        "strategy": strategy,
        "fusion": None,
        "ranks": ranks,
        "members": 1,
        "test_accuracy": right,
        "test_loss": 0.36,
        "macro_f1": right - 0.0005,
        "weighted_f1": right - 0.0003,
        "top_k": {"k": 5, "accuracy": 0.9971},
        "seconds": seconds,
        "ended": ["all 12 epochs"],
        "speedup": 14.2 / seconds,
        "efficiency": 14.2 / seconds / ranks,
        "bytes_sent": 0,
        "note": "",
    }
    return base | more


def make_comparison() -> dict:
    """Return the whole comparison; weight averaging is refused, so its figures are missing."""
    confusions = {
        "one rank": confusion(0.896, 1),
        "synchronous": confusion(0.8975, 2),
        "ensemble: soft voting": confusion(0.875, 3),
        "ensemble: hard voting": confusion(0.8705, 4),
    }
    refused = {
        key: None
        for key in (
            "test_accuracy",
            "test_loss",
            "macro_f1",
            "weighted_f1",
            "top_k",
            "seconds",
            "speedup",
            "efficiency",
        )
    }
    voting = {"fusion": "soft_voting", "members": 4, "bytes_sent": 400_000}
    rows = [
        make_row("one rank", "synchronous", confusions["one rank"], 14.2, ranks=1),
        make_row(
            "synchronous", "synchronous", confusions["synchronous"], 4.71, bytes_sent=7_310_000_000
        ),
        make_row(
            "ensemble: soft voting", "ensemble", confusions["ensemble: soft voting"], 3.62, **voting
        ),
        make_row(
            "ensemble: hard voting",
            "ensemble",
            confusions["ensemble: hard voting"],
            3.62,
            **(voting | {"fusion": "hard_voting"}),
        ),
        make_row(
            "ensemble: weight averaging",
            "ensemble",
            confusions["one rank"],
            1,
            **(voting | {"fusion": "weight_averaging"}),
        )
        | refused
        | {
            "note": "members started from different weights; the mean of unrelated weights is no "
            "network"
        },
    ]
    return {
        "format": "ensync-comparison",
        "version": 1,
        "created": "2026-11-21T09:30:00+00:00",
        "job": {
            "data": {"path": "data/fashion_mnist.h5"},
            "network": {"name": "mlp", "hidden": [256, 128], "activation": "relu"},
            "training": {"epochs": 12, "batch": 128, "seed": 1},
            "optimizer": {"name": "adam", "learning_rate": 1e-3},
        },
        "versions": {
            "ensync": "0.1.0",
            "python": "3.13.1",
            "numpy": "2.4.6",
            "numba": "0.68.1",
            "mpi": "MPICH 5.0.2",
        },
        "machine": {
            "cpu": "Intel(R) Xeon(R) 6 <test>",
            "nodes": 1,
            "ranks": 4,
            "threads_per_rank": 1,
            "cores": 4,
        },
        "dataset": {
            "name": "fashion-mnist",
            "shape": [28, 28, 1],
            "sizes": {"train": 54000, "validation": 6000, "test": 10000},
            "path": "data/fashion_mnist.h5",
            "fingerprint": "sha256:1f3a",
        },
        "class_names": list(CLASSES),
        "measured": [],
        "rows": rows,
        "confusions": confusions,
        "histories": {
            "one rank": history(12, 0.897, 14.2, 46_000, seed=1),
            "synchronous": history(12, 0.8985, 4.71, 138_000, seed=2),
            "ensemble": [
                r for m in range(4) for r in history(12, 0.862 + 0.003 * m, 3.62, 44_000, m, 10 + m)
            ],
        },
        "accuracy_by_members": {
            "soft_voting": [0.861, 0.8702, 0.8731, 0.875],
            "hard_voting": [0.861, 0.858, 0.868, 0.8705],
        },
        "paired": [],
    }


def make_sweep(
    key: str = "optimizer.learning_rate", values: tuple = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
) -> dict:
    """Return a made-up sweep; its last value diverged."""
    rows = [
        {
            "value": value,
            "test_accuracy": 0.9 - 0.02 * (i - 2) ** 2,
            "validation_accuracy": 0.905 - 0.02 * (i - 2) ** 2,
            "seconds": 4.8 + 0.1 * (i % 3),
            "samples_per_second": 130_000.0 - 2_000 * i,
            "note": "",
            "test_images": 10_000,
            "validation_images": 6_000,
            "oversubscribed": False,
        }
        for i, value in enumerate(values)
    ]
    rows[-1] |= {"test_accuracy": None, "validation_accuracy": None}
    made = make_comparison()
    return {
        "format": "ensync-sweep",
        "version": 1,
        "key": key,
        "rows": rows,
        **{name: made[name] for name in ("job", "created", "versions", "machine", "dataset")},
    }


@pytest.fixture
def comparison() -> dict:
    return make_comparison()


@pytest.fixture(scope="session")
def page() -> str:
    """Return the page of the made-up comparison."""
    from ensync.report.page import comparison_page
    from ensync.report.results import Comparison, from_json

    return comparison_page(from_json(Comparison, make_comparison()))


@pytest.fixture
def sweep() -> dict:
    return make_sweep()


@pytest.fixture
def counts() -> np.ndarray:
    """Return made-up confusion counts of ten classes, 10,000 images."""
    return np.array(confusion(0.9, 7))
