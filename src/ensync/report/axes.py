"""What the plots share: a figure of our size, axes of shares and of values, colours and marks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, TypedDict

import numpy as np

from ensync.core.errors import printable
from ensync.report import text
from ensync.report.style import INK, NAMED, SERIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Of an axis of accuracies, as a share of 1. A study takes 0.3 points for practically equal unless
# told otherwise; on such an axis they are a tenth of its height at most, and look as small as they
# are.
LEAST_SPAN = 0.03
SMALLEST_ERROR = 0.01  # below it a logarithmic axis of errors ends, so that no errors have a place
BEYOND = SMALLEST_ERROR / 5  # of 100 %, so that a line there is not cut in half
ERROR_TICKS = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 1.0)
SPREAD = 20  # values further apart than this factor get a logarithmic axis


class Look(TypedDict, total=False):
    """How a line looks, apart from its colour."""

    marker: str
    markerfacecolor: str
    markersize: float
    markeredgewidth: float
    linestyle: str
    linewidth: float
    alpha: float
    label: str


class Lettering(TypedDict, total=False):
    """How words stand."""

    ha: Literal["left", "center", "right"]
    va: Literal["bottom", "baseline", "center", "center_baseline", "top"]
    fontsize: float
    in_layout: bool
    rotation: float
    rotation_mode: Literal["default", "anchor"]


def new_figure(width: float = 6.4, height: float = 4.0) -> Figure:
    """Return an empty figure of so many inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def percent_axis(axes: Axes) -> None:
    """Label shares of 1 on the y axis in percent, with the digits that the distance of the ticks
    asks for.
    """
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    def label(value: float, _: int) -> str:
        ticks = 100 * axes.yaxis.get_majorticklocs()
        digits = next(
            (
                digits
                for digits in range(3)
                if np.allclose(ticks, ticks.round(digits), rtol=0, atol=1e-6)
            ),
            3,
        )
        return text.percent(value, digits)

    axes.yaxis.set_major_locator(MaxNLocator(6, min_n_ticks=3, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(label))


def accuracy_axis(axes: Axes) -> None:
    """Label accuracies on the y axis in percent, over LEAST_SPAN at least; to be called when all
    is drawn.
    """
    low, high = axes.get_ylim()
    missing = LEAST_SPAN - (high - low)
    if missing > 0:
        low, high = low - missing / 2, high + missing / 2
        beyond = max(0.0, high - 1 - LEAST_SPAN / 20)  # no accuracy is above 100 %
        axes.set_ylim(low - beyond, high - beyond)
    percent_axis(axes)


def error_axis(axes: Axes) -> None:
    """Label accuracies on the y axis in percent at places by the logarithm of their errors, so that
    low ones and differences between high ones are seen beside each other.
    """
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    def place(shares: np.ndarray) -> np.ndarray:
        placed: np.ndarray = -np.log(1 + SMALLEST_ERROR - np.clip(shares, 0, 1 + BEYOND))
        return placed

    def share(places: np.ndarray) -> np.ndarray:
        shares: np.ndarray = 1 + SMALLEST_ERROR - np.exp(-places)
        return shares

    low, high = axes.dataLim.intervaly
    axes.set_yscale("function", functions=(place, share))
    axes.set_ylim(max(0.0, low - 0.02), min(1.0, high) + BEYOND)
    axes.yaxis.set_major_locator(FixedLocator(ERROR_TICKS))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: text.percent(value, 0)))
    axes.set_ylabel(f"{axes.get_ylabel()} (by the log of the error)")


def whole_ticks(first: int, last: int, most: int = 6) -> list[int]:
    """Return about `most` whole numbers from `first` to `last`, round ones but for the last."""
    sizes = (digit * 10**power for power in range(9) for digit in (1, 2, 5))
    step = next(size for size in sizes if last - first < most * size)
    begin = first if step == 1 else -(-first // step) * step
    return [*range(begin, last - (step - 1) // 2, step), last]


def whole_axis(axes: Axes, first: int, last: int) -> None:
    """Have ticks at whole numbers alone on the x axis, also at the last one."""
    axes.set_xticks(whole_ticks(first, last))


def draw_crosses(axes: Axes, places: Sequence[float], label: str) -> None:
    """Mark on the x axis, as it stands, what gave no result."""
    if places:
        axes.set_ylim(axes.get_ylim())
        low = axes.get_ylim()[0]
        axes.plot(
            places,
            [low] * len(places),
            "x",
            color=INK,
            markersize=8,
            markeredgewidth=1.8,
            clip_on=False,
            label=label,
        )


def colors_of(names: Sequence[str]) -> dict[str, str]:
    """Return a colour for each name: the same for the same strategy in every plot, the next free
    one for others.
    """
    free = iter(
        [color for color in SERIES if color not in {NAMED.get(name) for name in names}]
        * (1 + len(names))
    )
    return {name: NAMED.get(name) or next(free) for name in names}


def value_axis(axes: Axes, places: Sequence[float], labels: Sequence[str] | None) -> None:
    """Give the swept values their ticks; values more than 20 times apart stand on a logarithmic
    axis.
    """
    if min(places) > 0 and max(places) > SPREAD * min(places) and labels is None:
        axes.set_xscale("log")
    if labels is not None:
        axes.margins(x=0.5 / len(places))
    if labels is not None or len(places) <= 12:
        axes.set_xticks(places, labels or [text.setting(place) for place in places])
        axes.set_xticks([], minor=True)


def short(name: str, letters: int = 14) -> str:
    """Return the name cut to so many letters, as text that matplotlib takes for no formula."""
    cut = name if len(name) <= letters else name[: letters - 1] + "\N{HORIZONTAL ELLIPSIS}"
    return printable(cut).replace("$", r"\$")
