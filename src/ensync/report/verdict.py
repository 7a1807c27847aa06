"""What a comparison says, in words computed from its figures, with what these figures cannot
show.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ensync.core.fusion import fusion_label
from ensync.core.statistics import Interval, accuracy_interval, mcnemar
from ensync.report import text
from ensync.report.results import (
    Comparison,
    ComparisonRow,
    Contestant,
    Scaling,
    Sweep,
    is_oversubscribed,
)

LIKELY = 0.05  # with a p-value from here on there is no difference
ALIKE = 1.05  # times within this factor of each other are equal
WHOLE = ("full", "bootstrap")  # of ensemble.data: as many rows for each member as there are


def accuracy(row: ComparisonRow) -> float:
    """Return the test accuracy of a row, to compare rows by; 0 where it is missing."""
    return row.test_accuracy or 0.0


def interval_of(comparison: Comparison, row: ComparisonRow) -> Interval | None:
    """Return a row's test accuracy with its 95 % interval, None when its confusion counts are
    missing.
    """
    counts = comparison.confusions.get(row.name)
    if not counts or text.missing(row.test_accuracy):
        return None
    found = np.asarray(counts)
    return accuracy_interval(int(np.trace(found)), int(found.sum()))


def notes_of(comparison: Comparison) -> list[tuple[str, str]]:
    """Return (row name, note) of the rows that have a note."""
    return [(row.name, row.note) for row in comparison.rows if row.note]


def rows_to_compare(
    comparison: Comparison,
) -> tuple[ComparisonRow | None, ComparisonRow | None, ComparisonRow | None]:
    """Return the rows of one rank alone, of the synchronous strategy and of the best fusion;
    None for one without a result.
    """
    sound = {
        who: [
            row
            for row in comparison.rows
            if row.contestant is who and not text.missing(row.test_accuracy)
        ]
        for who in Contestant
    }
    alone, together = sound[Contestant.ONE_RANK], sound[Contestant.SYNCHRONOUS]
    if not any(row.contestant is Contestant.SYNCHRONOUS for row in comparison.rows):
        together = alone  # the comparison was made on one rank, where the two are the same
    best = max(sound[Contestant.ENSEMBLE], key=accuracy, default=None)
    return alone[0] if alone else None, together[0] if together else None, best


class Choice(NamedTuple):
    """What a comparison advises: the row to prefer, None where there is nothing to compare, and
    its sentences: first what to do, then why, each a line.
    """

    row: ComparisonRow | None
    lines: list[str]


def verdict(comparison: Comparison) -> list[str]:
    """Return what to do, in one sentence, then what was found and what must be said beside it, each
    a line.
    """
    return choose(comparison).lines


def choose(comparison: Comparison) -> Choice:
    """Return what a comparison advises.

    Accuracy decides where the test images show a difference; where they do not, time does. One rank
    is enough where it was neither slower nor shown to be worse than the better of the two. Seconds
    of more threads than cores are no measure and decide nothing.
    """
    ends = rows_to_compare(comparison)
    alone, together, apart = (row and _measured(comparison, row) for row in ends)
    if together is None or apart is None:
        lacking = "synchronous training" if together is None else "the ensemble"
        return Choice(None, [f"There is nothing to compare: {lacking} has no result."])
    if apart.members == 1:
        return Choice(
            None,
            [
                "There is nothing to compare: an ensemble of one member is the same network. Run "
                "it with mpirun -n 2 or more, or set ensemble.members."
            ],
        )
    shown, reason = _tell_apart(comparison, together, apart)
    better = together if accuracy(together) > accuracy(apart) else apart
    row, advice = _by_accuracy(better, together, apart) if shown else _by_time(together, apart)
    price = _price(better, apart if better is together else together) if shown else []
    if alone is not None and _is_enough(comparison, alone, row):
        how = "together" if row is together else "apart"
        ranks = text.plural(row.ranks, "rank") if row.ranks else "more ranks"
        advice = (
            f"One rank is enough here: training {how} on {ranks} took no less time and is not "
            "shown to be more accurate."
        )
        row, price = alone, []
    beside = [] if alone is None or alone is together else [f"one rank alone {_reached(alone)}"]
    found = (
        f"Synchronous training reached {_reached(together)}",
        f"the ensemble ({_kind(apart)}) {_reached(apart)}",
        *beside,
    )
    lines = [advice, "; ".join(found) + ".", reason, *price, *_alone(comparison, alone, row)]
    return Choice(row, [*lines, *_no_measure(comparison), _one_seed(comparison, apart)])


def row_oversubscribed(comparison: Comparison, row: ComparisonRow) -> bool:
    """Return whether a row's ranks had more threads than cores."""
    where = comparison.machine
    return is_oversubscribed(row.ranks, where.threads_per_rank, where.cores)


