import io
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from matplotlib.colors import to_hex

from ensync.report import curves, figures, style
from ensync.report.axes import colors_of
from ensync.report.confusion import confusion_difference, confusion_matrix
from ensync.report.results import ScalingRow, SweepRow


def axes_of(figure):
    return figure.axes[0]


def line_with(axes, label):
    return next(line for line in axes.get_lines() if line.get_label() == label)


@pytest.fixture
def all_figures(comparison, sweep, counts):
    """Return every kind of figure by name."""
    names = comparison["class_names"]
    scaling = {
        "synchronous": [
            ScalingRow(
                strategy="synchronous", ranks=r, seconds=1, speedup=r**0.9, efficiency=r**-0.1
            )
            for r in (1, 2, 4, 8, 16, 32)
        ]
    }
    return {
        "epochs": curves.accuracy_by_epoch(comparison["histories"]),
        "seconds": curves.accuracy_by_seconds(
            comparison["histories"], {"synchronous": (4.7, 0.897)}
        ),
        "members": figures.accuracy_by_members(comparison["accuracy_by_members"]),
        "each": figures.accuracy_of_members([0.86, None, 0.87], {"soft_voting": 0.88}),
        "confusion": confusion_matrix(counts, names, "synchronous"),
        "heat": confusion_matrix(
            np.eye(100, dtype=int) * 9 + 1, [str(i) for i in range(100)], "synchronous"
        ),
        "sweep": figures.sweep(sweep["key"], [SweepRow(**row) for row in sweep["rows"]]),
        "scaling": figures.scaling(scaling),
    }


def test_curves_show_the_records(comparison):
    axes = axes_of(curves.accuracy_by_epoch(comparison["histories"]))
    drawn = line_with(axes, "synchronous")
    records = comparison["histories"]["synchronous"]
    np.testing.assert_allclose(
        drawn.get_ydata(), [record["validation_accuracy"] for record in records]
    )
    np.testing.assert_array_equal(drawn.get_xdata(), [record["epoch"] for record in records])
    assert sum(line.get_linestyle() == "--" for line in axes.get_lines()) == 6, (
        "one rank, synchronous, four members"
    )
    assert axes.get_xlabel() == "epoch" and "%" in axes.yaxis.get_major_formatter()(0.5, 0)
    legend = axes.figure.legends[0]
    assert "ensemble: 4 members" in [entry.get_text() for entry in legend.get_texts()]
    marks = {line.get_marker() for line in axes.get_lines() if line.get_linestyle() == "-"}
    assert len(marks) == 3, "none rests on its colour"


def test_time_is_in_seconds_and_results_are_large_marks(comparison):
    axes = axes_of(curves.accuracy_by_seconds(comparison["histories"], {"ensemble": (3.6, 0.875)}))
    large = [line for line in axes.get_lines() if line.get_linestyle() == "None"]
    assert len(large) == 1 and list(large[0].get_xdata()) == [3.6] and "(s)" in axes.get_xlabel()


def test_missing_figures_are_gaps(comparison):
    comparison["histories"]["synchronous"][3]["validation_accuracy"] = None
    axes = axes_of(curves.accuracy_by_epoch(comparison["histories"]))
    assert np.isnan(line_with(axes, "synchronous").get_ydata()[3])


def heights(axes, *accuracies):
    """Return where accuracies stand, as shares of the axis's height."""
    places = axes.transData.transform([(axes.get_xlim()[0], value) for value in accuracies])
    return axes.transAxes.inverted().transform(places)[:, 1]


def test_the_first_epochs_are_seen_and_do_not_press_the_rest_into_a_line():
    records = [
        {
            "epoch": e,
            "elapsed": e,
            "train_accuracy": 0.97,
            "validation_accuracy": 0.1 if e == 1 else 0.97 + e / 1000,
        }
        for e in range(1, 21)
    ]
    first, low, high, more = heights(
        axes_of(curves.accuracy_by_epoch({"synchronous": records})), 0.1, 0.972, 0.99, 0.993
    )
    assert 0 <= first < 0.05 and high - low > 0.15 and high < 1 and more - high < 0.1
    timed = axes_of(curves.accuracy_by_seconds({"synchronous": records}, {"synchronous": (20, 0)}))
    assert timed.get_ylim()[0] <= 0, "a result is never cut off"


