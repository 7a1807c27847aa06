"""Figures and tables as plain text, the same on the console and on the page."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ensync.core.errors import plural as plural  # part of this vocabulary, too
from ensync.core.errors import printable

if TYPE_CHECKING:
    from typing_extensions import TypeIs

DASH = "-"


def missing(value: object) -> TypeIs[None]:
    """Return whether there is no figure to show: None, or a float that is not finite.

    To a type checker what is missing is None, so that what is not missing is a figure.
    """
    return value is None or (isinstance(value, float) and not math.isfinite(value))


def percent(value: float | None, digits: int = 2) -> str:
    """Return a share of 1 as "97.21 %", "-" when missing."""
    return DASH if missing(value) else f"{100 * value:.{digits}f} %"


def number(value: float | None, digits: int = 4) -> str:
    """Return a figure with fixed digits after the point, in powers of ten when they would not
    show it.
    """
    if missing(value):
        return DASH
    shown = value == 0 or 10.0**-digits <= abs(value) < 1e5
    return f"{value:.{digits}f}" if shown else f"{value:.{digits - 1}e}"


def setting(value: object) -> str:
    """Return a setting's value in short: floats with six digits at most."""
    return DASH if missing(value) else f"{value:g}" if isinstance(value, float) else str(value)


def count(value: float | None) -> str:
    """Return a count as "12,345" and a rate (a float) with three significant digits at least:
    "12,345", "34.5".
    """
    if missing(value):
        return DASH
    digits = 0 if isinstance(value, int) or abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2
    return f"{value:,.{digits}f}"


def seconds(value: float | None) -> str:
    """Return a measured time in seconds with three significant digits, without the unit."""
    if missing(value):
        return DASH
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2 if value >= 0.1 else 4}f}"


def column(values: Sequence[float | None]) -> list[str]:
    """Return measured figures, none below 0, with as many digits after the point each: three
    significant ones of the least, as far as six are enough for the greatest.
    """
    known = [value for value in values if not missing(value) and value > 0]
    if not known:
        return [DASH if missing(value) else "0" for value in values]
    places = [math.floor(math.log10(float(f"{value:.2e}"))) for value in (min(known), max(known))]
    digits = max(0, min(2 - places[0], 5 - places[1]))
    return [DASH if missing(value) else f"{value:,.{digits}f}" for value in values]


def clock(value: float | None) -> str:
    """Return a remaining time in seconds as "0:42", "12:05" or "3:12:05"."""
    if missing(value):
        return DASH
    minutes, rest = divmod(math.ceil(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def size(value: float | None) -> str:
    """Return bytes as "0 B", "12.3 MB" (powers of 1000)."""
    if missing(value):
        return DASH
    for unit in ("B", "kB", "MB", "GB"):
        if abs(value) < 999.5:
            return f"{value:.{0 if unit == 'B' or value >= 99.95 else 1}f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def by_value(counts: Sequence[int]) -> str:
    """Return "0: 40 %, 1: 60 %" of how often each whole number from 0 came."""
    total = max(sum(counts), 1)
    return ", ".join(f"{value}: {100 * each / total:.0f} %" for value, each in enumerate(counts))


def factor(value: float | None) -> str:
    """Return a ratio as "1.85x"."""
    return DASH if missing(value) else f"{value:.{2 if value < 10 else 1}f}x"


def times(value: float | None) -> str:
    """Return a ratio of a column of them as "1.85x", "23.40x"."""
    return DASH if missing(value) else f"{value:.2f}x"


def cells(text: str) -> int:
    """Return how many columns of a terminal the text takes (wide letters two, combining ones
    none).
    """
    if text.isascii():
        return len(text)
    return sum(
        0
        if unicodedata.combining(letter)
        else 2
        if unicodedata.east_asian_width(letter) in "WF"
        else 1
        for letter in text
    )


def pad(text: str, columns: int, left: bool = False) -> str:
    """Return the text filled with blanks to so many columns, on the right side when
    left-aligned.
    """
    blanks = " " * max(0, columns - cells(text))
    return text + blanks if left else blanks + text


def table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)
) -> list[str]:
    """Return the lines of an aligned table, its heads first; the columns named in `left` start
    at the left, figures end at the right.
    """
    lines = [[printable(cell) for cell in line] for line in (heads, *rows)]
    widths = [max(cells(line[column]) for line in lines) for column in range(len(heads))]
    return [
        "  ".join(
            pad(cell, widths[column], column in left) for column, cell in enumerate(line)
        ).rstrip()
        for line in lines
    ]
