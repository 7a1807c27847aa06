"""Pictures of filters: a field of them for each tower, and how colourful they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ensync.report.axes import new_figure, percent_axis, short
from ensync.report.filters.results import COLOURFUL, RunFilters, Tower, by_colour
from ensync.report.style import BLUE, GREY, ORANGE, SERIES, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LETTERS = 26  # of a title
MOST_ACROSS = 12  # filters beside each other
COLOURS = (BLUE, ORANGE, *(color for color in SERIES if color not in (BLUE, ORANGE)))


def mosaic(tower: Tower, size: int, channels: int) -> np.ndarray:
    """Return the filters of a tower as one image, uint8 (height, width, 4), in their order, about
    three rows of them for every four columns, a clear line between.
    """
    pixels = np.frombuffer(bytes.fromhex(tower.pixels), np.uint8)
    filters = pixels.reshape(-1, size, size, channels)
    across = min(MOST_ACROSS, max(1, round(float(np.sqrt(len(filters) * 4 / 3)))))
    down = -(-len(filters) // across)
    image = np.zeros((down, size + 1, across, size + 1, 4), np.uint8)
    for number, each in enumerate(filters):
        row, column = divmod(number, across)
        image[row, :size, column, :size, :3] = each
        image[row, :size, column, :size, 3] = 255
    return image.reshape(down * (size + 1), across * (size + 1), 4)[:-1, :-1]


@styled
def draw_run(run: RunFilters) -> Figure:
    """Return the filters of a run, its towers beside each other, and below, where the images have
    colours, how colourful they are.
    """
    figure = new_figure(4.8, 4.6 if run.measured else 2.4)
    rows = figure.add_gridspec(1 + run.measured, len(run.towers))
    for column, tower in enumerate(run.towers):
        _field(figure.add_subplot(rows[0, column]), run, tower)
    if run.measured:
        _curves(figure.add_subplot(rows[1, :]), [run])
    return figure


@styled
def draw_networks(networks: Sequence[Sequence[RunFilters]]) -> Figure:
    """Return a row for each network: the fields of its first seed's towers, and how colourful the
    filters of all seeds are.
    """
    across = max(len(runs[0].towers) for runs in networks)
    measured = any(run.measured for runs in networks for run in runs)
    figure = new_figure(3.0 + 2.2 * across, 1.9 * len(networks))
    rows = figure.add_gridspec(len(networks), across + measured)
    for row, runs in enumerate(networks):
        for column, tower in enumerate(runs[0].towers):
            title = f"{short(runs[0].label, 2 * LETTERS)}\n" * (column == 0)
            _field(figure.add_subplot(rows[row, column]), runs[0], tower, title)
        if all(run.measured for run in runs):
            _curves(figure.add_subplot(rows[row, across]), runs, row == len(networks) - 1)
    return figure


def _field(axes: Axes, run: RunFilters, tower: Tower, title: str = "") -> None:
    """Draw the filters of a tower."""
    axes.imshow(mosaic(tower, run.size, run.channels), interpolation="none")
    axes.set_axis_off()
    axes.set_title(f"{title}{short(tower.name, LETTERS)}", fontsize=9)


def _curves(axes: Axes, runs: Sequence[RunFilters], named: bool = True) -> None:
    """Draw the shares of the filters of each tower, sorted, in the order of the towers' means; a
    line for each seed.
    """
    for run in runs:
        for place, tower in enumerate(by_colour(run)):
            shares = np.sort(tower.known)
            middles = (np.arange(len(shares)) + 0.5) / len(shares)
            color = COLOURS[place % len(COLOURS)]
            name = tower.name if len(runs) == 1 and len(run.towers) > 1 else ""
            axes.plot(middles, shares, color=color, linewidth=1.5, label=short(name, LETTERS))
    axes.axhline(COLOURFUL, color=GREY, linewidth=0.8, linestyle=":")
    axes.set(xlim=(0, 1), ylim=(0, 1), xticks=[])
    percent_axis(axes)
    axes.set_ylabel("of colour")
    if named:
        axes.set_xlabel("filters of a tower, sorted")
    if len(runs) == 1 and len(runs[0].towers) > 1:
        axes.legend(loc="upper left")
