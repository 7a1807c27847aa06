"""The pairs of a study's contestants: differences over the seeds that both have, with both
intervals, tests and what they say.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ensync.core.statistics.intervals import Interval
from ensync.core.statistics.pairs import (
    Difference,
    Verdict,
    corrected_interval,
    difference,
    holm,
    judge,
    mcnemar,
    probability_of_better,
    seeds_to_tell,
)
from ensync.report.study_results import (
    ContestantResult,
    Deviations,
    PairResult,
    Range,
    SeedTest,
)

WORDS = {
    Verdict.BETTER: "first",
    Verdict.WORSE: "second",
    Verdict.EQUAL: "equal",
    Verdict.UNKNOWN: "unknown",
}


@dataclass(frozen=True)
class Compared:
    """A contestant as pairs need it: its figures, and by seed which test images it has right, bool
    (images,), and its fused validation accuracy.
    """

    figures: ContestantResult
    right: Mapping[int, np.ndarray]
    validation: Mapping[int, float | None]


@dataclass(frozen=True)
class Rules:
    """How pairs are judged. practically_equal: in points of accuracy; validation_share: of the
    training and validation images the share of the latter, where these are redrawn, else None.
    """

    practically_equal: float
    validation_share: float | None = None


def range_of(found: Interval) -> Range | None:
    """Return the ends of an interval, None where it has none."""
    if not (np.isfinite(found.low) and np.isfinite(found.high)):
        return None
    return Range(float(found.low), float(found.high))


def pairs_of(contestants: Sequence[Compared], rules: Rules) -> list[PairResult]:
    """Return all pairs of contestants on the same number of ranks, one rank alone with each of
    them, with p-values adjusted for all of these.
    """
    found = []
    for ranks in sorted({each.figures.ranks for each in contestants}):
        here = [
            each
            for each in contestants
            if each.figures.ranks == ranks or each.figures.name == "one_rank"
        ]
        for place, first in enumerate(here):
            for second in here[place + 1 :]:
                if ranks not in (first.figures.ranks, second.figures.ranks):
                    continue
                seeds = [seed for seed in first.figures.seeds if seed in second.right]
                if seeds:
                    found.append(_pair(first, second, seeds, rules))
    adjusted = holm([pair.p_value or 0.0 for pair in found]).tolist() if found else []
    return [
        replace(pair, p_holm=None if pair.on_these_images is None else p_holm)
        for pair, p_holm in zip(found, adjusted, strict=True)
    ]


def _pair(first: Compared, second: Compared, seeds: list[int], rules: Rules) -> PairResult:
    """Return two contestants over these seeds."""
    ours, theirs = (np.stack([each.right[seed] for seed in seeds]) for each in (first, second))
    found = difference(ours, theirs)
    better = probability_of_better(ours.mean(axis=1), theirs.mean(axis=1))
    equal = rules.practically_equal / 100
    verdict = judge(found, better, equal)
    several = len(seeds) > 1
    return PairResult(
        first=first.figures.key,
        second=second.figures.key,
        ranks=max(first.figures.ranks, second.figures.ranks),
        seeds=seeds,
        difference=found.value,
        sd=float(np.std(ours.mean(axis=1) - theirs.mean(axis=1), ddof=1)) if several else None,
        deviations=_deviations(found),
        on_these_images=range_of(found.on_these),
        on_new_images=range_of(found.on_new),
        better=better.value if several else None,
        better_interval=range_of(better) if several else None,
        p_these=found.p_these if several else None,
        p_value=found.p_new,
        corrected=_corrected(first, second, seeds, rules),
        mcnemar=[_mcnemar(seed, *rows) for seed, *rows in zip(seeds, ours, theirs, strict=True)],
        verdict=WORDS[verdict],
        seeds_needed=(
            seeds_to_tell(found, max(abs(found.value), equal))
            if verdict is Verdict.UNKNOWN
            else None
        ),
    )


def _deviations(found: Difference) -> Deviations:
    """Return what a difference consists of; of one seed only what is known."""
    parts = (found.sigma_image, found.sigma_seed, found.sigma_interaction)
    return Deviations(*(float(part) if np.isfinite(part) else None for part in parts))


def _mcnemar(seed: int, ours: np.ndarray, theirs: np.ndarray) -> SeedTest:
    found = mcnemar(int((ours & ~theirs).sum()), int((theirs & ~ours).sum()))
    return SeedTest(seed=seed, **found._asdict())


def _corrected(first: Compared, second: Compared, seeds: list[int], rules: Rules) -> Range | None:
    """Return Nadeau and Bengio's interval of the difference in validation accuracy, where the
    validation images are redrawn for each seed.
    """
    if rules.validation_share is None or len(seeds) < 2:
        return None
    ours, theirs = ([each.validation[seed] for seed in seeds] for each in (first, second))
    if any(value is None for value in (*ours, *theirs)):
        return None
    differences = np.subtract(np.array(ours, float), np.array(theirs, float))
    return range_of(corrected_interval(differences, rules.validation_share))
