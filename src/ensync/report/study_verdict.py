"""What a study says, in a few sentences computed from its figures: the effect, both intervals,
the cost and how sure it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ensync.report import text
from ensync.report.study_along import along
from ensync.report.study_results import ContestantResult, PairResult, StudyResult
from ensync.report.study_text import ALIKE, chance, points, span
from ensync.report.verdict import LIKELY

LARGER = "larger_network"  # a control, more than the job's network trained together


class Poles(NamedTuple):
    """The two contestants that the verdict is about, the better one first, and their pair."""

    first: ContestantResult
    second: ContestantResult
    pair: PairResult


def poles(study: StudyResult) -> Poles | None:
    """Return the two contestants that matter: on the most ranks on which any two were compared,
    the best that trains together and the best that trains apart, or the best two where there is
    only one kind. None when no two were compared.

    Best by validation accuracy, so that the test images decide nothing. One larger network is no
    pole as long as there are others: it answers another question than together or apart.
    """
    for ranks in sorted({pair.ranks for pair in study.pairs}, reverse=True):
        pairs = [pair for pair in study.pairs if pair.ranks == ranks]
        keys = {key for pair in pairs for key in (pair.first, pair.second)}
        ranked = sorted((study.by_key(key) for key in sorted(keys)), key=_chosen_by, reverse=True)
        if any(each.together and each.name != LARGER for each in ranked):
            ranked = [each for each in ranked if each.name != LARGER] or ranked
        kinds = [_first_of(ranked, together, ranks) for together in (True, False)]
        best = [one for one in kinds if one] if all(kinds) else ranked[:2]
        if len(best) < 2:
            continue
        first, second = best
        if first.accuracy.mean < second.accuracy.mean:
            first, second = second, first
        if (pair := study.pair(first.key, second.key)) is not None:
            return Poles(first, second, pair)
    return None


def _chosen_by(contestant: ContestantResult) -> float:
    """Return what the best contestant has most of: validation accuracy where it is known."""
    spread = contestant.validation_accuracy
    if spread is None or text.missing(spread.mean):
        return contestant.accuracy.mean - 1  # behind those that can be judged
    return spread.mean


def _first_of(
    ranked: Sequence[ContestantResult], together: bool, ranks: int
) -> ContestantResult | None:
    """Return the first of a kind; one rank alone stands for training together only where nothing
    else does.
    """
    found = [each for each in ranked if each.together is together]
    return next((each for each in found if each.ranks == ranks), found[0] if found else None)


def study_verdict(study: StudyResult) -> list[str]:
    """Return the verdict's sentence, then what must be said beside it, each a line."""
    if told := along(study):
        return [*told, *_missing(study)]
    found = poles(study)
    if found is None:
        return [_nothing(study), *_missing(study)]
    return [
        _effect(study, found),
        _sureness(study, found),
        *_target(study, found),
        _cost(found),
        *_alone(study, found),
        *_larger(study, found),
        *_missing(study),
    ]


def _nothing(study: StudyResult) -> str:
    done = text.plural(study.cells_done, "cell")
    return (
        f"There is nothing to compare yet: {done} done, and no two contestants have a seed in "
        "common."
    )


def _missing(study: StudyResult) -> list[str]:
    """Return the sentence on cells that are not done."""
    if not study.cells_left:
        return []
    cells = text.plural(study.cells_done + study.cells_left, "cell")
    verb = "is" if study.cells_left == 1 else "are"
    return [f"The study is not finished: {study.cells_left} of {cells} {verb} missing."]


def _effect(study: StudyResult, found: Poles) -> str:
    """Return the sentence that names the better one, the effect and its intervals."""
    first, second, pair = found
    reached = (
        f"On {text.plural(pair.ranks, 'rank')} {_called(first)} has "
        f"{text.percent(first.accuracy.mean)} of the test images right, {_called(second)} "
        f"{text.percent(second.accuracy.mean)}: "
    )
    by = f"{points(abs(pair.difference))} points"
    if pair.verdict == "equal":
        return (
            f"{reached}practically equal. The difference of {by} is within the "
            f"{study.practically_equal:g} points declared before."
        )
    if pair.verdict == "first":
        return f"{reached}{_advice(first, second)}. It is better by {by}."
    if pair.verdict == "second":  # the mean and the test disagree, which a test of means never does
        return f"{reached}{_advice(second, first)}."
    return f"{reached}not enough seeds to tell which is better. The difference is {by}."