def _measured(comparison: Comparison, row: ComparisonRow) -> ComparisonRow:
    """Return a row without its seconds where they are no measure."""
    return replace(row, seconds=None) if row_oversubscribed(comparison, row) else row


def _no_measure(comparison: Comparison) -> list[str]:
    if not any(row_oversubscribed(comparison, row) for row in comparison.rows):
        return []
    return ["Seconds are not compared, since there were more threads than cores."]


def _one_seed(comparison: Comparison, apart: ComparisonRow) -> str:
    """Return the sentence on what no comparison of one seed and equal epochs shows."""
    n, rows = apart.members, comparison.job.get("ensemble", {}).get("data")
    more = f", so {n} members on all of the data saw {n} times the samples"
    return (
        f"Each was trained once, for the same epochs{more if rows in WHOLE and n else ''}: ensync "
        "compare --seeds 5 tells a difference from the luck of one seed, on an equal budget."
    )


def _by_accuracy(
    better: ComparisonRow, together: ComparisonRow, apart: ComparisonRow
) -> tuple[ComparisonRow, str]:
    """Return the more accurate row, and the sentence that advises it."""
    how, other = ("together", "apart") if better is together else ("apart", "together")
    more = f"{100 * abs(accuracy(together) - accuracy(apart)):.2f} points"
    one, two = better.seconds, (apart if better is together else together).seconds
    ahead = not (text.missing(one) or text.missing(two)) and ALIKE * one <= two
    faster = f", and is {text.factor(two / one)} as fast" if ahead and one and two else ""
    return better, f"Train {how}: it is better by {more} than training {other}{faster}."


def _reached(row: ComparisonRow) -> str:
    time = "" if text.missing(row.seconds) else f" in {text.seconds(row.seconds)} s"
    return text.percent(row.test_accuracy) + time


def _kind(row: ComparisonRow) -> str:
    fusion = fusion_label(row.fusion or "fused")
    return f"{fusion}, {text.plural(row.members, 'member')}" if row.members else fusion


def _tell_apart(
    comparison: Comparison, first: ComparisonRow, second: ComparisonRow
) -> tuple[bool, str]:
    """Return whether the test images show a difference between two rows, and the sentence that
    says why (not).
    """
    if first.test_accuracy == second.test_accuracy:
        return False, "Both have the same number of test images right."
    points = f"{100 * abs(accuracy(first) - accuracy(second)):.2f} points"
    for pair in comparison.paired:
        if set(pair.rows) == {first.name, second.name}:
            p_value = mcnemar(pair.only_first, pair.only_second).p_value
            chance = "less than 0.001" if p_value < 0.001 else f"{p_value:.3f}"
            judged = "more than luck gives" if p_value < LIKELY else "no more than luck may give"
            return (
                p_value < LIKELY,
                f"The difference of {points} on the same test images is {judged} (McNemar's "
                f"test, p {'' if p_value < 0.001 else '= '}{chance}).",
            )
    one, two = interval_of(comparison, first), interval_of(comparison, second)
    if one is None or two is None:
        return (
            True,
            f"The difference is {points}; how sure it is cannot be told without the confusion "
            "counts.",
        )
    if one.low > two.high or two.low > one.high:
        return (
            True,
            f"The difference of {points} is larger than chance explains: the 95 % intervals do "
            "not overlap.",
        )
    return (
        False,
        "The 95 % intervals overlap, so these test images do not show that the difference of "
        f"{points} is real.",
    )


