"""jobs/RESULTS.md and its picture are what jobs/results.py makes of what is kept beside them, and
that is of the jobs as they stand.
"""

import base64
import importlib
import io
import json
import re
import shutil
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ensync.report.results import FusionFigures, Machine, RunResult, from_json, to_json
from ensync.report.study_results import StudyResult

JOBS = Path(__file__).parents[1] / "jobs"
sys.path.insert(0, str(JOBS))  # as for a script there
results, pictures, runs, studies = map(
    importlib.import_module, ("results", "results_pictures", "results_runs", "results_studies")
)
KEPT = results.kept()
README = (JOBS.parent / "README.md").read_text()


def test_the_page_is_made_from_the_kept_comparisons():
    assert (JOBS / "RESULTS.md").read_text() == results.results(KEPT), "run `make results`"


@pytest.mark.parametrize("name", sorted(path.name for path in JOBS.glob("*.svg")))
def test_a_picture_is_small_and_has_no_colour_left_open(name):
    path = JOBS / name
    assert path.stat().st_size < 100 * 1024
    drawing = ElementTree.parse(path).getroot()
    assert drawing.tag.endswith("svg") and "var(--" not in path.read_text()


def test_the_pictures_show_what_is_kept():
    """Matplotlib's versions place marks a little differently, so only words are compared."""
    made = pictures.pictures(KEPT.studies)
    assert set(made) == {path.name for path in JOBS.glob("*.svg")}, "run `make results`"
    for name, content in made.items():
        kept = ElementTree.parse(JOBS / name).getroot()
        assert words(ElementTree.fromstring(content)) == words(kept)


def words(drawing):
    return sorted(text.strip() for text in drawing.itertext() if text.strip())


@pytest.mark.parametrize("job", results.jobs(), ids=lambda path: path.stem)
def test_what_is_kept_is_of_the_job_as_it_stands(job):
    name = results.name_of(job)
    for found, free in (
        (KEPT.comparisons.get(name), ()),
        (KEPT.studies.get(name), results.OF_STUDIES),
    ):
        assert found is None or set(results.differences(job, found)) <= set(free)
    for found in KEPT.runs.get(name, []):
        assert set(results.differences(job, found)) <= set(results.OF_RUNS)


def test_what_training_apart_gains_is_the_mean_over_paired_seeds():
    rows = [line for line in results.results(KEPT).splitlines() if "|ensemble on all data|" in line]
    shown = {(cells[1], cells[2]): cells[4] for cells in (row.split("|") for row in rows)}
    gains = {}
    for name, study in KEPT.studies.items():
        by_key = {(each["name"], each["ranks"]): each for each in study["contestants"]}
        for (contestant, ranks), each in by_key.items():
            if contestant == "ensemble_full" and ("synchronous", ranks) in by_key:
                ours = each["accuracy"]["values"]
                theirs = by_key["synchronous", ranks]["accuracy"]["values"]
                mean = 100 * sum(a - b for a, b in zip(ours, theirs)) / len(ours)
                stem = name.removeprefix("studies-").replace("_", " ")
                gains[stem, str(ranks)] = f"{mean:+.2f}"
    assert gains and gains.items() <= shown.items()


def test_keep_refuses_the_comparison_of_another_job(tmp_path):
    kept = JOBS / "results" / "quickstart.json"
    (tmp_path / "comparison.json").write_text(kept.read_text())
    other = JOBS / "fashion_mnist" / "mlp_ensemble.toml"
    with pytest.raises(SystemExit, match="is no comparison of .*: .*data.path"):
        results.keep(other, tmp_path)


