import csv
import json
import re
import tomllib
from dataclasses import replace

import numpy as np
import pytest
from report.html_reader import Reader
from report.study_sample import PLACES, make_study

from ensync.report import study_figures, study_files, study_page, study_tables
from ensync.report.results import from_json
from ensync.report.study_results import Cost, LeftOut, StudyResult, turned
from ensync.report.study_text import points
from ensync.report.study_verdict import poles, study_verdict

ATTACK = "<script>alert(1)</script> & 50 % of_x {y} $z | #1"


@pytest.fixture(scope="module")
def study() -> StudyResult:
    return make_study()


@pytest.fixture(scope="module")
def files(study, tmp_path_factory):
    return study_files.write_study(study, tmp_path_factory.mktemp("study") / "new")


@pytest.fixture(scope="module")
def page(files) -> str:
    return files["page"].read_text()


def of_one_pair(verdict: str, **more: object) -> StudyResult:
    """Return a study of synchronous training and an ensemble on 4 ranks, judged so."""
    made = make_study(tuple(place for place in PLACES if place[2] == 4)[:1] + PLACES[8:9])
    pair = replace(made.pairs[0], verdict=verdict, **more)
    return replace(made, pairs=[pair])


def test_the_file_is_the_study(study, files):
    content = json.loads(files["figures"].read_text())
    assert content["format"] == "ensync-study" and content["version"] == 1
    assert from_json(StudyResult, content) == study


def test_a_pair_turned_twice_is_itself(study):
    for pair in study.pairs:
        back = turned(turned(pair))
        assert back.difference == pair.difference and back.mcnemar == pair.mcnemar
        assert back.verdict == pair.verdict
    pair = study.pairs[0]
    other = study.pair(pair.second, pair.first)
    assert other.difference == -pair.difference
    assert other.on_new_images.low == -pair.on_new_images.high
    assert study.pair("nobody@1", pair.first) is None
    with pytest.raises(KeyError):
        study.by_key("nobody@1")


def test_the_verdict_is_about_the_best_of_each_kind_on_most_ranks(study):
    found = poles(study)
    assert (found.first.key, found.second.key) == ("ensemble_full@4", "synchronous@4")
    assert found.pair.difference > 0


def test_the_poles_are_chosen_by_validation(study):
    """The test accuracy of another decides nothing."""
    better = [
        replace(each, accuracy=replace(each.accuracy, mean=0.99))
        if each.key == "ensemble_shards@4"
        else each
        for each in study.contestants
    ]
    assert poles(replace(study, contestants=better)).first.key == "ensemble_full@4"


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        ("first", "train together. It is better by"),
        ("equal", "practically equal. The difference of"),
        ("unknown", "not enough seeds to tell which is better. The difference is"),
    ],
)
def test_each_verdict_has_its_sentence(verdict, words):
    made = of_one_pair(verdict, difference=0.004)
    first = replace(made.contestants[0], accuracy=replace(made.contestants[0].accuracy, mean=0.95))
    sentence = study_verdict(replace(made, contestants=[first, made.contestants[1]]))[0]
    assert words in sentence and "0.40 points" in sentence
    assert sentence.startswith("On 4 ranks synchronous has 95.00 % of the test images right")


def test_seeds_that_are_missing_are_counted():
    lines = study_verdict(of_one_pair("unknown", seeds_needed=14))
    assert lines[1].startswith("About 9 more seeds would tell. With 5 paired seeds")
    assert (
        "about 9 more"
        in study_tables.pairs_table(of_one_pair("unknown", seeds_needed=14)).rows[0][-1]
    )


def test_the_cost_is_in_core_seconds_or_else_in_samples():
    made = of_one_pair("first")
    assert "core-seconds" in study_verdict(made)[2] and "4.00x the parameters" in " ".join(
        study_verdict(made)
    )
    for mark, reason in (("packed", "ran beside"), ("oversubscribed", "than cores")):
        marked = [
            replace(each, cost=replace(each.cost, **{mark: True})) for each in made.contestants
        ]
        line = study_verdict(replace(made, contestants=marked))[2]
        assert "1,080,000 samples" in line and reason in line and "core-seconds" not in line
        table = study_tables.cost_table(replace(made, contestants=marked))
        assert all(row[3].endswith("*") for row in table.rows) and reason.split()[0] in str(
            table.notes
        )
    free = [replace(each, cost=Cost()) for each in made.contestants]
    assert "not measured" in study_verdict(replace(made, contestants=free))[2]


