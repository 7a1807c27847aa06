"""How figures look and how they are written: legible, colour-blind safe, the same bytes each
time, light and dark from one SVG.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING

from ensync.report.files import write_whole
from ensync.report.results import Contestant

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, FAINT = "#1a1a1b", "#d9d9d8"  # text and frames; grid lines
PAPER = "#fefefe"  # what hollow marks are filled with
BLUE, ORANGE, GREEN, PURPLE, SKY, GREY = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#b0578d",
    "#3e9fd6",
    "#6f6f73",
)
RIGHT, WRONG = "#0073b3", "#d65f01"  # cells of a confusion matrix, which carry figures
SERIES = (
    BLUE,
    ORANGE,
    GREEN,
    PURPLE,
    SKY,
    GREY,
)  # after Okabe and Ito's palette, distinct without colour vision
NAMED: dict[str, str] = {
    Contestant.ONE_RANK: GREY,
    Contestant.SYNCHRONOUS: BLUE,
    Contestant.ENSEMBLE: ORANGE,
}
NAMED_MARKS: dict[str, str] = {  # so that none rests on its colour
    Contestant.ONE_RANK: "P",
    Contestant.SYNCHRONOUS: "o",
    Contestant.ENSEMBLE: "^",
}
MARKS = ("o", "s", "^", "D", "v", "P")
FAMILY = ("DejaVu Sans", "sans-serif")

# on the page a colour is a variable of its style sheet, which knows light from dark; elsewhere it
# is itself
VARIABLES = {
    INK: "ink",
    FAINT: "faint",
    PAPER: "paper",
    BLUE: "blue",
    ORANGE: "orange",
    GREEN: "green",
    PURPLE: "purple",
    SKY: "sky",
    GREY: "grey",
    RIGHT: "right",
    WRONG: "wrong",
}

SETTINGS = {
    "font.family": FAMILY[0],
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "axes.labelsize": 9.5,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "legend.handlelength": 2.4,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.7,
    "axes.edgecolor": INK,
    "axes.linewidth": 0.8,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "figure.dpi": 100,
    "svg.fonttype": "none",
    "svg.image_inline": True,
}


def mark_of(name: str) -> str:
    """Return the mark of a strategy, the same in every plot."""
    return NAMED_MARKS.get(name, "s")


@contextmanager
def house_style(**more: object) -> Iterator[None]:
    """Set matplotlib's settings to ours inside the block, whatever the user's own matplotlibrc
    says.
    """
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS | more)
        yield


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Make a function that draws a figure do so in our style."""

    @wraps(draw)
    def inside(*args: object, **kwargs: object) -> Figure:
        with house_style():
            return draw(*args, **kwargs)

    return inside


def to_svg(figure: Figure, name: str, label: str) -> str:
    """Return an SVG element for a page: as wide as its place allows, its colours variables of the
    page.

    name: unique on the page, the root of its ids; label: what a screen reader says. The same figure
    gives the same bytes.
    """
    buffer = io.StringIO()
    with house_style(**{"svg.hashsalt": name}):
        figure.savefig(
            buffer,
            format="svg",
            transparent=True,
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    svg = buffer.getvalue()
    return _for_page(svg[svg.index("<svg") :], name, label)


def _for_page(svg: str, name: str, label: str) -> str:
    """Return matplotlib's SVG element with ids unique to the page, without its size in points,
    colours as variables.
    """
    from markupsafe import escape

    from ensync.core.errors import printable

    used = set(re.findall(r"(?:url\(#|href=\"#)([^\")]+)", svg))
    svg = re.sub(
        r' id="([^"]*)"', lambda found: f' id="{name}-{found[1]}"' if found[1] in used else "", svg
    )
    svg = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", svg)
    size = re.search(r'width="([\d.]+)pt" height="([\d.]+)pt" viewBox="([^"]+)"', svg)
    assert size is not None, "matplotlib writes these three"
    width, height, box = size.groups()
    svg = svg[svg.index(">") + 1 :]
    frame = (
        f'<svg viewBox="{box}" role="img" aria-label="{escape(printable(label))}" '
        f'style="max-width:{float(width) * 4 / 3:.0f}px;stroke-linejoin:round">'
    )
    return frame + _shorter(svg).strip()


def _shorter(svg: str) -> str:
    """Return the SVG without what no reader sees: comments, metadata, blanks and groups around
    nothing.
    """
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<[^>]*>", lambda tag: _shorter_tag(tag[0]), svg)
    svg = re.sub(r"\s*\n\s*", " ", re.sub(r">\s+<", "><", svg))
    for _ in range(4):  # groups in groups
        svg = re.sub(r"<g/>|<g></g>|<defs></defs>", "", svg)
        svg = re.sub(r"<g>(<text [^>]*>[^<]*</text>)</g>", r"\1", svg)
    return svg


def _shorter_tag(tag: str) -> str:
    """Return a tag without the font's name, turns by nothing and digits beyond a tenth of a
    point, its colours as variables.
    """
    tag = re.sub(r"font-family: [^;\"]*; ?| transform=\"rotate\(-0 [^)]*\)\"", "", tag)
    tag = re.sub(r"([1-9]\d*\.\d|0\.\d\d)\d+(?=[ \",;)])", r"\1", tag)
    for color, variable in VARIABLES.items():
        tag = tag.replace(color, f"var(--{variable})")
    return tag


def to_png(figure: Figure, dpi: int = 150) -> bytes:
    """Return the figure as a PNG file on white, of `dpi` dots an inch."""
    buffer = io.BytesIO()
    with house_style():
        figure.savefig(
            buffer, format="png", dpi=dpi, facecolor="white", metadata={"Software": None}
        )
    return buffer.getvalue()


def save_png(figure: Figure, path: Path | str, dpi: int = 150) -> Path:
    """Write the figure as a PNG file on white, whole or not at all, and return its path."""
    write_whole(Path(path), to_png(figure, dpi))
    return Path(path)
