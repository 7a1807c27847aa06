"""The page and the files of a prediction."""

import csv
import json
from dataclasses import replace

import pytest
from report.html_reader import Reader
from report.scale_sample import make_scale

from ensync.report.scale_files import COLUMNS, write_scale
from ensync.report.scale_page import scale_page
from ensync.report.scale_tables import (
    TOGETHER_HEADS,
    interruption_sentence,
    noise_words,
    scale_lines,
    shape_sentence,
    together_cells,
)

VERDICT = "Synchronous is fastest on 1 rank; more are slower, because of the bandwidth of the link."


@pytest.fixture(scope="module")
def page():
    return scale_page(make_scale())


def test_the_verdict_stands_above_the_table_and_the_plots(page):
    text = Reader(page).text()
    places = [
        text.index(said)
        for said in (
            "How many ranks? digits with mlp",
            "predicted; measured 2026-11-29 10:00, 2 ranks x 1 thread on 2 nodes, a CPU",
            VERDICT,
            "The gradient noise scale is 512 samples (95 % interval 400 to 800) in 100 steps",
            "The same loss comes soonest with ",
            "efficiency",
            "Other strategies are in scale.csv.",
            "How many together",
            "MPI between nodes: 1000.0 us a message, 1.0 MB/s, measured.",
            "[network]",
        )
    ]
    assert places == sorted(places)


def test_the_page_has_the_figures_of_the_table_and_four_plots(page):
    read = Reader(page)
    rows = {row[0]: row for row in read.rows[:5]}
    assert rows["1"][4:7] == ["10.0", "6,400", "100 %"]
    assert rows["2"][4] == "12.0" and rows["8"][-1] == "bandwidth"
    assert page.count("<svg") == 4 and "var(--blue)" in page
    assert 'class="best">1.00<' in page  # the shortest epoch
    assert not [
        value
        for _, name, value in read.attributes
        if name in ("src", "href") and not value.startswith("#")
    ], "nothing from elsewhere"


def test_of_one_number_of_ranks_only_what_was_measured_is_drawn():
    page = scale_page(make_scale(ranks=(1,)))
    assert page.count("<svg") == 1 and "Measured steps of one rank" in page


def test_all_files_have_the_same_figures(tmp_path):
    result = make_scale()
    paths = write_scale(tmp_path / "new", result)
    assert [path.name for path in paths.values()] == ["scale.json", "scale.csv", "scale.html"]
    rows = list(csv.DictReader(paths["table"].open()))
    kept = json.loads(paths["figures"].read_text())["rows"]
    assert len(rows) == len(kept) == 24 and tuple(rows[0]) == COLUMNS
    for row, other in zip(rows, kept, strict=True):
        assert float(row["step_seconds"]) == other["step_seconds"]
        assert float(row["bandwidth"]) == other["parts"]["bandwidth"]


def test_how_many_together_is_told_with_the_rest_as_members():
    result = make_scale()
    rows = [dict(zip(TOGETHER_HEADS, cells)) for cells in together_cells(result)]
    assert [row["ranks"] for row in rows] == ["1", "2", "4", "8"]
    least = min(rows, key=lambda row: float(row["time"]))
    shown = "\n".join(scale_lines(result))
    assert f"soonest with {least['ranks']} rank" in shown
    assert f"a batch of {least['batch']}" in shown
    single = replace(result, together=[replace(result.together[0], ranks=4)] * 1)
    assert "members" not in "\n".join(scale_lines(single)).split("soonest")[1]


def test_what_is_not_sure_is_said():
    result = make_scale()
    unsure = replace(result.noise, scale=None, high=None)
    assert "is not known yet" in noise_words(unsure) and "--noise-steps" in noise_words(unsure)
    assert interruption_sentence(result) == ""
    steps = tuple(replace(each, interrupted=0.3) for each in result.calibration.steps)
    busy = replace(result, calibration=replace(result.calibration, steps=steps))
    assert interruption_sentence(busy).startswith("30 % of the timed steps took more than 3 times")
    assert shape_sentence(result) == ""
    (one,) = result.shapes
    two = replace(result, shapes=[one, replace(one, ranks=2, step_seconds=2 * one.step_seconds)])
    assert shape_sentence(two) == (
        "On 1 core 1 rank x 1 thread are fastest; 2 x 1 take 2.00 times as long."
    )
