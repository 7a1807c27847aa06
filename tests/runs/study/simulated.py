"""Cells of a study that nothing was trained for: outputs drawn from a model of images, seeds and
members, written as those of trained cells are.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ensync.report.results import CellResult, DatasetFacts, Machine, to_json
from ensync.report.study_results import StudyPlan
from ensync.runs.study.plan_file import write_plan
from ensync.storage.outputs import Outputs, SplitOutputs, write_outputs

CLASSES, TEST, VALIDATION = 4, 300, 200
NAMES = ["cat", "dog", "frog", "ship"]
JOB = {
    "data": {"path": "data/made_up.h5"},
    "network": {"name": "mlp"},
    "training": {"epochs": 3, "batch": 32, "seed": 1},
}


@dataclass(frozen=True)
class Simulated:
    """A contestant: its networks, how far the right class is ahead, and the method that makes its
    result.
    """

    name: str
    members: int = 1
    ahead: float = 1.6
    fusion: str = "soft_voting"
    shared_start: bool = False
    label: str = ""


PLAIN = (
    Simulated("one_rank", label="one rank"),
    Simulated("synchronous", ahead=1.7),
    Simulated("ensemble_full", 3, 1.5, label="ensemble on all data"),
    Simulated("shared_start", 3, 1.4, "weight_averaging", shared_start=True),
)


def split(of: Simulated, seed: int, rows: int, number: int) -> SplitOutputs:
    """Return what the networks of a contestant answer: logits of what is common to all, of the
    seed and of the member.
    """
    common = np.random.default_rng(number)
    labels = common.integers(0, CLASSES, rows)
    hard = common.normal(0, 1, (rows, CLASSES))
    own = np.random.default_rng([number, seed, sum(map(ord, of.name))])
    logits = (
        hard + own.normal(0, 0.3, (rows, CLASSES)) + own.normal(0, 0.7, (of.members, rows, CLASSES))
    )
    logits[:, np.arange(rows), labels] += of.ahead
    answers = softmax(1.5 * logits).astype(np.float32)
    averaged = softmax(1.5 * logits.mean(axis=0)).astype(np.float32) if of.shared_start else None
    soup = softmax(1.5 * logits[:2].mean(axis=0)).astype(np.float32) if of.shared_start else None
    return SplitOutputs(labels, answers, averaged, soup)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return probabilities (..., classes)."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def outputs_of(of: Simulated, seed: int) -> Outputs:
    """Return the outputs of the cell of a seed."""
    return Outputs(
        members=np.arange(of.members, dtype=np.int64),
        test=split(of, seed, TEST, 1),
        validation=split(of, seed, VALIDATION, 2),
        soup_members=np.array([1, 0] if of.shared_start else [], np.int64),
    )


def cell_of(of: Simulated, ranks: int, seed: int, **more: object) -> CellResult:
    """Return the result of the cell of a seed."""
    found = outputs_of(of, seed).validation
    right = found.probabilities.mean(axis=0).argmax(axis=1) == found.labels
    cell = CellResult(
        contestant=of.name,
        label=of.label or of.name,
        ranks=ranks,
        seed=seed,
        job=JOB,
        code="c0de",
        dataset=DatasetFacts(
            "made-up",
            "data/made_up.h5",
            {"train": 1000, "validation": VALIDATION, "test": TEST},
            [2, 2, 1],
            "sha256:1",
        ),
        versions={"ensync": "0.1.0"},
        machine=Machine("a CPU", 1, ranks, 1),
        created=f"2026-11-21T09:30:{seed:02}+00:00",
        seconds=10.0 / ranks + 0.1 * seed,
        samples=3000,
        steps=93,
        members=of.members,
        parameters=1234,
        bytes_sent=1000 * ranks,
        fusion=of.fusion,
        validation_accuracy=float(right.mean()),
        ended=["all 3 epochs"],
    )
    return replace(cell, **more)


def place(directory: Path, cell: CellResult) -> Path:
    """Return the directory of a cell."""
    return directory / "cells" / cell.contestant / f"ranks_{cell.ranks}" / f"seed_{cell.seed}"


def write_cell(directory: Path, cell: CellResult, outputs: Outputs | None) -> None:
    """Write a cell as a finished run leaves it."""
    where = place(directory, cell)
    where.mkdir(parents=True, exist_ok=True)
    if outputs is not None:
        write_outputs(where / "outputs.h5", outputs)
    (where / "cell.json").write_text(to_json(cell))


def write_simulated(
    directory: Path,
    contestants: tuple[Simulated, ...] = PLAIN,
    seeds: tuple[int, ...] = (1, 2, 3),
    ranks: tuple[int, ...] = (3,),
    **study: object,
) -> None:
    """Write all cells of a study, those of one_rank on one rank, and its plan."""
    names = []
    for of in contestants:
        for count in (1,) if of.name == "one_rank" else ranks:
            for seed in seeds:
                cell = cell_of(of, count, seed)
                write_cell(directory, cell, outputs_of(of, seed))
                names.append(f"{of.name}/ranks_{count}/seed_{seed}")
    asked = {"seeds": len(seeds), "ranks": list(ranks)} | study
    plan = StudyPlan(
        job=JOB | {"study": asked},
        class_names=NAMES,
        cores=8,
        cells=names,
        left_out=["synchronous on 1 rank: the same as one_rank"],
    )
    write_plan(directory, plan)
