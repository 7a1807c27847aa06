"""A study as its file would hold it, made up from a seed: six contestants, ranks 1, 2 and 4."""

import numpy as np

from ensync.report.results import DatasetFacts, Machine
from ensync.report.study_results import (
    Accuracy,
    ContestantResult,
    Cost,
    DeclaredBudget,
    FusionOutcome,
    LeftOut,
    MemberFigures,
    PairResult,
    Range,
    ReliabilityBin,
    Scores,
    SeedTest,
    SizeFigures,
    Spread,
    StudyResult,
    TopKSpread,
    WorstClass,
)

CLASSES = ["T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag"]
CLASSES += ["Ankle boot"]
SEEDS = [1, 2, 3, 4, 5]
# name, label, ranks, together, members, accuracy, seconds
PLACES = (
    ("one_rank", "one rank", 1, True, 1, 0.8972, 40.0),
    ("synchronous", "synchronous", 2, True, 1, 0.8968, 22.4),
    ("synchronous_grown", "synchronous, batch grown", 2, True, 1, 0.8921, 20.1),
    ("ensemble_shards", "ensemble on shards", 2, False, 2, 0.8898, 19.5),
    ("ensemble_full", "ensemble on all data", 2, False, 2, 0.8979, 20.5),
    ("synchronous", "synchronous", 4, True, 1, 0.8964, 13.0),
    ("synchronous_grown", "synchronous, batch grown", 4, True, 1, 0.8872, 11.2),
    ("ensemble_shards", "ensemble on shards", 4, False, 4, 0.8811, 10.0),
    ("ensemble_full", "ensemble on all data", 4, False, 4, 0.9003, 10.4),
    ("shared_start", "shared start, weight averaging", 4, False, 4, 0.8942, 11.5),
)


def spread(random: np.random.Generator, mean: float, sd: float, seeds: int = 5) -> Spread:
    """Return a made-up figure over seeds."""
    values = (mean + random.normal(0, sd, seeds)).tolist()
    half = 2.776 * float(np.std(values, ddof=1)) / np.sqrt(seeds)
    found = float(np.mean(values))
    interval = Range(found - half, found + half)
    return Spread(mean=found, sd=float(np.std(values, ddof=1)), interval=interval, values=values)


def make_scores(random: np.random.Generator, wrong: float) -> Scores:
    """Return made-up scores."""
    return Scores(
        log_likelihood=spread(random, -3.0 * wrong, 0.004),
        brier=spread(random, 1.45 * wrong, 0.001),
        ece=spread(random, 0.2 * wrong, 0.002),
    )


def make_members(random: np.random.Generator, members: int, accuracy: float) -> MemberFigures:
    """Return made-up figures of members."""
    sizes = [
        SizeFigures(
            members=k,
            accuracy=accuracy - 0.02 / k,
            sd=0.002 / k,
            log_likelihood=-0.28 - 0.08 / k,
            predicted=-0.28 - 0.081 / k,
        )
        for k in range(1, members + 1)
    ]
    return MemberFigures(
        accuracies=[accuracy - 0.02 + 0.002 * m for m in range(members)],
        disagreement=spread(random, 0.11, 0.002),
        double_fault=spread(random, 0.07, 0.002),
        oracle=spread(random, accuracy + 0.04, 0.002),
        member_loss=spread(random, 0.36, 0.003),
        fused_loss=spread(random, 0.30, 0.003),
        ambiguity=spread(random, 0.06, 0.001),
        equivalent=members - 0.4,
        by_size=sizes,
        fitted_on=[1, 2, 3] if members > 3 else [],
    )


def make_fusions(random: np.random.Generator, members: int, accuracy: float) -> list[FusionOutcome]:
    """Return made-up fusions; weight averaging makes no sense."""
    names = ("soft_voting", "hard_voting", "greedy_selection") if members > 1 else ("soft_voting",)
    found = [
        FusionOutcome(
            name=name,
            label=name.replace("_", " "),
            accuracy=spread(random, accuracy, 0.001),
            log_likelihood=spread(random, -0.3, 0.004),
        )
        for name in names
    ]
    refused = FusionOutcome(
        name="uniform_soup",
        label="uniform soup",
        refused="the members started from different weights",
    )
    return [*found, refused]


