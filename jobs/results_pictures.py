"""The pictures beside RESULTS.md, for light and dark pages."""

import re
from collections.abc import Mapping
from functools import partial

from results_text import wrapped

from ensync.report import style
from ensync.report.filters.picture import draw_networks
from ensync.report.filters.results import FiltersResult
from ensync.report.results import from_json
from ensync.report.study_along_figures import by_bytes, sends
from ensync.report.study_figures import headline
from ensync.report.study_results import StudyResult

# Of studies/; beside these each study over what ranks send has a picture.
PICTURED = ("fashion_mnist_mlp", "fashion_mnist_mlp_per_network")
FONTS = "DejaVu Sans, Verdana, sans-serif"
LIGHT = {
    "ink": "#1a1a1b",
    "faint": "#d9d9d8",
    "blue": "#0072b2",
    "orange": "#d55e00",
    "grey": "#6f6f73",
    "green": "#009e73",
    "purple": "#b0578d",
    "sky": "#3e9fd6",
}
DARK = {
    "ink": "#e6edf3",
    "faint": "#3d444d",
    "blue": "#4aa9e6",
    "orange": "#f28a45",
    "grey": "#9d9fa6",
    "green": "#2fc295",
    "purple": "#d98bbb",
    "sky": "#8acbf2",
}


def picture(kept: Mapping, colors: Mapping[str, str]) -> str:
    """Return a study's accuracy against cost, or against bytes, as an SVG file for a light or a
    dark page.
    """
    study = from_json(StudyResult, kept)
    draw, what = (by_bytes, "what is sent") if sends(study) else (headline, "cost")
    label = f"accuracy against {what}, {study.dataset.name}"
    return _svg(style.to_svg(draw(study), "study", label), colors)


def filter_picture(kept: Mapping, colors: Mapping[str, str]) -> str:
    """Return the filters of a study's networks as an SVG file for a light or a dark page."""
    result = from_json(FiltersResult, kept)
    figure = draw_networks([result.of(each.label) for each in result.found])
    return _svg(style.to_svg(figure, "filters", "filters of the first layer"), colors)


def _svg(svg: str, colors: Mapping[str, str]) -> str:
    """Return a page's SVG element as a file of its own with these colours, in short lines."""
    box = re.search(r'viewBox="[\d.-]+ [\d.-]+ ([\d.]+) ([\d.]+)"', svg)
    for name, color in colors.items():
        svg = svg.replace(f"var(--{name})", color)
    width, height = box.groups()
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    start = f'<svg {names} width="{width}pt" height="{height}pt" font-family="{FONTS}"'
    svg = re.sub(r"(</g>|/>|</text>)(?=<)", r"\1\n", svg.replace("<svg", start, 1))
    # an end of line is a blank in a tag, but nothing in a text
    svg = re.sub(r">[^<]+<", lambda found: found[0].replace(" ", "\N{NO-BREAK SPACE}"), svg)
    in_parts = partial(re.sub, "(.{90})", r"\1 ")  # of base64 blanks are no part
    svg = re.sub(r'(?<=base64, )[^"]+', lambda found: in_parts(found[0]), svg)
    return "\n".join("\n".join(wrapped(line)) for line in svg.splitlines()) + "\n"


def pictures(studies: Mapping[str, Mapping]) -> dict[str, str]:
    """Return the picture files of what is kept of studies, by name."""
    over = [name for name, kept in studies.items() if sends(from_json(StudyResult, kept))]
    names = [*PICTURED, *(name.removeprefix("studies-") for name in over)]
    made = {}
    for shade, colors in (("light", LIGHT), ("dark", DARK)):
        for name in names:
            made[f"{name}-{shade}.svg"] = picture(studies[f"studies-{name}"], colors)
        for name, kept in studies.items():
            if "filters" in kept:
                stem = f"{name.removeprefix('studies-')}_filters"
                made[f"{stem}-{shade}.svg"] = filter_picture(kept["filters"], colors)
    return made
