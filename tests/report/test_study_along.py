"""The page of a study over one setting: what it says of the values, and where these are drawn."""

import json
from dataclasses import replace

import numpy as np
import pytest
from report.html_reader import Reader
from report.study_sample import make_pair, make_study

from ensync.report import study_along_figures as figures
from ensync.report import study_files, study_page, study_tables
from ensync.report.results import from_json
from ensync.report.study_results import (
    PredictedTimes,
    Range,
    Spread,
    StudyAxis,
    StudyResult,
)
from ensync.report.study_verdict import study_verdict

VALUES = {1: (0.91, 64_000.0), 16: (0.91, 4_000.0), 256: (0.89, 250.0), "never": (0.6, 0.0)}


def study_over(setting="communication.every", found=VALUES, ranks=(4,), **cost) -> StudyResult:
    """Return a study of these values, with their accuracies and bytes of a sample."""
    key = setting.rpartition(".")[2]
    made = make_study(
        tuple(
            (f"{key}_{value}", f"{key} = {value}", count, True, 1, accuracy, 20.0)
            for count in ranks
            for value, (accuracy, _) in found.items()
        )
    )
    contestants = [
        replace(
            each,
            cost=replace(each.cost, bytes_per_sample=Spread(mean=size), **cost),
            confusion=[],  # other figures, which take time to draw
            reliability=[],
        )
        for each, (_, size) in zip(made.contestants, list(found.values()) * len(ranks))
    ]
    pairs = [
        replace(make_pair(first, second, 0), verdict=verdict)
        for count in ranks
        for first, second, verdict in _pairs([one for one in contestants if one.ranks == count])
    ]
    axis = StudyAxis(setting=setting, values={f"{key}_{value}": value for value in found})
    return replace(made, contestants=contestants, pairs=pairs, over=axis)


def _pairs(contestants):
    """Yield the first with each other one, the last two turned, and what is said of them."""
    first, *others = contestants
    for place, other in enumerate(others):
        verdict = ("equal", "first", "first")[place % 3]
        yield (first, other, verdict) if place else (other, first, verdict)


def drawn(figure) -> dict[str, float]:
    """Return where the values stand on the horizontal axis, by what stands above them."""
    return {each.get_text(): each.xy[0] for each in figure.axes[0].texts}


def test_the_values_are_told_beside_the_first_one():
    made = study_over()
    verdict = study_verdict(made)
    first, *rest = made.contestants
    by = [100 * (each.accuracy.mean - first.accuracy.mean) for each in rest]
    share = 100 * first.accuracy.mean
    assert verdict[0] == (
        f"On 4 ranks communication.every = 1 has {share:.2f} % of the test images right. In points "
        f"beside it, practically equal: 16 ({by[0]:+.2f}); worse: 256 ({by[1]:+.2f}), never "
        f"({by[2]:+.2f})."
    )
    assert verdict[1].startswith(
        "Of those that are as accurate at least, 16 sends least: 4.0 kB a sample in place of "
        "64.0 kB, 16.0x less, and takes "
    )
    assert len(verdict) == 2


def test_seconds_that_are_no_measure_are_not_told():
    made = study_over(oversubscribed=True)
    assert study_verdict(made)[1].endswith("64.0 kB, 16.0x less.")
    told = Reader(study_page.study_page(made)).text()
    assert "Seconds are not compared, since there were more threads than cores." in told
    assert "seconds of training, measured here" not in told
    assert (
        "seconds of training, measured here" in Reader(study_page.study_page(study_over())).text()
    )


def test_nothing_is_said_of_bytes_where_none_are_saved():
    same = {value: (accuracy, 64_000.0) for value, (accuracy, _) in VALUES.items()}
    assert len(study_verdict(study_over(found=same))) == 1
    none = {value: (accuracy, None) for value, (accuracy, _) in VALUES.items()}
    assert len(study_verdict(study_over(found=none))) == 1


def test_where_nothing_was_compared_the_verdict_says_so():
    made = replace(study_over(found={1: VALUES[1]}), pairs=[], cells_left=5)
    told = study_verdict(made)
    assert told[0].startswith("There is nothing to compare yet") and "5 of" in told[1]


def test_values_stand_at_their_bytes_and_nothing_left_of_them():
    figure = figures.by_bytes(study_over())
    places, axes = drawn(figure), figure.axes[0]
    assert {key: places[key] for key in ("1", "16", "256")} == {"1": 64e3, "16": 4e3, "256": 250}
    assert axes.get_xscale() == "log" and places["never"] < 250
    ticks = dict(zip(axes.get_xticks(), (each.get_text() for each in axes.get_xticklabels())))
    assert ticks.pop(places["never"]) == "0 B"
    assert ticks == {1e3: "1 kB", 1e4: "10 kB", 1e5: "100 kB"}
    line = next(each for each in axes.get_lines() if each.get_linestyle() == ":")
    assert places["never"] < line.get_xdata()[0] < 250
    low, high = axes.get_xlim()
    assert low < places["never"] and 64e3 < high


def test_without_zero_all_stand_at_their_bytes():
    known = {value: VALUES[value] for value in (1, 16)}
    found = figures.by_bytes(study_over(found=known))
    assert drawn(found) == {"1": 64e3, "16": 4e3}
    assert not [line for line in found.axes[0].get_lines() if line.get_linestyle() == ":"]
    made = study_over(found=known, oversubscribed=True)
    assert "0 B is left of" not in study_page.along(made)[0]["caption"]
    nothing = {value: (0.9, 0.0) for value in (1, 4)}  # of one rank
    assert len(set(drawn(figures.by_bytes(study_over(found=nothing))).values())) == 1