def make_contestant(place: tuple, number: int) -> ContestantResult:
    """Return a made-up contestant."""
    name, label, ranks, together, members, mean, seconds = place
    random = np.random.default_rng(number)
    test = spread(random, mean, 0.0012)
    wrong, ends = 1 - mean, test.interval
    bins = np.linspace(0.35, 0.99, 15)
    diagonal = np.diag(random.integers(4300, 4900, 10)) + random.integers(0, 60, (10, 10))
    return ContestantResult(
        name=name,
        label=label,
        ranks=ranks,
        threads=1,
        together=together,
        members=members,
        parameters=235_146,
        fusion="weight_averaging" if name == "shared_start" else "soft_voting",
        seeds=list(SEEDS),
        accuracy=Accuracy(
            mean=test.mean,
            sd=test.sd,
            values=test.values,
            on_these_images=ends,
            on_new_images=Range(ends.low - 0.003, ends.high + 0.003),
        ),
        validation_accuracy=spread(random, mean + 0.004, 0.001),
        scores=make_scores(random, wrong),
        calibrated=make_scores(random, 0.95 * wrong),
        temperature=spread(random, 1.1, 0.02),
        macro_f1=spread(random, mean - 0.0005, 0.001),
        worst_class=WorstClass(name="Shirt", recall=spread(random, 0.72, 0.01)),
        top_k=TopKSpread(k=5, accuracy=spread(random, 0.997, 0.0002)),
        cost=Cost(
            seconds=spread(random, seconds, 0.2),
            core_seconds=spread(random, seconds * ranks, 0.4),
            samples=1_080_000,
            steps=8_440 / members,
            bytes_sent=0 if ranks == 1 else 7.9e9 if together else 4.0e5,
        ),
        fusions=make_fusions(random, members, mean),
        member_figures=make_members(random, members, mean) if members > 1 else None,
        reliability=[
            ReliabilityBin(confidence=c, accuracy=c - 0.05 * (1 - c), share=1 / 15) for c in bins
        ],
        reliability_calibrated=[
            ReliabilityBin(confidence=c, accuracy=c, share=1 / 15) for c in bins
        ],
        confusion=diagonal.tolist(),
    )


def make_pair(first: ContestantResult, second: ContestantResult, number: int) -> PairResult:
    """Return two contestants compared."""
    differences = np.subtract(first.accuracy.values, second.accuracy.values)
    mean, sd = float(differences.mean()), float(differences.std(ddof=1))
    half = 2.776 * sd / np.sqrt(len(differences))
    sure = abs(mean) > half
    verdict = "equal" if abs(mean) + half < 0.003 else "unknown"
    if sure and verdict == "unknown":
        verdict = "first" if mean > 0 else "second"
    return PairResult(
        first=first.key,
        second=second.key,
        ranks=max(first.ranks, second.ranks),
        seeds=list(SEEDS),
        difference=mean,
        sd=sd,
        on_these_images=Range(mean - half, mean + half),
        on_new_images=Range(mean - 1.5 * half, mean + 1.5 * half),
        better=float((differences > 0).mean()),
        better_interval=Range(0.6, 1.0),
        p_value=0.001 if sure else 0.2,
        p_holm=0.01 if sure else 1.0,
        mcnemar=[
            SeedTest(seed=seed, only_first=300 + number, only_second=280, p_value=0.03)
            for seed in SEEDS
        ],
        verdict=verdict,
        seeds_needed=None if verdict != "unknown" else 14,
    )


def make_study(places: tuple = PLACES) -> StudyResult:
    """Return the whole study."""
    contestants = [make_contestant(place, number) for number, place in enumerate(places)]
    pairs = [
        make_pair(first, second, number)
        for ranks in (2, 4)
        for number, first in enumerate(contestants)
        for second in contestants[number + 1 :]
        if {first.ranks, second.ranks} <= {1, ranks} and second.ranks == ranks
    ]
    return StudyResult(
        created="2026-11-21T09:30:00+00:00",
        job={
            "data": {"path": "data/fashion_mnist.h5"},
            "network": {"name": "mlp", "hidden": [256, 128], "activation": "relu"},
            "training": {"epochs": 20, "batch": 128, "seed": 1},
            "optimizer": {"name": "adam", "learning_rate": 1e-3},
        },
        budget=DeclaredBudget(
            name="samples",
            sentence="Every contestant trains on 1,080,000 samples in total, shared by its "
            "networks.",
        ),
        practically_equal=0.3,
        dataset=DatasetFacts(
            "fashion-mnist",
            "data/fashion_mnist.h5",
            {"train": 54000, "validation": 6000, "test": 10000},
            [28, 28, 1],
            "sha256:1f3a",
        ),
        machine=Machine("Intel(R) Xeon(R) 6 <test>", 1, 4, 1),
        versions={"ensync": "0.1.0", "python": "3.13.1", "numpy": "2.4.6"},
        code="sha256:77aa",
        class_names=list(CLASSES),
        cells_done=5 * len(places),
        contestants=contestants,
        pairs=pairs,
        left_out=[LeftOut("synchronous on 1 rank", "it is one rank there")],
    )