def _by_time(together: ComparisonRow, apart: ComparisonRow) -> tuple[ComparisonRow, str]:
    """Return the row to prefer of two that are equally accurate as far as is known, and the
    sentence that advises it.
    """
    one, two = together.seconds, apart.seconds
    close = (
        "equally accurate"
        if together.test_accuracy == apart.test_accuracy
        else "too close to call in accuracy"
    )
    if text.missing(one) or text.missing(two) or not (one and two):
        return together, f"Train together or apart: {close}, and no times can be compared."
    if max(one, two) < ALIKE * min(one, two):
        return together, f"Train together or apart: {close}, and alike in time."
    row, how = (together, "together") if one < two else (apart, "apart")
    faster = text.factor(max(one, two) / min(one, two))
    return row, f"Train {how}: {close}, and {faster} as fast."


def _price(winner: ComparisonRow, other: ComparisonRow) -> list[str]:
    """Return the sentence on time when the better one was the slower one."""
    ours, theirs = winner.seconds, other.seconds
    if text.missing(ours) or text.missing(theirs) or ours < ALIKE * theirs:
        return []
    return [
        f"It takes {text.factor(ours / theirs)} the time; where seconds count more than "
        "accuracy, choose the other."
    ]


def _alone(comparison: Comparison, alone: ComparisonRow | None, row: ComparisonRow) -> list[str]:
    """Return the sentence on one rank alone where it is shown to be better than the row advised."""
    if alone is None or accuracy(alone) <= accuracy(row):
        return []
    if not _tell_apart(comparison, alone, row)[0]:
        return []
    more = f"{100 * (accuracy(alone) - accuracy(row)):.2f} points"
    if text.missing(alone.seconds) or text.missing(row.seconds) or not row.seconds:
        return [f"One rank alone is better than that by {more}."]
    times = text.factor(alone.seconds / row.seconds)
    return [f"One rank alone is better than that by {more}, in {times} the time."]


def _is_enough(comparison: Comparison, alone: ComparisonRow, better: ComparisonRow) -> bool:
    """Return whether one rank alone was neither slower nor shown to be worse than another row."""
    if alone is better or text.missing(alone.seconds) or text.missing(better.seconds):
        return False
    worse = accuracy(better) > accuracy(alone) and _tell_apart(comparison, better, alone)[0]
    return not worse and alone.seconds <= better.seconds


def sweep_verdict(sweep: Sweep) -> list[str]:
    """Return which value of a sweep is best, chosen by validation accuracy, and which is
    fastest.
    """
    key, rows = sweep.key, sweep.rows
    sound = [row for row in rows if not text.missing(row.validation_accuracy)]
    if not sound:
        return [f"No value of {key} gave a result."]
    best = max(sound, key=lambda row: row.validation_accuracy or 0.0)
    accuracies = (
        f"{text.percent(best.validation_accuracy)} (test {text.percent(best.test_accuracy)})"
    )
    lines = [f"{key} = {text.setting(best.value)} has the best validation accuracy, {accuracies}."]
    timed = [row for row in sound if not text.missing(row.seconds)]
    if timed:
        fast, slow = (
            min(timed, key=lambda row: row.seconds or 0.0),
            max(timed, key=lambda row: row.seconds or 0.0),
        )
        least, most = (
            f"{text.seconds(row.seconds)} s (at {text.setting(row.value)})" for row in (fast, slow)
        )
        lines.append(f"Training took from {least} to {most}.")
    lost = [text.setting(row.value) for row in rows if row not in sound]
    return lines + ([f"No result at {', '.join(lost)}."] if lost else [])


def scaling_verdict(scaling: Scaling) -> list[str]:
    """Return how far more ranks are faster, a sentence for each strategy. Runs of more threads than
    cores do not count.
    """
    lines = []
    for name, rows in scaling.by_strategy.items():
        sound = [row for row in rows if row.speedup and not row.oversubscribed]
        if len(sound) < 2:
            lines.append(f"{name.capitalize()}: no two times can be compared.")
            continue
        best = max(sound, key=lambda row: row.speedup or 0.0)
        lines.append(
            f"{name.capitalize()}: fastest on {text.plural(best.ranks, 'rank')}, "
            f"{text.times(best.speedup)} as fast as on one, an efficiency of "
            f"{text.percent(best.efficiency, 0)}."
        )
    return lines or ["No run has a result."]
