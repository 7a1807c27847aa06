"""The plot of a confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np

from ensync.report.axes import Lettering, new_figure, short
from ensync.report.style import GREY, INK, RIGHT, WRONG, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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
    classes = len(counts)
    side = min(9.0, 1.6 + 0.44 * classes) if classes <= ANNOTATED else 6.4
    figure = new_figure(side + 0.5, side)
    axes = figure.add_subplot(
        title=title, xlabel="predicted class", ylabel="true class", aspect="equal"
    )
    axes.grid(False)
    axes.spines[:].set_visible(False)
    (_write_counts if classes <= ANNOTATED else _heat_map)(axes, counts, shares, class_names)
    return figure


def _write_counts(
    axes: Axes, counts: np.ndarray, shares: np.ndarray, class_names: Sequence[str]
) -> None:
    """Draw shaded cells (blue where right, orange where wrong) with their counts, which need no
    colour to be read.
    """
    from matplotlib.patches import Rectangle

    classes = len(counts)
    fontsize = 8 if counts.max() < 10_000 else 6.5
    centred: Lettering = {"ha": "center", "va": "center", "fontsize": fontsize, "in_layout": False}
    for (i, j), count in np.ndenumerate(counts):
        if count:
            share = cast(float, shares[i, j])
            shade = 0.08 + 0.8 * share if i == j else min(0.9, 0.06 + 3 * share)
            axes.add_patch(
                Rectangle(
                    (j - 0.5, i - 0.5),
                    1,
                    1,
                    facecolor=RIGHT if i == j else WRONG,
                    alpha=shade,
                    linewidth=0,
                    in_layout=False,
                )
            )
            axes.text(j, i, f"{count}", color="white" if shade > 0.55 else INK, **centred)
        else:
            axes.text(j, i, "\N{MIDDLE DOT}", color=GREY, **centred)
    axes.set(xlim=(-0.5, classes - 0.5), ylim=(classes - 0.5, -0.5))
    names = [short(name) for name in class_names]
    slanted: Lettering = {}
    if max(map(len, names)) > 3:
        slanted = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(classes), names, **slanted)
    axes.set_yticks(range(classes), names)
    axes.tick_params(length=0)


def _heat_map(
    axes: Axes, counts: np.ndarray, shares: np.ndarray, class_names: Sequence[str]
) -> None:
    """Draw the shares of each row as an image, darker is more (a power below 1, so that mistakes
    are seen).
    """
    from matplotlib.colors import to_rgb
    from matplotlib.ticker import MaxNLocator

    image = np.empty((*counts.shape, 4))
    image[..., :3] = to_rgb(WRONG)
    image[np.arange(len(counts)), np.arange(len(counts)), :3] = to_rgb(RIGHT)
    image[..., 3] = shares**0.4
    axes.imshow(image, interpolation="nearest")
    axes.set(xlabel="predicted class (number)", ylabel="true class (number)")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(10, integer=True))
