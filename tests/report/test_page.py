import csv
import json
import re
import tomllib

import pytest
from report.html_reader import Reader

from ensync.core.errors import EnsyncError
from ensync.report import export, sweep_page
from ensync.report import page as pages
from ensync.report.results import Comparison, Machine, Scaling, ScalingRow, Sweep, from_json
from ensync.report.verdict import choose


def comparison_page(content: dict) -> str:
    return pages.comparison_page(from_json(Comparison, content))


def without_pictures(content: dict) -> dict:
    """Return a comparison whose page takes a moment."""
    return content | {"confusions": {}, "histories": {}, "accuracy_by_members": {}}


def write_comparison(directory, content: dict) -> dict:
    return export.write_comparison(directory, from_json(Comparison, content))


@pytest.fixture
def read(page) -> Reader:
    return Reader(page)


def test_the_verdict_is_on_top(read):
    places = [
        read.text().index(told)
        for told in (
            "Train together: it is better by 2.16 points than training apart.",
            "Synchronous training reached 89.69 % in 4.71 s; the ensemble (soft voting, 4 members) "
            "87.53 % in 3.62 s; one rank alone 89.33 % in 14.2 s.",
            "95 % interval 89.08 to 90.27 %",
            "macro F1",
        )
    ]
    assert places == sorted(places)


def test_the_two_strategies_stand_beside_each_other(comparison):
    read = from_json(Comparison, comparison)
    cards = pages.cards_of(read, choose(read).row)
    assert [card["title"] for card in cards] == ["Together", "Apart", "One rank alone"]
    assert [card["chosen"] for card in cards] == [True, False, False]
    assert [card["facts"][1] for card in cards] == ["4.71 s", "3.62 s", "14.20 s"]
    assert cards[1]["facts"][2] == "4 ranks, 4 networks, soft voting"


def test_all_figures_of_a_column_have_as_many_digits(read):
    for column in range(2, 11):
        figures = [re.search(r"\.(\d+)", row[column]) for row in read.rows[1:6]]
        if read.rows[0][column] != "sent":  # in units of their own
            assert len({len(found[1]) for found in figures if found}) <= 1


def test_seconds_of_more_threads_than_cores_are_marked(comparison):
    comparison["machine"]["cores"] = 2
    page = Reader(comparison_page(without_pictures(comparison)))
    rows = {row[0]: row for row in page.rows}
    place = page.rows[0].index("seconds")
    assert rows["synchronous"][place] == "4.71 *" and rows["one rank"][place] == "14.20"
    assert "* More threads than cores: these seconds are no measure." in page.text()
    assert "Seconds are not compared, since there were more threads" in page.text()


def test_matrices_are_folded_but_for_one_and_its_difference(page):
    opened = re.sub(r"<details>.*?</details>", "", page, flags=re.DOTALL)
    label = 'aria-label="confusion matrix of ([^"]*)"'
    assert re.findall(label, opened) == ["synchronous", "synchronous less ensemble: soft voting"]
    assert len(re.findall(label, page)) == 5 and "The others (3)" in page


def test_the_table_has_the_figures_and_dashes(read):
    rows = {row[0]: dict(zip(read.rows[0], row)) for row in read.rows[:6]}
    assert (
        rows["synchronous"]["accuracy"] == "89.69 %"
        and rows["synchronous"]["sent"] == "7.3 GB"
        and rows["synchronous"]["top 5"] == "99.71 %"
    )
    assert (
        rows["ensemble: soft voting"]["speed-up"] == "3.92x"
        and rows["ensemble: soft voting"]["efficiency"] == "98 %"
    )
    lost = rows["ensemble: weight averaging"]
    assert [
        lost[head] for head in ("accuracy", "95 % interval", "macro F1", "seconds", "speed-up")
    ] == ["-"] * 5
    assert "the mean of unrelated weights is no network" in read.text()


def test_the_best_figures_are_marked(page):
    marked = re.findall(r'<td class="best">([^<]*)</td>', page)
    assert marked == ["89.69 %", "3.62", "3.62"]


def test_nothing_is_fetched_from_anywhere(read, page):
    for tag, name, value in read.attributes:
        assert name not in ("src", "srcset", "action", "background") and not name.startswith(
            "on"
        ), (tag, name)
        assert name not in ("href", "xlink:href") or value.startswith(("#", "data:image/png")), (
            value
        )
    assert not {"script", "iframe", "link", "object", "embed", "img"} & set(read.tags)
    assert not re.search(r"@import|url\((?!#)", page)


