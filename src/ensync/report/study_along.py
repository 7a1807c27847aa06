"""What a study over one setting says: which values are as accurate as the first one, and which of
these costs least.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ensync.core.config.values import value_text
from ensync.report import text
from ensync.report.study_results import ContestantResult, PairResult, StudyAxis, StudyResult
from ensync.report.study_text import ALIKE, points

# What a value is beside the first one, by the verdict on the pair of the first one and it.
WORDS = {
    "equal": "practically equal",
    "second": "better",
    "first": "worse",
    "unknown": "not enough seeds to tell",
}
Pairs = Mapping[str, PairResult]


def on_axis(study: StudyResult, ranks: int) -> list[ContestantResult]:
    """Return the contestants that are values of the study's setting on so many ranks, in order."""
    names = list(study.over.values) if study.over else []
    found = {each.name: each for each in study.contestants if each.ranks == ranks}
    return [found[name] for name in names if name in found]


def value_of(axis: StudyAxis, contestant: ContestantResult) -> str:
    """Return the value of a contestant as a page shows it: "16"."""
    return value_text(axis.values[contestant.name])


def beside_first(study: StudyResult) -> tuple[ContestantResult, dict[str, PairResult]] | None:
    """Return the first value of a study's setting, on the most ranks on which it was compared with
    another one, and its pairs with the others, it first, by their names in pairs; None where there
    is no such pair.
    """
    for ranks in reversed(study.ranks):
        listed = on_axis(study, ranks)
        found = {each.key: study.pair(listed[0].key, each.key) for each in listed[1:]}
        if pairs := {key: pair for key, pair in found.items() if pair is not None}:
            return listed[0], pairs
    return None


def along(study: StudyResult) -> list[str]:
    """Return sentences on the values of a study's setting; none of another study, or where no two
    were compared.
    """
    found = beside_first(study)
    if found is None or study.over is None:
        return []
    first, pairs = found
    others = [study.by_key(key) for key in pairs]
    equal = [each for each in others if pairs[each.key].verdict in ("equal", "second")]
    return [_beside(study.over, first, others, pairs), *_cheapest(study.over, first, equal)]


def _beside(
    axis: StudyAxis, first: ContestantResult, others: Sequence[ContestantResult], pairs: Pairs
) -> str:
    """Return the sentence on the accuracy of all values beside that of the first."""
    groups: dict[str, list[str]] = {}
    for each in others:
        pair = pairs[each.key]
        told = f"{value_of(axis, each)} ({points(-pair.difference, sign=True)})"
        groups.setdefault(WORDS[pair.verdict], []).append(told)
    listed = "; ".join(
        f"{word}: {', '.join(groups[word])}" for word in WORDS.values() if word in groups
    )
    return (
        f"On {text.plural(first.ranks, 'rank')} {axis.setting} = {value_of(axis, first)} has "
        f"{text.percent(first.accuracy.mean)} of the test images right. In points beside it, "
        f"{listed}."
    )


def _cheapest(
    axis: StudyAxis, first: ContestantResult, equal: Sequence[ContestantResult]
) -> list[str]:
    """Return the sentence on which of the values that are as accurate as the first sends least."""
    sent = {each.key: _sent(each) for each in (first, *equal)}
    ours = sent[first.key]
    known = [each for each in equal if sent[each.key] is not None]
    best = min(known, key=lambda each: sent[each.key] or 0.0, default=None)
    if best is None or not ours or ALIKE * (least := sent[best.key] or 0.0) > ours:
        return []
    times = f", {text.factor(ours / least)} less" if least else ""
    return [
        f"Of those that are as accurate at least, {value_of(axis, best)} sends least: "
        f"{text.size(least)} a sample in place of {text.size(ours)}{times}{_seconds(first, best)}."
    ]


def _sent(contestant: ContestantResult) -> float | None:
    sent = contestant.cost.bytes_per_sample
    return sent.mean if sent else None


def _seconds(first: ContestantResult, best: ContestantResult) -> str:
    """Return the words on the seconds of two, "" where they are no measure."""
    spans = (best.cost.seconds, first.cost.seconds)
    if not (first.cost.timed and best.cost.timed and all(spans)):
        return ""
    took = [text.seconds(each.mean if each else None) for each in spans]
    return f", and takes {took[0]} s in place of {took[1]} s"