def test_of_one_seed_only_the_images_tell_something():
    pair = {"on_these_images": None, "better": None, "p_holm": None, "seeds": [1]}
    line = study_verdict(of_one_pair("unknown", **pair))[1]
    assert line.startswith("One seed shows two trained networks, not two ways to train")
    assert "By the test images alone the 95 % interval is 0." in line
    assert line.endswith("McNemar's p = 0.030.")
    none = of_one_pair("unknown", **pair, on_new_images=None, mcnemar=[])
    assert study_verdict(none)[1].endswith("give at least 3 (--seeds).")


def test_a_study_without_pairs_says_so():
    made = replace(make_study(PLACES[:1]), pairs=[], cells_left=7)
    assert study_verdict(made)[0].startswith("There is nothing to compare yet: 5 cells done")
    assert "7 of 12 cells are missing" in study_verdict(made)[-1]
    assert "nothing to compare" in Reader(study_page.study_page(made)).text()
    none = replace(made, contestants=[], cells_done=0)
    assert "nothing to compare" in Reader(study_page.study_page(none)).text()


def test_one_rank_alone_is_named_where_more_do_not_pay(study):
    assert study_verdict(study)[3].startswith("One rank alone reached 89.72 %")


def test_marks_of_one_cost_stand_side_by_side():
    """As near to their places as the gap allows: beside a search among all on a grid."""
    random = np.random.default_rng(4)
    for _ in range(20):
        places = random.integers(0, 9, 4).astype(float)
        found = study_figures.apart(places.tolist(), 2.0, (-20.0, 40.0))
        order = np.argsort(places, kind="stable")
        assert np.diff(found[order]).min() >= 2.0 - 1e-9
        for way in random.normal(0, 0.2, (50, 4)):  # no small change is allowed and nearer
            other = found + way
            if np.diff(other[order]).min() >= 2.0:
                assert ((other - places) ** 2).sum() >= ((found - places) ** 2).sum() - 1e-9
    assert study_figures.apart([1.0, 9.0], 1.0, (0.0, 10.0)).tolist() == [1.0, 9.0]
    assert study_figures.apart([0.0] * 3, 2.0, (0.0, 9.0)).tolist() == [0.0, 2.0, 4.0]


def test_pareto_against_brute_force():
    random = np.random.default_rng(3)
    for _ in range(50):
        places = [tuple(place) for place in random.integers(0, 6, (7, 2)).tolist()]
        front = study_figures.pareto(places)
        best = {
            place
            for place in places
            if not any((x <= place[0] and y >= place[1]) and (x, y) != place for x, y in places)
        }
        assert {places[one] for one in front} == best and len(front) == len(best)


def test_contestants_look_different(study):
    marks = study_figures.marks_of(study)
    assert len({(mark.color, mark.marker) for mark in marks.values()}) == len(marks)
    many = make_study(tuple((f"own_{n}", f"own {n}", 2, True, 1, 0.9, 1.0) for n in range(20)))
    marks = study_figures.marks_of(many)
    assert len({(mark.color, mark.marker) for mark in marks.values()}) == 20


def test_another_cost_stands_on_the_axis_where_seconds_are_no_measure(study):
    assert study_figures.cost_of(study)[::2] == ("core-seconds", "")
    packed = replace(study.contestants[0], cost=replace(study.contestants[0].cost, packed=True))
    made = replace(study, contestants=[packed, *study.contestants[1:]])
    label, places, why = study_figures.cost_of(made)
    assert label.startswith("parameters") and "ran beside" in why and "as much arithmetic" in why
    assert places["one_rank@1"] == 235_146 and places["ensemble_full@4"] == 4 * 235_146
    assert places["shared_start@4"] == 235_146, "one averaged network answers"
    more = replace(packed, cost=replace(packed.cost, samples=4e6))
    others = replace(made, contestants=[more, *made.contestants[1:]])
    label, places, why = study_figures.cost_of(others)
    assert label.startswith("samples x parameters") and places["synchronous@2"] == 1
    assert places["one_rank@1"] == 4e6 / 1_080_000 and "samples times parameters" in why
    larger = replace(packed, parameters=4 * 235_146)
    others = replace(made, contestants=[larger, *made.contestants[1:]])
    assert study_figures.cost_of(others).places["one_rank@1"] == 4, "of as many samples"
    few = replace(made, contestants=made.contestants[:2], pairs=made.pairs[:1])
    assert "the cost of a prediction instead" in Reader(study_page.study_page(few)).text()