@pytest.mark.parametrize("best", [0.5, 0.9, 1.0])
def test_three_tenths_of_a_point_are_never_magnified(best):
    """Over members and over epochs alike they are at most a tenth of the height."""
    grown = axes_of(figures.accuracy_by_members({"soft_voting": [best - 0.003, best]}))
    records = [
        {"epoch": e, "train_accuracy": best, "validation_accuracy": best - 0.003 * (e == 1)}
        for e in (1, 2)
    ]
    for axes in (grown, axes_of(curves.accuracy_by_epoch({"synchronous": records}))):
        low, high = heights(axes, best - 0.003, best)
        assert 0 <= low < high <= 1 and high - low < 0.1 + 1e-9


@pytest.mark.parametrize(
    ("epochs", "ticks"),
    [(1, [1]), (4, [1, 2, 3, 4]), (12, [2, 4, 6, 8, 10, 12]), (17, [5, 10, 17])],
)
def test_the_last_epoch_has_its_tick(epochs, ticks):
    records = [
        {"epoch": e, "train_accuracy": 0.9, "validation_accuracy": 0.9}
        for e in range(1, epochs + 1)
    ]
    axes = axes_of(curves.accuracy_by_epoch({"synchronous": records}))
    assert axes.get_xticks().tolist() == ticks


def test_a_run_that_diverged_at_once_has_a_plot(recwarn):
    records = [{"epoch": 1, "elapsed": 1, "train_accuracy": None, "validation_accuracy": None}]
    style.to_svg(curves.accuracy_by_epoch({"synchronous": records}), "e", "l")
    assert not recwarn.list


def test_one_epoch_is_a_point_that_can_be_seen(comparison):
    histories = {
        name: [record for record in records if record["epoch"] == 1]
        for name, records in comparison["histories"].items()
    }
    assert (
        line_with(axes_of(curves.accuracy_by_epoch(histories)), "synchronous").get_marker() == "o"
    )


def test_strategies_keep_their_colors():
    assert colors_of(["ensemble", "other", "synchronous"]) == colors_of(
        ["ensemble", "other", "synchronous"]
    )
    assert (
        colors_of(["synchronous"])["synchronous"]
        == colors_of(["other", "synchronous"])["synchronous"]
    )
    many = colors_of([str(i) for i in range(20)])
    assert len(many) == 20


def test_a_confusion_matrix_writes_every_count(counts, comparison):
    axes = axes_of(confusion_matrix(counts, comparison["class_names"], "t"))
    written = {text.get_position()[::-1]: text.get_text() for text in axes.texts}
    for place, count in np.ndenumerate(counts):
        assert written[place] == (str(count) if count else "\N{MIDDLE DOT}")
    assert (
        axes.get_ylabel() == "true class"
        and [label.get_text() for label in axes.get_yticklabels()] == comparison["class_names"]
    )


def test_class_names_are_not_read_as_formulas(counts):
    names = ["$x^2$", "a_b\\frac", "50 %", "x" * 40, *"abcdef"]
    svg = style.to_svg(confusion_matrix(counts, names, "t"), "c", "l")
    for name in [*names[:3], "x" * 13 + "\N{HORIZONTAL ELLIPSIS}"]:
        assert f">{name}<" in svg


def test_many_classes_become_a_heat_map(all_figures):
    axes = axes_of(all_figures["heat"])
    assert not axes.texts and axes.images[0].get_array().shape == (100, 100, 4)


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ((1e-4, 1e-3, 1e-2), "log"),
        ((1, 2, 4, 8), "linear"),
        ((0.0, 0.1, 10.0), "linear"),
        (("sgd", "adam"), "linear"),
    ],
)
def test_a_wide_sweep_has_a_logarithmic_axis(values, scale):
    rows = [
        SweepRow(value=value, test_accuracy=0.9, validation_accuracy=0.9, seconds=1.0)
        for value in values
    ]
    upper, lower = figures.sweep("section.key", rows).axes
    assert (
        lower.get_xscale() == scale
        and lower.get_xlabel() == "section.key"
        and "(s)" in lower.get_ylabel()
    )


def test_a_sweep_marks_values_without_a_result(sweep):
    upper = figures.sweep(sweep["key"], [SweepRow(**row) for row in sweep["rows"]]).axes[0]
    assert list(line_with(upper, "no result").get_xdata()) == [0.03]


def test_scaling_has_the_ideal_beside_it(all_figures):
    left, right = all_figures["scaling"].axes
    np.testing.assert_array_equal(line_with(left, "ideal").get_ydata(), [1, 2, 4, 8, 16, 32])
    np.testing.assert_array_equal(right.get_lines()[0].get_ydata(), np.ones(6))


