"""The figures of a study as plain text: spreads over seeds, differences, intervals, p-values."""

from __future__ import annotations

from ensync.report import text
from ensync.report.study_results import Accuracy, Range, Spread, StudyResult

PLUS_MINUS = "\N{PLUS-MINUS SIGN}"
ALIKE = 1.05  # costs within this factor of each other are equal


def named(study: StudyResult, key: str) -> str:
    """Return a contestant of a pair as tables show it: "synchronous, 4 ranks"."""
    contestant = study.by_key(key)
    if contestant.name == "one_rank":
        return contestant.label
    return f"{contestant.label}, {text.plural(contestant.ranks, 'rank')}"


def shares(spread: Spread | Accuracy | None) -> str:
    """Return a share with its standard deviation over seeds, in percent: "90.03 +- 0.12"."""
    if spread is None or text.missing(spread.mean):
        return text.DASH
    mean = f"{100 * spread.mean:.2f}"
    return mean if text.missing(spread.sd) else f"{mean} {PLUS_MINUS} {100 * spread.sd:.2f}"


def figures(spread: Spread | None, digits: int = 4) -> str:
    """Return a figure with its standard deviation over seeds: "-0.3012 +- 0.0041"."""
    if spread is None or text.missing(spread.mean):
        return text.DASH
    mean = f"{spread.mean:.{digits}f}"
    return mean if text.missing(spread.sd) else f"{mean} {PLUS_MINUS} {spread.sd:.{digits}f}"


def points(difference: float | None, sign: bool = False) -> str:
    """Return a difference of shares as points of a percent: "0.39"; "-" when missing."""
    if text.missing(difference):
        return text.DASH
    rounded = round(100 * difference, 2) or 0.0  # -0.0 is 0
    return f"{rounded:{'+' if sign and rounded else ''}.2f}"


def span(found: Range | None, sign: bool = False) -> str:
    """Return an interval of differences in points: "0.25 to 0.53"; "-" when missing."""
    if found is None or text.missing(found.low) or text.missing(found.high):
        return text.DASH
    return f"{points(found.low, sign)} to {points(found.high, sign)}"


def between(found: Range | None) -> str:
    """Return an interval of shares in percent: "89.80 to 90.21"."""
    if found is None or text.missing(found.low) or text.missing(found.high):
        return text.DASH
    return f"{100 * found.low:.2f} to {100 * found.high:.2f}"


def chance(p_value: float | None) -> str:
    """Return a p-value as "= 0.012" or "< 0.001"."""
    if text.missing(p_value):
        return f"= {text.DASH}"
    return "< 0.001" if p_value < 0.001 else f"= {p_value:.3f}"