def test_ids_on_the_page_are_unique_and_found(read):
    ids = [value for _, name, value in read.attributes if name == "id"]
    used = [value for _, name, value in read.attributes if name == "xlink:href"]
    used += [
        found for _, _, value in read.attributes for found in re.findall(r"url\((#[^)]+)\)", value)
    ]
    assert len(ids) == len(set(ids)) and {value.removeprefix("#") for value in used} <= set(ids)


def test_plots_and_matrices_are_there(read):
    labels = [value for _, name, value in read.attributes if name == "aria-label"]
    for label in (
        "accuracy against epochs",
        "accuracy against seconds",
        "test accuracy against the number of members fused",
        "validation accuracy of each member",
        "confusion matrix of one rank",
        "confusion matrix of ensemble: hard voting",
    ):
        assert label in labels
    assert "851" in read.texts, "a count of the confusion matrix of soft voting"


def test_the_job_on_the_page_is_the_job(comparison, page):
    shown = re.search(r"<pre>(.*?)</pre>", page, re.DOTALL)[1]
    assert tomllib.loads(shown.replace("&#34;", '"')) == comparison["job"]
    assert "hidden = [256, 128]" in shown


def test_versions_machine_and_method_are_told(read):
    for told in (
        "MPICH 5.0.2",
        "Intel(R) Xeon(R) 6 <test>",
        "sha256:1f3a",
        "All rows trained for 12 epochs",
        "train 54,000, validation 6,000, test 10,000",
        "Wilson",
    ):
        assert told in read.text()


def test_text_from_elsewhere_is_escaped(comparison):
    attack = "<script>alert(1)</script>"
    comparison["class_names"][0] = attack
    comparison["rows"][1]["note"] = comparison["machine"]["cpu"] = comparison["dataset"][
        "name"
    ] = comparison["job"]["network"]["name"] = attack
    comparison["measured"] = [attack]
    comparison["rows"][0]["name"] = attack
    comparison["confusions"] = {attack: comparison["confusions"]["one rank"]}
    comparison["histories"] = {attack: comparison["histories"]["one rank"]}
    comparison["accuracy_by_members"][attack] = [0.5, 0.6]
    page = comparison_page(comparison)
    assert "<script" not in page and Reader(page).text().count("alert(1)") >= 7


def test_dark_light_and_print(page):
    assert "prefers-color-scheme: dark" in page and "@media print" in page
    defined, used = set(re.findall(r"(--\w+):#", page)), set(re.findall(r"var\((--\w+)\)", page))
    assert used <= defined


def test_the_page_is_small(page):
    assert len(page) < 200_000


def test_little_is_enough(comparison):
    """A comparison on one rank, of a digest without histories, confusions and intervals, still
    gives a page.
    """
    bare = {key: comparison[key] for key in ("format", "version", "job", "rows", "class_names")}
    for row in bare["rows"]:
        row.update(test_accuracy=float("nan"), top_k=None)
    page = Reader(comparison_page(bare))
    assert "There is nothing to compare" in page.text() and "svg" not in page.tags


def test_json_and_csv_hold_the_same_figures_as_the_page(comparison, page, tmp_path):
    paths = write_comparison(tmp_path / "new" / "run", comparison)
    assert (
        {path.name for path in paths.values()}
        == {path.name for path in (tmp_path / "new" / "run").iterdir()}
        == {"comparison.json", "comparison.csv", "comparison.html"}
    )
    assert json.loads(paths["figures"].read_text()) == comparison
    assert paths["page"].read_text() == page, "the same figures give the same bytes"
    with paths["table"].open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row, origin in zip(rows, comparison["rows"], strict=True):
        assert (
            row["name"] == origin["name"]
            and row["note"] == origin["note"]
            and int(row["bytes_sent"]) == origin["bytes_sent"]
        )
        for key in ("test_accuracy", "seconds", "speedup", "weighted_f1"):
            assert (float(row[key]) if row[key] else None) == origin[key]
    assert (
        float(rows[1]["test_accuracy_low"])
        < float(rows[1]["test_accuracy"])
        < float(rows[1]["test_accuracy_high"])
    )
    assert rows[1]["top_k"] == "5" and rows[4]["top_k"] == ""