def _advice(better: ContestantResult, other: ContestantResult) -> str:
    if better.together == other.together:
        return f"take {better.label}"
    if better.name == "one_rank":
        return "train on one rank"
    return "train together" if better.together else "train apart"


def _sureness(study: StudyResult, found: Poles) -> str:
    """Return the sentence on intervals, P(better), Holm and seeds."""
    pair, seeds = found.pair, text.plural(len(found.pair.seeds), "paired seed")
    if pair.on_these_images is None:
        return _of_images_alone(pair)
    parts = [
        f"{_seeds_needed(pair)}With {seeds} the 95 % interval of the difference is "
        f"{span(pair.on_these_images)} points on these test images and "
        f"{span(pair.on_new_images)} on new images"
    ]
    if pair.better is not None:
        parts.append(f"{_called(found.first)} comes out ahead with probability {pair.better:.2f}")
    if pair.p_holm is not None:
        compared = text.plural(len(study.pairs), "pair")
        adjusted = chance(pair.p_holm).removeprefix("= ")
        parts.append(
            f"p {chance(pair.p_value)}, and {adjusted} corrected for all {compared} (Holm)"
        )
    return "; ".join(parts) + "."


def _of_images_alone(pair: PairResult) -> str:
    """Return the sentence on a pair of one seed, of which only the images tell something."""
    told = "One seed shows two trained networks, not two ways to train: give at least 3 (--seeds)."
    found = span(pair.on_new_images)
    if found == text.DASH or not pair.mcnemar:
        return told
    p_value = chance(pair.mcnemar[0].p_value)
    alone = f"By the test images alone the 95 % interval is {found} points"
    return f"{told} {alone}, McNemar's p {p_value}."


def told_on_a_page(pair: PairResult) -> bool:
    """Return whether two contestants are told apart, also when all pairs are looked at."""
    sure = pair.p_holm is not None and pair.p_holm < LIKELY
    return sure and pair.verdict in ("first", "second")


def _seeds_needed(pair: PairResult) -> str:
    """Return how many more seeds would tell, where more are needed."""
    if pair.verdict != "unknown":
        return ""
    if pair.seeds_needed is None:
        few = "More seeds alone would not tell: the test images are too few. "
        return few if len(pair.seeds) > 1 else ""
    more = pair.seeds_needed - len(pair.seeds)
    return f"About {text.plural(more, 'more seed')} would tell. " if more > 0 else ""


def _cost(found: Poles) -> str:
    """Return the sentences on what the two cost: core-seconds where they were measured alone, else
    samples; and parameters at prediction.
    """
    first, second, _ = found
    if first.cost.timed and second.cost.timed:
        unit, why = "core-seconds", ""
        ours, theirs = (each.cost.core_seconds for each in (first, second))
        costs = [spread.mean if spread else None for spread in (ours, theirs)]
        shown = [text.seconds(cost) for cost in costs]
    else:
        unit, why = "samples", f" ({untimed_reason(first, second)})"
        costs = [each.cost.samples for each in (first, second)]
        shown = [text.count(None if cost is None else round(cost)) for cost in costs]
    if any(map(text.missing, costs)):
        return f"What they cost was not measured{why}.{_prediction(first, second)}"
    took = f"{_called(first)} took {shown[0]} {unit}, {_called(second)} {shown[1]}"
    price = _times(first, second, costs)
    return f"{_upper(took)}{why}{f': {price}' if price else ''}.{_prediction(first, second)}"