def test_far_accuracies_are_shown_by_their_errors():
    """So that differences between the good ones are seen beside a bad one."""
    assert "log of the error" in figures.by_bytes(study_over()).axes[0].get_ylabel()
    near = {value: VALUES[value] for value in (1, 16, 256)}
    assert "log" not in figures.by_bytes(study_over(found=near)).axes[0].get_ylabel()


@pytest.mark.parametrize(
    "setting, values, places, scale",
    [
        ("optimizer.learning_rate", [1e-3, 1e-2, 1e-1], [1e-3, 1e-2, 1e-1], "log"),
        ("training.batch", [32, 64], [32, 64], "linear"),
        ("optimizer.momentum", [0.0, 0.9], [0.0, 0.9], "linear"),
        ("network.activation", ["relu", "tanh"], [0, 1], "linear"),
        ("network.hidden", [[64, 32], [8]], [0, 1], "linear"),
        ("optimizer.decoupled", [True, False], [0, 1], "linear"),
        ("training.batch", [32, "full"], [0, 1], "linear"),
    ],
)
def test_other_settings_stand_at_their_values(setting, values, places, scale):
    made = study_over(setting, {str(value): (0.9, 1.0) for value in values})
    values = dict(zip(made.over.values, values))
    made = replace(made, over=replace(made.over, values=values))
    figure = figures.by_value(made)
    axes = figure.axes[0]
    assert list(drawn(figure).values()) == places and axes.get_xscale() == scale
    assert axes.get_xlabel() == setting
    labels = [tick.get_text() for tick in axes.get_xticklabels()]
    if places == [0, 1]:
        assert labels == list(drawn(figure))


def test_each_number_of_ranks_has_its_line_and_others_theirs():
    made = study_over(ranks=(2, 4))
    other = replace(made.contestants[0], name="one_rank", label="one rank", ranks=1)
    unknown = replace(other, cost=replace(other.cost, bytes_per_sample=None))
    for beside in (other, unknown):
        figure = figures.by_bytes(replace(made, contestants=[beside, *made.contestants]))
        labels = [each.get_text() for each in figure.legends[0].get_texts()]
        assert labels == ["2 ranks", "4 ranks", "one rank, 1 rank"]
    assert study_verdict(made)[0].startswith("On 4 ranks")


def test_predicted_seconds_have_a_line_for_each_number_of_nodes_and_a_table():
    made = study_over(oversubscribed=True)
    times = [
        PredictedTimes(
            nodes=nodes,
            seconds={"every_1": 900.0 / nodes, "every_16": 300.0 / nodes, "every_never": 9.0},
            latency=3e-5,
            bandwidth=1.25e9,
        )
        for nodes in (10, 100)
    ]
    made = replace(made, predicted=times)
    figure = figures.by_prediction(made)
    assert [each.get_text() for each in figure.legends[0].get_texts()] == ["10 nodes", "100 nodes"]
    found = [(each.get_text(), each.xy[0]) for each in figure.axes[0].texts]
    assert found == [
        *[("1", 90.0), ("16", 30.0), ("never", 9.0)],
        *[("1", 9.0), ("16", 3.0), ("never", 9.0)],
    ]
    table = study_tables.predicted_table(made)
    assert table.heads[1:] == ["10 nodes", "100 nodes"]
    assert table.rows[1] == ["every = 16", "30.0", "3.00"] and len(table.rows) == 3
    assert "take 30 us a message and pass 1.2 GB a second" in table.notes[0]
    told = study_page.along(made)
    assert len(told) == 2 and told[1]["caption"] == table.notes[0]
    assert study_tables.predicted_table(make_study()).rows == []


def test_bytes_of_a_sample_are_in_every_table(tmp_path):
    made = study_over()
    files = study_files.write_study(made, tmp_path)
    text = {kind: path.read_text() for kind, path in files.items()}
    assert "bytes_per_sample,bytes_per_sample_sd" in text["table"] and ",64000.0," in text["table"]
    for kind in ("markdown", "latex", "page"):
        assert "sent a sample" in text[kind] and "64.0 kB" in text[kind], kind
    assert from_json(StudyResult, json.loads(text["figures"])) == made
    assert "# What communication.every does: fashion" in text["markdown"].replace("\\", "")
    told = Reader(text["page"]).text()
    assert "What communication.every does: fashion-mnist with mlp" in told
    assert "Together or apart?" not in told


def test_the_terminal_shows_bytes_and_the_pairs_of_the_first_value():
    made = study_over()
    lines = study_tables.study_lines(made)
    assert lines[0].split()[-3:] == ["sent", "a", "sample"]
    assert sum(line.startswith("every = 1, 4 ranks  every = ") for line in lines) == 3
    plain = study_tables.study_lines(make_study())
    assert plain[0].split()[-1] == "core-seconds"


def test_intervals_are_those_of_the_study():
    made = study_over(found={1: VALUES[1]})
    only = made.contestants[0]
    known = replace(
        only.accuracy, on_these_images=Range(0.9, 0.92), on_new_images=Range(0.89, 1.08)
    )
    made = replace(made, contestants=[replace(only, accuracy=known)], pairs=[])
    lines = figures.by_bytes(made).axes[0].get_lines()
    ends = {tuple(np.round(line.get_ydata(), 6)) for line in lines if len(line.get_ydata()) == 2}
    assert ends == {(0.9, 0.92), (0.89, 1.0)}, "no accuracy is above 100 %"