QUICKSTART, STUDY = JOBS / "quickstart.toml", JOBS / "studies" / "quickstart.toml"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Return a directory to keep things in, of a checkout without changes."""
    (tmp_path / "results").mkdir()
    monkeypatch.setattr(results, "_git", lambda *words: GIT[words[0]])
    monkeypatch.setattr(results, "PLACE", tmp_path / "results")
    return tmp_path


GIT = {"status": "", "log": "1"}


def plain(job):
    return results.load_job(str(job)).model_dump(mode="json", exclude_none=True)


def write_run(directory, seed, accuracy, cpu="a CPU", **training):
    """Write what a single training of the quickstart leaves."""
    job = plain(QUICKSTART)
    job["training"] |= {"seed": seed} | training
    result = RunResult(
        job=job,
        seconds=2.0 + seed,
        test={"soft_voting": FusionFigures(accuracy=accuracy, confusion=[[1]])},
        members=[accuracy],
        validation_accuracy=[0.9],
        created="2026-11-21T09:30:00+00:00",
        versions={"ensync": "0.1.0"},
        machine=Machine(cpu, 1, 2, 1),
    )
    directory.mkdir()
    (directory / "result.json").write_text(to_json(result))
    records = [
        {"event": "epoch", "member": 0, "epoch": number, "train_accuracy": accuracy}
        | {"seconds": 2.0, "samples_per_second": 600.0 + seed}
        for number, accuracy in ((1, 0.5), (20, 0.99))
    ]
    (directory / "history.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    return directory


def test_single_trainings_are_a_row_for_all_their_seeds_on_one_processor(place):
    for seed, accuracy in ((1, 0.95), (2, 0.97)):
        results.keep(QUICKSTART, write_run(place / f"run_{seed}", seed, accuracy))
    results.keep(QUICKSTART, write_run(place / "bf16", 1, 0.94, precision="bf16"))
    results.keep(QUICKSTART, write_run(place / "other", 1, 0.93, "Any (znver5)"))
    kept = results.kept(place / "results")
    assert len(kept.runs["quickstart"]) == 4
    assert "confusion" not in kept.runs["quickstart"][0]["test"]["soft_voting"]
    page = results.results(kept)
    rows = [line for line in page.splitlines() if line.startswith("|quickstart")]
    assert rows == [
        "|quickstart (bf16)|a CPU|2 x 1|20|1|3.00|99.00|90.00|94.00 |",
        "|quickstart|a CPU|2 x 1|20|2|3.50|99.00|90.00|96.00 \N{PLUS-MINUS SIGN} 1.41 |",
        "|quickstart|Any (znver5)|2 x 1|20|1|3.00|99.00|90.00|93.00 |",
    ]
    assert "- `jobs/quickstart.toml`" not in page
    assert "2026-11-21; seeds 1, 2;" in page
    assert "An epoch here, in the median: 2.00 s (a CPU), 2.00 s (Any (znver5))." in page
    assert max(map(len, page.splitlines())) <= 100


def test_epochs_stand_beside_those_of_the_source(place):
    column = {"name": "Other, a GPU", "images": 1202, "epochs": {"1": [0.25, 3]}}
    (place / "results/sources").mkdir()
    (place / "results/sources/a.json").write_text(json.dumps(column | {"jobs": ["quickstart"]}))
    results.keep(QUICKSTART, write_run(place / "one", 1, 0.9))
    page = results.results(results.kept(place / "results"))
    assert "|epoch|Other, a GPU|Ensync |" in page
    assert "|1|25.00 in 3.00|50.00 in 2.00 |\n|20|-|99.00 in 2.00 |" in page
    said = "All train on 1,202 images in an epoch. Ensync: float32, seed 1, 2 x 1 on a CPU."
    assert said in page
    results.keep(QUICKSTART, write_run(place / "two", 2, 0.9))
    page = results.results(results.kept(place / "results"))
    said = "Columns with other numbers of images in an epoch are not comparable: Other, a GPU:"
    assert f"{said} 1,202; Ensync A: 1,202; Ensync B: 1,204." in " ".join(page.split())
    assert max(map(len, page.splitlines())) <= 100


def test_seconds_beside_other_programs_are_left_out(place):
    (place / "results/sources").mkdir()
    column = {"name": "Other", "images": 1202, "jobs": ["quickstart"], "epochs": {"1": [0.25, 3]}}
    (place / "results/sources/a.json").write_text(json.dumps(column))
    results.keep(QUICKSTART, write_run(place / "one", 1, 0.95), busy=True)
    page = results.results(results.kept(place / "results"))
    assert "|quickstart|a CPU|2 x 1|20|1|-|99.00|90.00|95.00 |" in page
    assert "|1|25.00 in 3.00|50.00 |" in page and "in the median" not in page
    results.keep(QUICKSTART, write_run(place / "two", 2, 0.97))
    page = results.results(results.kept(place / "results"))
    assert "|quickstart|a CPU|2 x 1|20|2|4.00|99.00|90.00|96.00 \N{PLUS-MINUS SIGN} 1.41 |" in page
    assert "An epoch here, in the median: 2.00 s (a CPU)." in page


@pytest.mark.parametrize("words", [[], ["job.toml"], ["job.toml", "run", "bussy"]])
def test_keep_refuses_words_that_it_does_not_know(words):
    with pytest.raises(SystemExit, match="expected keep JOB.toml RUN"):
        results.main(["keep", *words])


def test_sources_are_of_jobs_that_are_there():
    named = {name for column in KEPT.sources.values() for name in column["jobs"]}
    assert named and named <= {results.name_of(job) for job in results.jobs()}


def test_a_training_of_another_job_is_refused(place):
    run = write_run(place / "run", 1, 0.9, epochs=3)
    with pytest.raises(SystemExit, match=r"is no training of .*: training\.epochs"):
        results.keep(QUICKSTART, run)


def test_members_of_an_ensemble_on_as_many_ranks_are_told(place):
    run = write_run(place / "run", 1, 0.9)
    result = json.loads((run / "result.json").read_text())
    result["job"]["ensemble"]["members"], result["members"] = 3, [0.8, 0.85, None]
    (run / "result.json").write_text(json.dumps(result))
    results.keep(QUICKSTART, run)
    page = results.results(results.kept(place / "results"))
    said = (
        "The 2 members of seed 1 alone: test accuracy 82.50 % on average, 80.00 % to 85.00 %; "
        "fused by soft voting."
    )
    assert said in " ".join(page.split())
    result["job"]["ensemble"]["synchronous_epochs"] = 7
    (run / "result.json").write_text(json.dumps(result))
    with pytest.raises(SystemExit, match=r"is no training of .*: ensemble\.sync"):
        results.keep(QUICKSTART, run)


def study_of(**more):
    """Return the content of a study.json of the quickstart study."""
    from report.study_sample import make_study

    return (
        json.loads(to_json(make_study()))
        | {
            "job": plain(STUDY),
            "code": results.code_sha256(),
        }
        | more
    )


def test_a_study_is_kept_in_short_and_shown(place):
    (place / "study").mkdir()
    (place / "study" / "study.json").write_text(json.dumps(study_of()))
    path = results.keep(STUDY, place / "study")
    kept = results.kept(place / "results")
    assert path.stem == "studies-quickstart" and "confusion" not in path.read_text()
    page = results.results(kept)
    assert "## studies/quickstart.toml" in page and "train apart" in page.replace("\n", " ")
    assert "Budget, samples: Every contestant trains on 1,080,000 samples" in page.replace(
        "\n", " "
    )
    rows = [line for line in page.splitlines() if line.startswith("|ensemble on all data")]
    assert len(rows) == 2 and rows[1].startswith("|ensemble on all data|4|4|89.86 ")
    assert max(map(len, page.splitlines())) <= 100


def test_the_picture_of_a_study_has_no_colour_left_open():
    for colors in (pictures.LIGHT, pictures.DARK):
        drawn = pictures.picture(study_of(), colors)
        told = words(ElementTree.fromstring(drawn))
        assert "var(--" not in drawn and len(drawn) < 100 * 1024
        assert "ensemble\N{NO-BREAK SPACE}on\N{NO-BREAK SPACE}all\N{NO-BREAK SPACE}data" in told


def test_a_study_over_meetings_has_its_bytes_and_a_picture_of_them(place):
    from report.test_study_along import study_over

    job = JOBS / "studies" / "communication_fashion_mnist.toml"
    made = json.loads(to_json(study_over())) | {"job": plain(job), "code": results.code_sha256()}
    (place / "study").mkdir()
    (place / "study" / "study.json").write_text(json.dumps(made))
    results.keep(job, place / "study")
    kept = results.kept(place / "results")
    page = results.results(kept)
    row = next(line for line in page.splitlines() if line.startswith("|every = 16|"))
    assert row.endswith("|4.0 kB |") and max(map(len, page.splitlines())) <= 100
    told = words(ElementTree.fromstring(pictures.picture(next(iter(kept.studies.values())), {})))
    assert "never" in told and "0\N{NO-BREAK SPACE}B" in told


def test_bytes_and_seconds_stand_beside_those_of_synchronous_training():
    first, *others = study_of()["contestants"][1:3]
    first["cost"] |= {"bytes_per_sample": {"mean": 4e5}, "seconds": {"mean": 200.0}}
    others[0]["cost"] |= {"bytes_per_sample": {"mean": 5e4}, "seconds": {"mean": 30.0}}
    kept = study_of(contestants=[first, *others], pairs=[])
    table = studies._links_table(from_json(StudyResult, kept))
    assert [row[3:] for row in table.rows] == [
        ["400 kB", "200", "100 %", "100 %"],
        ["50.0 kB", "30.0", "12 %", "15 %"],
    ]


def test_an_unfinished_study_and_other_things_are_refused(place):
    (place / "study").mkdir()
    (place / "study" / "study.json").write_text(json.dumps(study_of(cells_left=2)))
    with pytest.raises(SystemExit, match="2 cells are missing"):
        results.keep(STUDY, place / "study")
    (place / "study" / "study.json").write_text(json.dumps(study_of(code="other")))
    with pytest.raises(SystemExit, match="made by other sources"):
        results.keep(STUDY, place / "study")
    with pytest.raises(SystemExit, match="is no study of"):
        results.keep(QUICKSTART, place / "study")
    shutil.rmtree(place / "study")
    with pytest.raises(SystemExit, match="holds no study.json"):
        results.keep(STUDY, place / "study")


def test_what_was_made_before_the_newest_source_is_refused(place, monkeypatch):
    monkeypatch.setattr(results, "_git", lambda *words: {"status": "", "log": "1e12"}[words[0]])
    with pytest.raises(SystemExit, match="before the newest commit"):
        results.keep(QUICKSTART, write_run(place / "run", 1, 0.9))
    monkeypatch.setattr(results, "_git", lambda *words: " M src/x.py")
    with pytest.raises(SystemExit, match="changes that no commit names"):
        results.keep(QUICKSTART, place / "run")


def test_the_source_of_a_job_is_its_own_sentence():
    found = runs.source_of(JOBS / "cifar10" / "minixception_synchronous.toml")
    assert found == (
        "The source (Keras on a CPU, 1466-1509 s an epoch): training accuracy .8156 after 8 epochs."
    )
    assert runs.source_of(QUICKSTART) == ""


def scale_row(hosts, error, **more):
    row = {"network": "mlp 784-512-256-10", "hosts": hosts, "bits": 1e8, "delay": 0.002}
    row |= {"strategy": "synchronous", "predicted": 0.1 * (1 + error), "measured": 0.1}
    return row | {"error": error} | more


def test_predictions_beside_measurements_are_a_table_with_its_errors(place):
    (place / "results/scale").mkdir()
    about = {"cpu": "a CPU", "cores": 2, "versions": {"python": "3.11"}}
    rows = [scale_row(1, 0.02), scale_row(2, -0.2, strategy="local SGD, H = 4"), scale_row(4, 0.1)]
    content = {"created": "2026-11-29T11:00:00", "commit": "abc", "environment": about}
    content |= {"rows": rows, "missing": ["3 hosts at 100 Mbit/s and 2 ms"]}
    (place / "results/scale/hosts.json").write_text(json.dumps(content))
    page = results.results(results.kept(place / "results"))
    section = page[page.index("## Scale, predicted and measured") :]
    assert "|mlp 784-512-256-10|1|-|-|synchronous|102|100|+2.0 %" in section
    assert "|mlp 784-512-256-10|2|100|2|local SGD, H = 4|80.0|100.0|-20.0 %" in section
    assert "On 4 hosts a rank has a part of a core" in " ".join(section.split())
    said = "Off by 10.0 % in the median, by 20.0 % at most; 2 of 3 within 15 %. Not measured: 3 "
    assert f"{said}hosts at 100 Mbit/s and 2 ms. 2026-11-29, a CPU," in " ".join(section.split())
    assert max(map(len, page.splitlines())) <= 100


def filters_of(study):
    """Return the content of a filters.json with a run of each contestant and seed."""
    pixels = bytes(range(2 * 27)).hex()  # two filters of 3 x 3 x 3
    towers = [
        {"name": "tower 0", "shares": [0.1, 0.2], "pixels": pixels},
        {"name": "tower 1", "shares": [0.6, 0.7], "pixels": pixels},
    ]
    shape = {"path": "run", "kind": "towers", "size": 3, "channels": 3, "epochs": 8}
    labels = {each["label"]: each["seeds"] for each in study["contestants"]}
    means = {"least": [0.15] * 5, "most": [0.65] * 5, "colourful": [[0, 2]] * 5}
    found = {"kind": "towers", "filters": 2, "difference": 0.5, "p": 0.01} | means
    return {
        "runs": [
            {"label": label, "seed": seed, "towers": [*map(dict, towers)]} | shape
            for label, seeds in labels.items()
            for seed in seeds
        ],
        "found": [{"label": label, "seeds": seeds} | found for label, seeds in labels.items()],
    }


def test_filters_of_a_study_are_a_table_and_a_picture(place):
    study = study_of()
    (place / "study").mkdir()
    (place / "study" / "study.json").write_text(json.dumps(study))
    content = filters_of(study)
    (place / "study" / "filters.json").write_text(json.dumps(content))
    results.keep(STUDY, place / "study")
    kept = results.kept(place / "results")
    runs = kept.studies["studies-quickstart"]["filters"]["runs"]
    labels = {run["label"] for run in runs}
    assert sum(bool(run["towers"][0]["pixels"]) for run in runs) == len(labels) < len(runs)
    page = results.results(kept)
    assert "|ensemble on shards|towers|5|2|15.0|65.0|50.0|0.010|0 and 2 |" in page
    towers = max(study["contestants"], key=lambda each: each["ranks"])
    other = study["contestants"][0]
    gains = [
        100 * (a - b)
        for a, b in zip(towers["accuracy"]["values"], other["accuracy"]["values"], strict=True)
    ]
    beside = page.partition("What the network of")[2]
    row = next(each for each in beside.splitlines() if each.startswith(f"|{other['label']}|"))
    assert float(row.split("|")[2]) == pytest.approx(np.mean(gains), abs=0.006)
    assert float(row.split("|")[-2]) == pytest.approx(gains[-1], abs=0.006)
    assert max(map(len, page.splitlines())) <= 100 and "quickstart_filters-dark.svg" in page
    drawn = pictures.filter_picture(kept.studies["studies-quickstart"]["filters"], pictures.DARK)
    fields = [each for each in ElementTree.fromstring(drawn).iter() if each.tag.endswith("image")]
    assert len(fields) == 2 * len(labels) and "var(--" not in drawn
    assert max(map(len, drawn.splitlines())) <= 100
    data = next(value for name, value in fields[0].items() if name.endswith("href"))
    image = Image.open(io.BytesIO(base64.b64decode("".join(data.partition(",")[2].split()))))
    assert image.size == (7, 3) and image.getpixel((4, 0)) == (27, 28, 29, 255)


def test_filters_of_other_runs_are_refused(place):
    study = study_of()
    content = filters_of(study)
    content["found"][0]["seeds"] = [1]
    (place / "study").mkdir()
    (place / "study" / "study.json").write_text(json.dumps(study))
    (place / "study" / "filters.json").write_text(json.dumps(content))
    with pytest.raises(SystemExit, match=r"filters\.json is of other runs"):
        results.keep(STUDY, place / "study")


PYTORCHS = ("torch_ms", "ratio")


def step(precision, ratio, **more):
    """A step as tests/bench/zoo_steps.py keeps it, whose floor is its bytes."""
    row = {"network": "lenet", "batch": 32, "threads": 1, "precision": precision, "ensync_ms": 12.5}
    found = row | {"torch_ms": ratio * 12.5, "ratio": ratio, "arithmetic_ms": 3.0, "bytes_ms": 5.0}
    return found | more


def speed_of(*rows):
    about = {
        "cpu": "a CPU",
        "simd": "avx2",
        "cores": 2,
        "commit": "abc",
        "versions": {"numpy": "2"},
    }
    return {"zoo_steps": {"created": "2026-11-29T10:00:00", "made": about, "rows": list(rows)}}


def test_steps_stand_beside_pytorchs_and_those_below_twice_are_explained():
    found = speed_of(step("float32", 2.5), step("bf16", 1.6), step("float32", 3.0, batch=128))
    page = results.results(results.Kept(speed=found))
    for line in (
        "|lenet|32|1|12.5 / 12.5|31.2 / 20.0|2.50 / 1.60|5.00 / 5.00 |",
        "|lenet|128|1|12.5|37.5|3.00|5.00 |",
        "|lenet|32|1|bf16|1.60|bytes|40 %|25 % |",
    ):
        assert line in page.splitlines(), page
    assert "2 of 3 steps are at least 2 times as fast as PyTorch's, 0 slower than it." in page
    assert "2026-11-29, a CPU, 2 cores, avx2; commit abc; numpy 2." in page
    alone = {key: value for key, value in step("float32", 2.0).items() if key not in PYTORCHS}
    assert "|lenet|32|1|12.5|-|-|5.00 |" in results.results(results.Kept(speed=speed_of(alone)))


def test_other_processors_have_tables_of_their_own():
    (kept,) = speed_of(step("float32", 2.5)).values()
    other = kept | {"made": kept["made"] | {"cpu": "another CPU"}}
    found = {"zoo_steps": kept, "zoo_steps.another": other, "startup.another": kept}
    page = results.results(results.Kept(speed=found))
    assert page.count("### Training steps") == 1 and page.count("### Start") == 1
    assert page.index("a CPU, 2 cores") < page.index("another CPU, 2 cores")
    assert page.count("|lenet|32|1|12.5|31.2|2.50|5.00 |") == 2


def test_the_speed_that_the_readme_tells_is_what_was_kept():
    """Of each network and precision, both sides with the number of threads that suits them."""
    said = re.search(r"batch 32 are ([\d.]+) to ([\d.]+) times as fast as eager PyTorch", README)
    best = {}
    for row in KEPT.speed["zoo_steps"]["rows"]:
        if "torch_ms" in row and row["batch"] == 32:
            assert "compiled" not in row["torch_form"]
            sides = best.setdefault((row["network"], row["precision"]), ([], []))
            sides[0].append(row["ensync_ms"])
            sides[1].append(row["torch_ms"])
    ratios = [min(theirs) / min(ours) for ours, theirs in best.values()]
    assert said.groups() == (f"{min(ratios):.1f}", f"{max(ratios):.1f}")
