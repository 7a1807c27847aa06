"""What a comparison says, in words computed from its figures, with what these figures cannot
show.
"""

from collections.abc import Mapping

import numpy as np

from ensync.core.fusion import fusion_label
from ensync.core.statistics import Interval, accuracy_interval, mcnemar
from ensync.report import text

LIKELY = 0.05  # a difference that luck makes more often than this is not called one
ALIKE = 1.05  # times within this factor of each other are not called faster


def interval_of(comparison: Mapping, row: Mapping) -> Interval | None:
    """Return a row's test accuracy with its 95 % interval, None when its confusion counts are
    missing.
    """
    counts = comparison.get("confusions", {}).get(row["name"])
    if not counts or text.missing(row.get("test_accuracy")):
        return None
    counts = np.asarray(counts)
    return accuracy_interval(int(np.trace(counts)), int(counts.sum()))


def notes_of(comparison: Mapping) -> list[tuple[str, str]]:
    """Return (row name, note) of the rows that have a note."""
    return [(str(row["name"]), str(row["note"])) for row in comparison["rows"] if row.get("note")]


def together_and_apart(
    comparison: Mapping,
) -> tuple[Mapping | None, Mapping | None, Mapping | None]:
    """Return the rows of one rank alone, of the synchronous strategy and of the best fusion;
    None for one without a result.
    """
    sound = [row for row in comparison["rows"] if not text.missing(row.get("test_accuracy"))]
    apart = [row for row in sound if row.get("strategy") == "ensemble"]
    others = [row for row in sound if row.get("strategy") != "ensemble"]
    alone = [row for row in others if row["name"] == "one rank"]
    together = [row for row in others if row not in alone]
    if not any(
        row.get("strategy") != "ensemble" and row["name"] != "one rank"
        for row in comparison["rows"]
    ):
        together = alone  # the comparison was made on one rank, where the two are the same
    best = max(apart, key=lambda row: row["test_accuracy"], default=None)
    return alone[0] if alone else None, together[0] if together else None, best


def verdict(comparison: Mapping) -> list[str]:
    """Return the verdict's sentence, then what must be said beside it, each a line.

    Accuracy decides where the test images show a difference; where they do not, that is said, and
    who is faster.
    """
    alone, together, apart = together_and_apart(comparison)
    if together is None or apart is None:
        lacking = "synchronous training" if together is None else "the ensemble"
        return [f"There is nothing to compare: {lacking} has no result."]
    if apart.get("members") == 1:
        return [
            "There is nothing to compare: an ensemble of one member is the same network. Run it "
            "with mpirun -n 2 or more, or set ensemble.members."
        ]
    sentence = (
        f"Synchronous training reached {_reached(together)}; the ensemble "
        f"({_kind(apart)}) {_reached(apart)}: "
    )
    difference = together["test_accuracy"] - apart["test_accuracy"]
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


def _reached(row: Mapping) -> str:
    time = "" if text.missing(row.get("seconds")) else f" in {text.seconds(row['seconds'])} s"
    return text.percent(row["test_accuracy"]) + time


def _kind(row: Mapping) -> str:
    fusion = fusion_label(str(row.get("fusion") or "fused"))
    return f"{fusion}, {text.plural(row['members'], 'member')}" if row.get("members") else fusion


def _tell_apart(comparison: Mapping, first: Mapping, second: Mapping) -> tuple[bool, str]:
    """Return whether the test images show a difference between two rows, and the sentence that
    says why (not).
    """
    if first["test_accuracy"] == second["test_accuracy"]:
        return False, "Both have the same number of test images right."
    points = f"{100 * abs(first['test_accuracy'] - second['test_accuracy']):.2f} points"
    for pair in comparison.get("paired", []):
        if set(pair["rows"]) == {first["name"], second["name"]}:
            p_value = mcnemar(pair["only_first"], pair["only_second"]).p_value
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


def _faster(together: Mapping, apart: Mapping) -> tuple[Mapping, str]:
    """Return the row to prefer of two that are equally accurate as far as is known, and the end
    of the verdict's sentence.
    """
    one, two = together.get("seconds"), apart.get("seconds")
    close = (
        "equally accurate"
        if together["test_accuracy"] == apart["test_accuracy"]
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


def _price(winner: Mapping, other: Mapping) -> list[str]:
    """Return the sentence on time when the better one was the slower one."""
    ours, theirs = winner.get("seconds"), other.get("seconds")
    if text.missing(ours) or text.missing(theirs) or ours < ALIKE * theirs:
        return []
    return [
        f"It takes {text.factor(ours / theirs)} the time; where seconds count more than "
        "accuracy, choose the other."
    ]


def _alone(comparison: Mapping, alone: Mapping | None, winner: Mapping) -> list[str]:
    """Return the sentence on one rank alone when it was neither slower nor shown to be worse
    than the winner.
    """
    if (
        alone is None
        or alone is winner
        or text.missing(alone.get("seconds"))
        or text.missing(winner.get("seconds"))
    ):
        return []
    worse = (
        winner["test_accuracy"] > alone["test_accuracy"]
        and _tell_apart(comparison, winner, alone)[0]
    )
    if worse or alone["seconds"] > winner["seconds"]:
        return []
    return [
        f"One rank alone reached {_reached(alone)}: more ranks do not pay for this job on this "
        "machine."
    ]


def sweep_verdict(sweep: Mapping) -> list[str]:
    """Return which value of a sweep is best, chosen by validation accuracy, and which is
    fastest.
    """
    key, rows = sweep["key"], sweep["rows"]
    sound = [row for row in rows if not text.missing(row.get("validation_accuracy"))]
    if not sound:
        return [f"No value of {key} gave a result."]
    best = max(sound, key=lambda row: row["validation_accuracy"])
    accuracies = (
        f"{text.percent(best['validation_accuracy'])} (test "
        f"{text.percent(best.get('test_accuracy'))})"
    )
    lines = [
        f"{key} = {text.setting(best['value'])} has the best validation accuracy, {accuracies}."
    ]
    timed = [row for row in sound if not text.missing(row.get("seconds"))]
    if timed:
        fast, slow = (
            min(timed, key=lambda row: row["seconds"]),
            max(timed, key=lambda row: row["seconds"]),
        )
        least, most = (
            f"{text.seconds(row['seconds'])} s (at {text.setting(row['value'])})"
            for row in (fast, slow)
        )
        lines.append(f"Training took from {least} to {most}.")
    lost = [text.setting(row["value"]) for row in rows if row not in sound]
    return lines + ([f"No result at {', '.join(lost)}."] if lost else [])