def _target(study: StudyResult, found: Poles) -> list[str]:
    """Return the sentence on who reached the target when, under that budget."""
    if study.budget.name != "target":
        return []
    goal = text.percent(study.budget.amount)
    timed = found.first.cost.timed and found.second.cost.timed
    told = [
        f"{_called(each)} {reached_target(each, timed)}" for each in (found.first, found.second)
    ]
    return [f"Target, {goal} of the validation images: {'; '.join(told)}."]


def reached_target(contestant: ContestantResult, timed: bool) -> str:
    """Return on how many seeds a contestant reached the target, and after how many seconds."""
    known = [value for value in contestant.cost.seconds_to_target if value is not None]
    share = f"with {len(known)} of {text.plural(len(contestant.seeds), 'seed')}"
    if not known or not timed:
        return share
    return f"{share}, after {text.seconds(sum(known) / len(known))} s on average"


def _times(first: ContestantResult, second: ContestantResult, costs: Sequence[float | None]) -> str:
    """Return "synchronous costs 1.25x as much", "" where the two cost about the same."""
    ours, theirs = (cost or 0.0 for cost in costs)
    if min(ours, theirs) <= 0 or max(ours, theirs) < ALIKE * min(ours, theirs):
        return ""
    dearer = first if ours > theirs else second
    return f"{_called(dearer)} costs {text.factor(max(ours, theirs) / min(ours, theirs))} as much"


def _called(contestant: ContestantResult) -> str:
    """Return a contestant's name in a sentence."""
    alone = contestant.ranks == 1 and contestant.name != "one_rank"
    return f"{contestant.label} on one rank" if alone else contestant.label


def _upper(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def untimed_reason(*contestants: ContestantResult) -> str:
    """Return why seconds of these contestants are not compared."""
    if any(each.cost.packed for each in contestants):
        return "seconds are not compared, since other cells ran beside"
    if any(each.cost.oversubscribed for each in contestants):
        return "seconds are not compared, since there were more threads than cores"
    return "seconds are not known"


def networks_to_predict(contestant: ContestantResult) -> int:
    """Return how many networks answer for a contestant: one where parameters are averaged."""
    averaged = contestant.fusion in ("weight_averaging", "uniform_soup", "greedy_soup")
    return 1 if averaged else contestant.members


def _prediction(first: ContestantResult, second: ContestantResult) -> str:
    """Return the sentence on parameters at prediction where the two differ."""
    ours, theirs = (each.parameters * networks_to_predict(each) for each in (first, second))
    if not min(ours, theirs) or max(ours, theirs) < ALIKE * min(ours, theirs):
        return ""
    dearer = first if ours > theirs else second
    factor = text.factor(max(ours, theirs) / min(ours, theirs))
    return f" To predict, {_called(dearer)} needs {factor} the parameters."


def _alone(study: StudyResult, found: Poles) -> list[str]:
    """Return the sentence on one rank alone where the better of the two is not better than it."""
    better = found.second if found.pair.verdict == "second" else found.first
    for each in study.contestants:
        if each.name != "one_rank" or each.key in (found.first.key, found.second.key):
            continue
        pair = study.pair(better.key, each.key)
        if pair is not None and pair.verdict != "first":
            kind = {"equal": "practically the same", "second": "more"}.get(
                pair.verdict, "no less as far as these seeds tell"
            )
            return [f"One rank alone reached {text.percent(each.accuracy.mean)}, {kind}."]
    return []


def _larger(study: StudyResult, found: Poles) -> list[str]:
    """Return the sentence on one larger network on the same ranks."""
    better = found.second if found.pair.verdict == "second" else found.first
    for each in study.contestants:
        pair = study.pair(each.key, better.key) if each.name == LARGER else None
        if pair is None or pair.ranks != found.pair.ranks:
            continue
        words = {"first": "better than", "second": "worse than", "equal": "practically equal to"}
        said = words.get(pair.verdict, "by these seeds not told apart from")
        times = text.factor(each.parameters / better.parameters) if better.parameters else text.DASH
        return [
            f"{_upper(each.label)} ({times} the parameters of one) reached "
            f"{text.percent(each.accuracy.mean)}, {said} {_called(better)}."
        ]
    return []