def test_more_ranks_than_cores_are_hollow():
    rows = [
        ScalingRow(
            strategy="ensemble", ranks=r, seconds=1, speedup=r, efficiency=1, oversubscribed=r > 2
        )
        for r in (1, 2, 4)
    ]
    left, right = figures.scaling({"ensemble": rows}).axes
    for axes, value in ((left, 4), (right, 1)):
        hollow = [line for line in axes.get_lines() if line.get_markerfacecolor() == style.PAPER]
        assert [line.get_xydata().tolist() for line in hollow] == [[[4, value]]]


def fills(axes):
    """Return the colours of the cells."""
    (cells,) = axes.collections
    return {to_hex(color) for color in cells.get_facecolors()}


def test_a_difference_of_matrices_is_signed_and_better_is_blue():
    first, second = np.array([[9, 1], [0, 10]]), np.array([[7, 3], [1, 9]])
    axes = axes_of(confusion_difference(first, second, ["a", "b"], "t"))
    written = {text.get_position()[::-1]: text.get_text() for text in axes.texts}
    assert written == {(0, 0): "+2", (0, 1): "-2", (1, 0): "-1", (1, 1): "+1"}
    blue = style.RIGHT
    assert fills(axes) == {blue}
    turned = axes_of(confusion_difference(second, first, ["a", "b"], "t"))
    assert fills(turned) == {style.WRONG}
    many = np.eye(30, dtype=int)
    assert axes_of(confusion_difference(many, 2 * many, [""] * 30, "t")).images


def test_a_lost_member_is_a_cross(all_figures):
    axes = axes_of(all_figures["each"])
    assert list(line_with(axes, "lost").get_xdata()) == [1] and "87.0 %" in [
        text.get_text() for text in axes.texts
    ]


def test_every_svg_is_sound_and_self_contained(all_figures):
    for name, figure in all_figures.items():
        svg = style.to_svg(figure, name, f"a <label> of {name}")
        root = ElementTree.fromstring(svg.replace("xlink:", ""))
        assert root.get("aria-label") == f"a <label> of {name}"
        ids = [element.get("id") for element in root.iter() if element.get("id")]
        assert len(ids) == len(set(ids)) and all(value.startswith(name) for value in ids)
        for element in root.iter():
            assert element.get("href", "#").startswith(("#", "data:image/png;base64,"))
            assert element.get("href", "#").removeprefix("#") in ["", *ids] or element.get(
                "href"
            ).startswith("data:")
        assert "http" not in svg and "2026" not in svg and "matplotlib" not in svg.lower()


def test_the_same_figures_drawn_anew_are_the_same_bytes(comparison):
    first, second = (
        style.to_svg(figures.accuracy_by_members(comparison["accuracy_by_members"]), "m", "l")
        for _ in range(2)
    )
    assert first == second


def test_colors_follow_the_page(all_figures):
    svg = style.to_svg(all_figures["epochs"], "epochs", "")
    assert (
        "var(--blue)" in svg
        and "var(--ink)" in svg
        and style.BLUE not in svg
        and "#000000" not in svg
    )


def test_shortening_leaves_the_words_alone():
    svg = style.to_svg(
        figures.accuracy_of_members([0.8525, 0.862], title=f"1.23456 {style.BLUE} font-family: x;"),
        "m",
        "l",
    )
    for words in ("85.2 %", "86.2 %", f"1.23456 {style.BLUE} font-family: x;"):
        assert f">{words}<" in svg


def test_the_users_own_matplotlib_settings_stay(comparison):
    import matplotlib

    with matplotlib.rc_context({"font.size": 33, "svg.fonttype": "path"}):
        svg = style.to_svg(figures.accuracy_by_members(comparison["accuracy_by_members"]), "m", "l")
        assert matplotlib.rcParams["font.size"] == 33
    assert "<text" in svg and "33px" not in svg


def test_png_files_appear_whole(all_figures, tmp_path):
    from PIL import Image

    path = style.save_png(all_figures["scaling"], tmp_path / "scaling.png", dpi=50)
    with Image.open(io.BytesIO(path.read_bytes())) as image:
        assert image.size == (400, 200) and image.getpixel((0, 0))[:3] == (255, 255, 255)
    assert [file.name for file in tmp_path.iterdir()] == ["scaling.png"]


def test_pyplot_is_not_touched():
    import sys

    assert "matplotlib.pyplot" not in sys.modules
