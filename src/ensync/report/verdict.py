"""What a comparison says, in words computed from its figures, with what these figures cannot
show.
"""

import numpy as np

from ensync.core.fusion import fusion_label
from ensync.core.statistics import Interval, accuracy_interval, mcnemar
from ensync.report import text
from ensync.report.results import Comparison, ComparisonRow, Contestant, Sweep

LIKELY = 0.05  # with a p-value from here on there is no difference
ALIKE = 1.05  # times within this factor of each other are equal


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


def verdict(comparison: Comparison) -> list[str]:
    """Return the verdict's sentence, then what must be said beside it, each a line.

    Accuracy decides where the test images show a difference; where they do not, that is said, and
    who is faster.
    """
    alone, together, apart = rows_to_compare(comparison)
    if together is None or apart is None:
        lacking = "synchronous training" if together is None else "the ensemble"
        return [f"There is nothing to compare: {lacking} has no result."]
    if apart.members == 1:
        return [
            "There is nothing to compare: an ensemble of one member is the same network. Run it "
            "with mpirun -n 2 or more, or set ensemble.members."
        ]
    sentence = (
        f"Synchronous training reached {_reached(together)}; the ensemble "
        f"({_kind(apart)}) {_reached(apart)}: "
    )
    difference = accuracy(together) - accuracy(apart)
    shown, reason = _tell_apart(comparison, together, apart)
    if shown:
        advice = "train together" if difference > 0 else "train apart"
        winner, other = (together, apart) if difference > 0 else (apart, together)
        return [
            sentence + advice + ".",
            reason,
            *_price(winner, other),
            *_alone(comparison, alone, winner),
        ]
    faster, advice = _faster(together, apart)
    return [sentence + advice, reason, *_alone(comparison, alone, faster)]


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


def _faster(together: ComparisonRow, apart: ComparisonRow) -> tuple[ComparisonRow, str]:
    """Return the row to prefer of two that are equally accurate as far as is known, and the end
    of the verdict's sentence.
    """
    one, two = together.seconds, apart.seconds
    close = (
        "equally accurate"
        if together.test_accuracy == apart.test_accuracy
        else "too close to call in accuracy"
    )
    if text.missing(one) or text.missing(two):
        return together, f"{close}, and their times are not known."
    if max(one, two) < ALIKE * min(one, two):
        return together, f"{close} and alike in time, so either will do."
    row, name = (together, "together") if one < two else (apart, "apart")
    return (
        row,
        f"{close}, and training {name} is {text.factor(max(one, two) / min(one, two))} as fast.",
    )


def _price(winner: ComparisonRow, other: ComparisonRow) -> list[str]:
    """Return the sentence on time when the better one was the slower one."""
    ours, theirs = winner.seconds, other.seconds
    if text.missing(ours) or text.missing(theirs) or ours < ALIKE * theirs:
        return []
    return [
        f"It takes {text.factor(ours / theirs)} the time; where seconds count more than "
        "accuracy, choose the other."
    ]


def _alone(comparison: Comparison, alone: ComparisonRow | None, winner: ComparisonRow) -> list[str]:
    """Return the sentence on one rank alone when it was neither slower nor shown to be worse
    than the winner.
    """
    if (
        alone is None
        or alone is winner
        or text.missing(alone.seconds)
        or text.missing(winner.seconds)
    ):
        return []
    worse = accuracy(winner) > accuracy(alone) and _tell_apart(comparison, winner, alone)[0]
    if worse or alone.seconds > winner.seconds:
        return []
    return [
        f"One rank alone reached {_reached(alone)}: more ranks do not pay for this job on this "
        "machine."
    ]


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
