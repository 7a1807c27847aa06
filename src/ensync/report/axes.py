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

SPREAD = 20  # values further apart than this factor get a logarithmic axis


class Look(TypedDict, total=False):
    """How a line looks, apart from its colour."""

    marker: str
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


def whole_axis(axes: Axes) -> None:
    """Have ticks at whole numbers alone on the x axis."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


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