def test_json_has_no_nan(comparison, tmp_path):
    comparison["rows"][0]["test_loss"] = comparison["histories"]["synchronous"][0]["train_loss"] = (
        float("nan")
    )
    comparison["confusions"] = comparison["accuracy_by_members"] = {}
    written = json.loads(
        write_comparison(tmp_path, comparison)["figures"].read_text(), parse_constant=pytest.fail
    )
    assert written["rows"][0]["test_loss"] is None


def test_a_sweep_is_written_with_its_plot(sweep, tmp_path):
    paths = export.write_sweep(tmp_path, from_json(Sweep, sweep))
    assert {path.name for path in paths.values()} == {
        "sweep.json",
        "sweep.csv",
        "sweep.html",
        "sweep.png",
    }
    assert json.loads(paths["figures"].read_text()) == sweep
    with paths["table"].open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["value"]) for row in rows] == [
        row["value"] for row in sweep["rows"]
    ] and rows[-1]["test_accuracy"] == ""
    assert paths["plot"].read_bytes()[:4] == b"\x89PNG"


def test_the_sweep_page(sweep):
    sweep["rows"][3]["oversubscribed"] = True
    page = Reader(sweep_page.sweep_page(from_json(Sweep, sweep)))
    for told in (
        "optimizer.learning_rate = 0.001 has the best validation accuracy, 90.50 % (test 90.00 %).",
        "2026-11-21 09:30, 4 ranks x 1 thread on 1 node, Intel(R) Xeon(R) 6 <test>",
        "MPICH 5.0.2",
        "sha256:1f3a",
        "* More threads than cores",
        "learning_rate = 0.001",
    ):
        assert told in page.text()
    assert page.rows[0][0] == "optimizer.learning_rate" and page.rows[6] == [
        *("0.03", "-", "-", "-", "-"),
        *("5.00", "120,000"),
    ]
    assert page.rows[3][1:5] == ["90.00 %", "89.40 to 90.57 %", "90.50 %", "89.73 to 91.22 %"]
    assert page.rows[4][5] == "4.80 *"


def test_the_scaling_page_has_what_the_others_have(comparison, tmp_path):
    rows = [
        ScalingRow(
            strategy="synchronous",
            ranks=ranks,
            seconds=8.0 / ranks,
            speedup=float(ranks),
            efficiency=1.0,
            test_accuracy=0.9,
            test_images=1000,
            oversubscribed=ranks > 4,
        )
        for ranks in (1, 2, 4, 8)
    ]
    made = {"job": comparison["job"], "created": comparison["created"], "versions": {"numpy": "2"}}
    scaling = Scaling(rows=rows, machine=Machine("a CPU", 1, 8, 1, 4), **made)
    files = export.write_scaling(tmp_path, scaling)
    page = Reader(files["page"].read_text())
    for told in (
        "Synchronous: fastest on 4 ranks, 4.00x as fast as on one, an efficiency of 100 %.",
        "2026-11-21 09:30, 8 ranks x 1 thread on 1 node, a CPU",
        "* More threads than cores",
        "learning_rate = 0.001",
    ):
        assert told in page.text()
    assert page.rows[4] == [
        *("synchronous", "8", "1.00 *", "8.00x", "100 %"),
        *("90.00 %", "87.98 to 91.71 %"),
    ]
    assert {path.name for path in files.values()} == {path.name for path in tmp_path.iterdir()}
    assert from_json(Scaling, json.loads(files["figures"].read_text())) == scaling


def test_a_directory_that_cannot_be_gets_its_sentence(comparison, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(EnsyncError, match="could not be written"):
        write_comparison(tmp_path / "file" / "run", comparison)


def test_names_cannot_steer_what_reads_page_and_table(tmp_path, comparison):
    """Of classes, rows, notes and paths; $ would begin a formula in a figure, and one that is
    none.
    """
    steering = "a\x1b[2J\nzzz\u202e$\\frac{<script>"
    comparison["class_names"][0] = comparison["dataset"]["path"] = comparison["rows"][0][
        "note"
    ] = comparison["job"]["data"]["path"] = steering
    comparison["confusions"] = {"one rank": comparison["confusions"]["one rank"]}
    written = write_comparison(tmp_path, comparison)
    page, table = written["page"].read_text(), written["table"].read_text()
    for text in (page, table):
        assert (
            not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", text)
            and r"a\x1b[2J\nzzz\u202e$" in text
        )
    assert "<script>" not in page and len(table.splitlines()) == 1 + len(comparison["rows"])
    assert json.loads(written["figures"].read_text())["class_names"][0] == steering