def test_many_contestants_of_equal_cost_stand_in_a_group_of_their_cost(study):
    first = replace(study.contestants[0], cost=replace(study.contestants[0].cost, packed=True))
    same = [
        replace(
            first, name=f"own_{n}", ranks=n, parameters=100, cost=replace(first.cost, samples=6)
        )
        for n in range(20)
    ]
    larger = replace(same[0], name="larger_network", parameters=250)
    axes = study_figures.headline(replace(study, contestants=[*same, larger])).axes[0]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1", "2.5"]
    points = [float(line.get_xdata()[0]) for line in axes.get_lines() if line.get_marker() == "X"]
    assert points == [21.0], "after the twenty, and a gap"


def test_marks_of_equal_cost_stand_beside_each_other_within_the_picture(study):
    untimed = [replace(one, cost=replace(one.cost, packed=True)) for one in study.contestants]
    axes = study_figures.headline(replace(study, contestants=untimed)).axes[0]
    points = [
        line.get_xdata() for line in axes.get_lines() if line.get_marker() not in ("", "None")
    ]
    places = np.array(points).ravel()
    low, high = axes.get_xlim()
    assert len(places) == len(PLACES) and places.min() > low and places.max() < high
    assert np.diff(np.sort(places)).min() > 0.01 * (high - low)


def test_the_page_has_its_parts_in_order(page):
    told = Reader(page).text()
    places = [
        told.index(part)
        for part in (
            "train apart",
            "Budget, samples:",
            "At a glance",
            "What the members give",
            "Every pair",
            "How sure they are",
            "What is taken for what",
            "test accuracy, %",
            "The job",
        )
    ]
    assert places == sorted(places)
    labels = [value for _, name, value in Reader(page).attributes if name == "aria-label"]
    assert "sha256:77aa" in told and "Intel(R) Xeon(R) 6 <test>" in told
    for label in ("accuracy, core-seconds", "accuracy against ranks", "reliability diagrams"):
        assert label in labels


def test_only_two_confusion_matrices_are_open(page):
    before, _, after = page.partition("The others (")
    assert before.count('aria-label="confusion') == 2
    assert after.count('aria-label="confusion') == len(PLACES) - 2
    assert before.rindex("<details>") > before.rindex('aria-label="confusion')


def test_nothing_is_fetched_and_ids_are_unique(page):
    read = Reader(page)
    for tag, name, value in read.attributes:
        assert name not in ("src", "srcset", "action") and not name.startswith("on"), (tag, name)
        assert name not in ("href", "xlink:href") or value.startswith(("#", "data:")), value
    assert not {"script", "iframe", "link", "object", "embed", "img"} & set(read.tags)
    assert not re.search(r"@import|url\((?!#)", page)
    ids = [value for _, name, value in read.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    defined, used = set(re.findall(r"(--\w+):#", page)), set(re.findall(r"var\((--\w+)\)", page))
    assert used <= defined and "prefers-color-scheme: dark" in page and "@media print" in page


def test_names_from_elsewhere_are_escaped(study):
    first = replace(study.contestants[0], label=ATTACK, notes=[ATTACK])
    made = replace(
        study,
        contestants=[first, *study.contestants[1:2]],
        pairs=study.pairs[:1],
        dataset=replace(study.dataset, name=ATTACK),
        class_names=[ATTACK, *study.class_names[1:]],
        budget=replace(study.budget, sentence=ATTACK),
    )
    page = study_page.study_page(made)
    assert "<script" not in page and Reader(page).text().count("alert(1)") >= 6
    rows = [line for line in study_files.markdown(made).splitlines() if line.startswith("| ")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} <= {
        len(table.heads) + 1 for table in study_tables.study_tables(made)
    }
    assert "<script" not in "\n".join(rows).replace("\\<", "")


def test_latex_has_its_special_characters_escaped(study):
    made = replace(study, contestants=[replace(study.contestants[0], label=ATTACK)], pairs=[])
    tex = study_files.latex(made)
    body = [line for line in tex.splitlines() if not line.startswith("%")]
    for line in body:
        if line.endswith(r" \\"):
            plain = re.sub(r"\\[&%$#_{}]|\\text\w+\{\}|\$\\pm\$", "", line.removesuffix(r" \\"))
            assert not re.search(r"[%$#_{}~^<>]", plain), line
    assert r"50 \% of\_x \{y\} \$z | \#1" in tex
    assert tex.count(r"\begin{tabular}") == tex.count(r"\bottomrule") == tex.count(r"\toprule")


def test_every_latex_row_has_as_many_cells_as_columns(files):
    tex = files["latex"].read_text()
    for columns, body in re.findall(
        r"\\begin\{tabular\}\{([lr]+)\}\n\\toprule\n(.*?)\\bottomrule", tex, re.DOTALL
    ):
        for line in body.splitlines():
            if line != r"\midrule":
                assert len(re.findall(r"(?<!\\)&", line)) == len(columns) - 1


def test_every_markdown_table_parses(files, study):
    text = files["markdown"].read_text()
    for table in study_tables.study_tables(study):
        start = text.index(f"## {table.title}")
        lines = text[start:].split("\n\n")[1].splitlines()
        assert len(lines) == 2 + len(table.rows)
        assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {len(table.heads) + 1}


def test_the_csv_holds_the_figures(files, study):
    with files["table"].open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row, each in zip(rows, study.contestants, strict=True):
        assert row["contestant"] == each.name and int(row["ranks"]) == each.ranks
        assert float(row["test_accuracy"]) == each.accuracy.mean
        assert float(row["on_new_images_low"]) == each.accuracy.on_new_images.low
        assert (row["oracle"] == "") == (each.member_figures is None)
    with files["pairs"].open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["difference"]) for row in rows] == [p.difference for p in study.pairs]


