"""The plot of a confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np

from ensync.report.axes import Lettering, new_figure, short
from ensync.report.style import GREY, INK, RIGHT, WRONG, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CENTRED: Lettering = {"ha": "center", "va": "center", "in_layout": False}
ANNOTATED = 20  # classes up to which a confusion matrix shows its counts


@styled
def confusion_matrix(
    counts: Sequence[Sequence[int]] | np.ndarray, class_names: Sequence[str], title: str
) -> Figure:
    """Return the confusion counts (classes, classes) with row = true class; shades are shares of
    the row.

    Up to 20 classes every count is written; above, it is a heat map.
    """
    counts = np.asarray(counts)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, axes = _matrix(len(counts), title)
    if len(counts) <= ANNOTATED:
        _write_counts(axes, counts, shares)
        _name_classes(axes, class_names)
    else:
        right = np.eye(len(counts), dtype=bool)[..., None]
        _draw_image(axes, np.where(right, _color(RIGHT), _color(WRONG)), shares)
    return figure


@styled
def confusion_difference(
    first: np.ndarray, second: np.ndarray, class_names: Sequence[str], title: str
) -> Figure:
    """Return by how many images two confusion counts (classes, classes) differ, first - second;
    blue where the first is better, orange where it is worse, darker by its share of the row.

    Up to 20 classes every difference is written; above, it is a heat map.
    """
    counts = np.asarray(first) - np.asarray(second)
    better = np.where(np.eye(len(counts), dtype=bool), counts, -counts)
    shares = better / np.maximum(np.asarray(first).sum(axis=1, keepdims=True), 1)
    figure, axes = _matrix(len(counts), title)
    if len(counts) <= ANNOTATED:
        _write_differences(axes, counts, shares)
        _name_classes(axes, class_names)
    else:
        _draw_image(axes, np.where((shares > 0)[..., None], _color(RIGHT), _color(WRONG)), shares)
    return figure


def _matrix(classes: int, title: str) -> tuple[Figure, Axes]:
    """Return a figure for a matrix of so many classes, empty."""
    side = min(9.0, 1.6 + 0.44 * classes) if classes <= ANNOTATED else 6.4
    figure = new_figure(side + 0.5, side)
    axes = figure.add_subplot(
        title=title, xlabel="predicted class", ylabel="true class", aspect="equal"
    )
    axes.grid(False)
    axes.spines[:].set_visible(False)
    return figure, axes


class Cell(NamedTuple):
    """A cell that is filled: row, column, colour, and how dense that is, 0 to 1."""

    row: int
    column: int
    color: str
    shade: float


def _write_differences(axes: Axes, counts: np.ndarray, better: np.ndarray) -> None:
    """Draw cells (blue where better, orange where worse) with their signed differences."""
    cells = []
    for (i, j), count in np.ndenumerate(counts):
        if count:
            share = cast(float, better[i, j])
            shade = min(0.9, 0.06 + 6 * abs(share))
            cells.append(Cell(i, j, RIGHT if share > 0 else WRONG, shade))
    _fill(axes, cells)
    _write(axes, counts, cells, "{:+d}", 8)


def _write_counts(axes: Axes, counts: np.ndarray, shares: np.ndarray) -> None:
    """Draw shaded cells (blue where right, orange where wrong) with their counts, which need no
    colour to be read.
    """
    cells = []
    for (i, j), count in np.ndenumerate(counts):
        if count:
            share = cast(float, shares[i, j])
            shade = 0.08 + 0.8 * share if i == j else min(0.9, 0.06 + 3 * share)
            cells.append(Cell(i, j, RIGHT if i == j else WRONG, shade))
    _fill(axes, cells)
    _write(axes, counts, cells, "{}", 8 if counts.max() < 10_000 else 6.5)


def _fill(axes: Axes, cells: Sequence[Cell]) -> None:
    """Draw cells without their counts, all at once, since as many patches take longer."""
    from matplotlib.collections import PatchCollection
    from matplotlib.colors import to_rgba
    from matplotlib.patches import Rectangle

    squares = [Rectangle((cell.column - 0.5, cell.row - 0.5), 1, 1) for cell in cells]
    colors = [to_rgba(cell.color, cell.shade) for cell in cells]
    drawn = PatchCollection(squares, facecolors=colors, linewidths=0)
    drawn.set_in_layout(False)
    axes.add_collection(drawn, autolim=False)


def _write(
    axes: Axes, counts: np.ndarray, cells: Sequence[Cell], form: str, fontsize: float
) -> None:
    """Write counts (classes, classes), white in dense cells, and a dot in those that are empty."""
    for cell in cells:
        color = "white" if cell.shade > 0.55 else INK
        said = form.format(counts[cell.row, cell.column])
        axes.text(cell.column, cell.row, said, color=color, **CENTRED, fontsize=fontsize)
    for i, j in zip(*np.nonzero(counts == 0), strict=True):
        axes.text(j, i, "\N{MIDDLE DOT}", color=GREY, **CENTRED, fontsize=fontsize)


def _name_classes(axes: Axes, class_names: Sequence[str]) -> None:
    """Give a matrix of cells its limits, and its rows and columns the names of their classes."""
    classes = len(class_names)
    axes.set(xlim=(-0.5, classes - 0.5), ylim=(classes - 0.5, -0.5))
    names = [short(name) for name in class_names]
    slanted: Lettering = {}
    if max(map(len, names)) > 3:
        slanted = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(classes), names, **slanted)
    axes.set_yticks(range(classes), names)
    axes.tick_params(length=0)


def _color(name: str) -> tuple[float, float, float]:
    from matplotlib.colors import to_rgb

    return to_rgb(name)


def _draw_image(axes: Axes, colors: np.ndarray, shares: np.ndarray) -> None:
    """Draw shares as an image, of these colours (classes, classes, 3); darker is more (a power
    below 1, so that mistakes are seen).
    """
    from matplotlib.ticker import MaxNLocator

    image = np.concatenate([colors, np.abs(shares)[..., None] ** 0.4], axis=-1)
    axes.imshow(image, interpolation="nearest")
    axes.set(xlabel="predicted class (number)", ylabel="true class (number)")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(10, integer=True))