def test_the_job_on_the_page_is_the_job(study, page):
    shown = re.search(r"<pre>(.*?)</pre>", page, re.DOTALL)[1]
    assert tomllib.loads(shown.replace("&#34;", '"')) == study.job


def test_the_terminal_shows_every_contestant_and_the_verdict(study):
    lines = study_tables.study_lines(study)
    assert sum(line.startswith("ensemble on all data") for line in lines) >= 2
    assert lines[-4:] == study_verdict(study)
    assert any("left out: synchronous on 1 rank" in line for line in lines)


def test_a_target_is_told_with_how_many_reached_it(study):
    cost = replace(study.contestants[0].cost, seconds_to_target=[10.0, None, 14.0])
    made = replace(
        study,
        contestants=[replace(study.contestants[0], cost=cost)],
        budget=replace(study.budget, name="target", amount=0.9),
    )
    assert "one rank, 1 rank: reached the target with 2 of 5 seeds, after 12.0 s on average." in (
        study_tables.cost_table(made).notes
    )


def test_the_verdict_tells_of_the_target():
    made = of_one_pair("first")
    times = ([10.0, None, 14.0, None, None], [])
    some = [
        replace(each, cost=replace(each.cost, seconds_to_target=reached))
        for each, reached in zip(made.contestants, times)
    ]
    budget = replace(made.budget, name="target", amount=0.9)
    told = study_verdict(replace(made, contestants=some, budget=budget))
    assert told[2] == (
        "Target, 90.00 % of the validation images: ensemble on all data with 0 of 5 seeds; "
        "synchronous with 2 of 5 seeds, after 12.0 s on average."
    )


def test_one_larger_network_is_no_pole_but_has_its_sentence():
    larger = ("larger_network", "one larger network", 4, True, 1, 0.95, 20.0)
    made = make_study((*PLACES, larger))
    found = poles(made)
    assert (found.first.key, found.second.key) == ("ensemble_full@4", "synchronous@4")
    assert "One larger network (1.00x the parameters of one) reached 9" in study_verdict(made)[-1]
    alone = make_study((larger, PLACES[8]))
    assert {each.name for each in poles(alone)[:2]} == {"larger_network", "ensemble_full"}


def test_what_is_told_apart_alone_but_not_on_the_page_is_marked():
    made = of_one_pair("first", p_holm=0.2)
    assert study_tables.pairs_table(made).rows[0][-1] == "synchronous better, not after Holm"
    made = of_one_pair("first", p_holm=0.01)
    assert study_tables.pairs_table(made).rows[0][-1] == "synchronous better"


def test_what_is_left_out_for_one_reason_is_one_line(study):
    left = [LeftOut("a on 1 rank", "no ensemble"), LeftOut("b", "x"), LeftOut("c", "no ensemble")]
    made = replace(study, left_out=left)
    told = [line for line in study_tables.study_lines(made) if "left out" in line]
    assert told == ["  left out: a on 1 rank; c: no ensemble", "  left out: b: x"]


@pytest.mark.parametrize(("value", "shown"), [(-1e-7, "0.00"), (0.0, "0.00"), (-0.0012, "-0.12")])
def test_no_difference_has_no_sign(value, shown):
    assert points(value, sign=True) == shown
