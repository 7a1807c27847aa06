"""Every verb as a person types it, on real ranks, end to end: what it prints, what it writes,
and that the figures are right.
"""

import csv
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from launched import launch

from ensync.core.fusion import FUSIONS

pytestmark = [pytest.mark.mpi_skip, pytest.mark.timeout(400)]

ENSEMBLE = [
    "train",
    "job.toml",
    "--set",
    "training.strategy=ensemble",
    "--set",
    "output.directory=runs/ensemble",
    "--set",
    "training.epochs=6",
]
METHODS = list(FUSIONS)


@pytest.fixture(scope="module")
def synchronous(shared_place):
    """What training one network on two ranks printed; its run is runs/job."""
    return shared_place.done(2, "train", "job.toml", "--set", "training.epochs=12")


@pytest.fixture(scope="module")
def ensemble(shared_place):
    """What training an ensemble of three printed; its run is runs/ensemble."""
    return shared_place.done(3, *ENSEMBLE)


@pytest.fixture(scope="module")
def pictures(shared_place):
    """The test images of the dataset as files, in two sizes and two kinds; returns their labels."""
    from PIL import Image

    from ensync.storage.dataset import open_dataset

    dataset = open_dataset(str(shared_place / "digits.h5"))
    images, labels = dataset.read("test", 0, 60).reshape(60, 8, 8), dataset.labels("test")
    dataset.close()
    (shared_place / "pictures").mkdir()
    for row, image in enumerate(images):
        side, kind = (8 if row % 2 else 80), ("L" if row % 3 else "RGB")
        Image.fromarray(image).resize((side, side), Image.Resampling.NEAREST).convert(kind).save(
            shared_place / f"pictures/{row:02d}.png"
        )
    return labels


SWEEP = [
    "sweep",
    "job.toml",
    "--over",
    "optimizer.learning_rate=0.001,0.02",
    "--set",
    "output.directory=runs/swept",
]
EVALUATE = {
    "evaluate": ["evaluate", "runs/job"],
    "evaluate the ensemble": ["evaluate", "runs/ensemble"],
}
DESCRIBED = ["job.toml", "runs/job", "digits.h5"]
VERBS = [
    "",
    "init",
    "completion",
    "train",
    "resume",
    "evaluate",
    "fuse",
    "predict",
    "compare",
    "sweep",
    "collect",
    "describe",
    "settings",
    "data",
    "data prepare",
    "data describe",
    "data verify",
]


def outputs(records):
    """What rank 0 printed by each command, all of which must succeed with the other ranks
    silent.
    """
    for name, (root, *others) in records.items():
        assert (root["code"], root["err"]) == (0, "") and all(
            o == {"code": 0, "out": "", "err": ""} for o in others
        ), (name, root, others)
    return {name: ranks[0]["out"] for name, ranks in records.items()}


@pytest.fixture(scope="module")
def on_two(shared_place, synchronous, ensemble, pictures):
    """What verbs printed that read the two runs, on two ranks; runs/fused is a copy of the
    ensemble, as if it had been moved.
    """
    shutil.copytree(shared_place / "runs/ensemble", shared_place / "runs/fused")
    return outputs(
        shared_place.all_of(
            2,
            EVALUATE
            | {
                "fuse": ["fuse", "runs/fused"],
                "fuse two ways": [
                    "fuse",
                    "runs/fused",
                    "--method",
                    "hard_voting",
                    "--method",
                    "soft_voting",
                ],
                "predict": ["predict", "runs/job", "pictures"],
                "predict two": ["predict", "runs/job", "pictures/07.png", "pictures/08.png"],
                "sweep": SWEEP,
                "begin": ["train", "job.toml", "--set", "output.directory=runs/more"],
            },
        )
    )


@pytest.fixture(scope="module")
def on_one(shared_place, synchronous, ensemble):
    """What verbs printed in one process."""
    newest = f"runs/job/checkpoints/{shared_place.checkpoints()[-1]}"
    return outputs(
        shared_place.all_of(
            1,
            EVALUATE
            | {name: ["describe", name] for name in DESCRIBED}
            | {
                "newest": ["describe", newest],
                "data": ["data", "describe", "digits.h5"],
                "settings": ["settings"],
            }
            | {f"help {verb}": [*verb.split(), "--help"] for verb in VERBS},
        )
    )


def accuracy(confusion):
    return np.trace(confusion) / np.sum(confusion)


def test_train_says_what_it_does_and_writes_what_it_says(shared_place, synchronous):
    for words in (
        "2 ranks x 1 thread",
        "MPICH" if launch.library() == "MPICH" else "Open MPI",
        "216 train, 24 validation, 60 test",
        "mlp 64-16-10",
        "1,210 parameters",
        "synchronous, batch 32, 12 epochs",
        "Test, one network: ",
    ):
        assert words in synchronous, words
    assert len(re.findall(r"^ *\d+/12 ", synchronous, re.M)) == 12
    assert {"job.toml", "history.jsonl", "result.json", "checkpoints"} == {
        p.name for p in (shared_place / "runs/job").iterdir()
    }
    history = shared_place.history()
    assert [record["epoch"] for record in history] == list(range(1, 13)) and all(
        record["step"] == 7 * record["epoch"] for record in history
    )
    assert (
        history[-1]["train_loss"] < history[0]["train_loss"] and history[-1]["train_accuracy"] > 0.8
    )
    result = shared_place.result()
    (figures,) = result["test"].values()
    assert figures["rows"] == np.sum(figures["confusion"]) == 60 and figures[
        "accuracy"
    ] == pytest.approx(accuracy(figures["confusion"]))
    assert (
        figures["accuracy"] > 0.6
        and f"{100 * figures['accuracy']:.2f} % of 60 images right" in synchronous
    )
    kept = shared_place.checkpoints()
    assert "checkpoint-e00012-s000000084.h5" in kept and 2 <= len(kept) <= 3
    assert result["job"]["training"]["epochs"] == 12


def test_train_needs_no_mpirun(place):
    """By the command; all other tests start the module."""
    ended = subprocess.run(
        [launch.Path(sys.executable).with_name("ensync"), "train", "job.toml"],
        cwd=place.directory,
        env=launch.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "") and "1 rank x " in ended.stdout
    assert place.result()["test"]["soft_voting"]["rows"] == 60


def test_resume_goes_on_where_the_run_stood(shared_place, on_two):
    """A run of 3 epochs, resumed on 3 ranks up to 4, then on 2 ranks up to 12: to rounding the
    run of 12.
    """
    out = shared_place.done(3, "resume", "runs/more", "--set", "training.epochs=4")
    assert (
        "continuing from runs/more/checkpoints/checkpoint-e00003-s000000021.h5" in out
        and "3 ranks" in out
    )
    out = shared_place.done(2, "resume", "runs/more", "--set", "training.epochs=12")
    assert " 5/12 " in out and " 4/12 " not in out
    assert "epochs = 12\n" in (shared_place.directory / "runs/more/job.toml").read_text()
    found, expected = shared_place.history("runs/more"), shared_place.history()
    for key in ("epoch", "step", "train_loss", "validation_loss", "validation_accuracy"):
        assert [record[key] for record in found] == pytest.approx(
            [record[key] for record in expected], rel=1e-3
        ), key
    assert (
        shared_place.result("runs/more")["test"]["soft_voting"]["confusion"]
        == shared_place.result()["test"]["soft_voting"]["confusion"]
    )


def test_evaluate_finds_the_same_result_on_any_ranks(synchronous, ensemble, on_one, on_two):
    for name, printed in zip(EVALUATE, (synchronous, ensemble), strict=True):
        tested = printed[printed.index("\nTest, ") : printed.index("\n  result ")].strip()
        assert tested in on_one[name] and tested in on_two[name]


def test_an_ensemble_tells_each_member_and_their_fusion(shared_place, ensemble):
    for words in (
        "72 of 216 training rows for each of 3 members (shards)",
        "ensemble, batch 32, 6 epochs",
        "members alone: test accuracy ",
        "soft voting of 3 members: ",
    ):
        assert words in ensemble, words
    history = shared_place.history("runs/ensemble")
    assert sorted((r["epoch"], r["member"]) for r in history) == [
        (epoch, member) for epoch in range(1, 7) for member in range(3)
    ]
    result = shared_place.result("runs/ensemble")
    assert (
        len(result["members"]) == 3
        and list(result["test"]) == ["soft_voting"]
        and result["excluded"] == {}
    )


def test_fuse_tries_every_fusion_from_the_files(shared_place, on_two):
    said = {
        m: re.search(rf"{m.replace('_', ' ')} of 3 members: ([0-9.]+) % of 60", on_two["fuse"])
        for m in METHODS
    }
    assert all(said.values()), on_two["fuse"]
    test = json.loads((shared_place / "runs/fused/fusion.json").read_text())["test"]
    assert list(test) == ["hard_voting", "soft_voting"], (
        "the second fusion of two replaced the first of four"
    )
    assert shared_place.result("runs/fused") == shared_place.result("runs/ensemble"), (
        "the result of the training is as it was"
    )
    for method, figures in test.items():
        assert (
            float(said[method][1]) == pytest.approx(100 * figures["accuracy"], abs=0.01)
            and said[method][0] in on_two["fuse two ways"]
        )
        assert np.sum(figures["confusion"]) == 60 and figures["accuracy"] == pytest.approx(
            accuracy(figures["confusion"])
        )
    assert test["hard_voting"]["loss"] is None and test["soft_voting"]["loss"] > 0


def test_predict_names_the_classes_of_real_images(shared_place, pictures, on_two):
    """Files get the class that their labels say, as often as the test found."""
    lines = on_two["predict"].splitlines()
    found = dict(re.match(r"pictures/(\d+)\.png +(\S+) \d", line).groups() for line in lines)
    assert sorted(found) == [f"{row:02d}" for row in range(60)]
    right = sum(int(found[f"{row:02d}"]) == label for row, label in enumerate(pictures))
    assert right == round(60 * shared_place.result()["test"]["soft_voting"]["accuracy"])
    assert on_two["predict two"].splitlines() == [
        line for line in lines if line.startswith(("pictures/07", "pictures/08"))
    ]


def test_describe_tells_job_run_checkpoint_and_dataset(shared_place, on_one):
    job, run, dataset = (on_one[name] for name in DESCRIBED)
    assert "1,210 trainable parameters" in job and "1,040" in job and 'path = "digits.h5"' in job
    assert (
        run == on_one["newest"]
        and "epoch 12 of 12" in run
        and shared_place.checkpoints()[-1] in run
    )
    assert dataset == on_one["data"] and "300 images, 8 x 8 pixels, grey, 10 classes" in dataset
    assert "early_stopping = 0" in on_one["settings"] and "A first session:" in on_one["help "]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(on_one, verb):
    said = on_one[f"help {verb}"]
    assert said.startswith(f"Usage: ensync {verb}".rstrip())
    example = re.search(r"^ {4,}(ensync|mpirun) ", said, re.MULTILINE)
    assert example or verb in ("settings", "data", "data describe"), "no example"


def test_sweep_trains_each_value_and_plots(shared_place, on_two):
    swept = json.loads((shared_place / "runs/swept/sweep.json").read_text())
    assert [row["value"] for row in swept["rows"]] == [0.001, 0.02] and swept[
        "key"
    ] == "optimizer.learning_rate"
    assert swept["rows"][1]["test_accuracy"] > swept["rows"][0]["test_accuracy"]
    assert all(
        (shared_place / f"runs/swept/sweep.{kind}").stat().st_size
        for kind in ("csv", "html", "png")
    )
    assert (
        shared_place.checkpoints("runs/swept/learning_rate_0.001")
        and "sweep.png" in on_two["sweep"]
    )


def test_compare_writes_table_page_and_figures_that_agree(shared_place):
    out = shared_place.done(
        2,
        "compare",
        "job.toml",
        "--set",
        "output.directory=runs/compared",
        "--set",
        "training.epochs=6",
    )
    directory = shared_place / "runs/compared"
    comparison = json.loads((directory / "comparison.json").read_text())
    names = ["one rank", "synchronous", *(f"ensemble: {m.replace('_', ' ')}" for m in METHODS)]
    assert [row["name"] for row in comparison["rows"]] == names
    with (directory / "comparison.csv").open() as file:
        assert [row["name"] for row in csv.DictReader(file)] == names
    page = (directory / "comparison.html").read_text()
    for row in comparison["rows"]:
        confusion = comparison["confusions"][row["name"]]
        assert (
            row["test_accuracy"] == pytest.approx(accuracy(confusion)) and np.sum(confusion) == 60
        )
        assert (
            row["name"] in out
            and row["name"] in page
            and f"{100 * row['test_accuracy']:.2f} %" in out
        )
    one, synchronous = comparison["rows"][:2]
    assert synchronous["test_accuracy"] == one["test_accuracy"], (
        "two ranks train the network that one rank trains"
    )
    assert synchronous["bytes_sent"] > one["bytes_sent"] == 0 and "http" not in re.sub(
        r"http://www\.w3\.org\S*", "", page.lower().replace("https://github.com", "")
    )
    for part in ("one_rank", "synchronous", "ensemble"):
        assert shared_place.checkpoints(f"runs/compared/{part}")
    assert (
        len(comparison["histories"]["ensemble"]) == 12
        and "McNemar" in out
        or "no test image" in out
        or "same" in out
    )


def test_prepare_writes_a_dataset_that_trains(place):
    """Own images and a table, under mpirun too, where one rank does the work."""
    from PIL import Image

    draw = np.random.default_rng(1)
    for name, light in (("dark", 40), ("bright", 200)):
        (place / "photos" / name).mkdir(parents=True)
        for number in range(12):
            Image.fromarray(draw.integers(light, light + 40, (20, 30, 3), dtype=np.uint8)).save(
                place / "photos" / name / f"{number}.png"
            )
    table = np.hstack(
        [
            np.repeat([0, 1], 12)[:, None],
            np.repeat([3, 200], 12)[:, None] + draw.integers(0, 40, (24, 16)),
        ]
    )
    np.savetxt(place / "table.csv", table, fmt="%d", delimiter=",")
    small = ["--set", "training.batch=4", "--set", "training.epochs=4"]
    records = place.all_of(
        2,
        {
            "images": [
                "data",
                "prepare",
                "images",
                "--from",
                "photos",
                "--size",
                "8",
                "--to",
                "photos.h5",
            ],
            "csv": ["data", "prepare", "csv", "--from", "table.csv", "--to", "table.h5"],
            "again": ["data", "prepare", "csv", "--from", "table.csv", "--to", "table.h5"],
            "photos": [
                "train",
                "job.toml",
                "--set",
                "data.path=photos.h5",
                "--set",
                "output.directory=runs/photos",
                *small,
            ],
            "table": [
                "train",
                "job.toml",
                "--set",
                "data.path=table.h5",
                "--set",
                "output.directory=runs/table",
                *small,
            ],
        },
    )
    assert [[r["code"] for r in ranks] for ranks in records.values()] == [[0, 0]] * 5, records
    assert (
        "photos.h5 is written" in records["images"][0]["out"]
        and "nothing was changed" in records["again"][0]["out"]
    )
    assert [records[name][1]["out"] for name in records] == [""] * 5
    for run in ("runs/photos", "runs/table"):
        assert place.result(run)["test"]["soft_voting"]["accuracy"] == 1.0


def test_earlier_results_are_deleted_only_when_asked_and_that_is_told(place):
    one, over = ["job.toml", "--set", "training.epochs=1"], ["--over", "training.seed=1,2"]
    said = place.all_of(
        1,
        {
            "compare": ["compare", *one],
            "again": ["compare", *one],
            "afresh": ["compare", *one, "--overwrite"],
            "sweep": ["sweep", *one, *over],
            "swept": ["sweep", *one, "--over", "training.seed=2,3"],
            "sweep afresh": ["sweep", *one, *over, "--overwrite"],
        },
    )
    codes = {name: records[0]["code"] for name, records in said.items()}
    assert codes == {
        "compare": 0,
        "again": 2,
        "afresh": 0,
        "sweep": 0,
        "swept": 2,
        "sweep afresh": 0,
    }, said
    assert (
        "earlier results are there already: 'runs/job/one_rank', 'runs/job/ensemble', "
        "'runs/job/comparison.json' and 2 more" in said["again"][0]["err"]
    )
    assert (
        "deleted in runs/job/one_rank: 1 checkpoint, history.jsonl, runs/job/comparison.json, "
        "runs/job/comparison.csv, runs/job/comparison.html\n" in said["afresh"][0]["out"]
    )
    assert (
        "are there already: 'runs/job/seed_2', 'runs/job/sweep.json'" in said["swept"][0]["err"]
        and not (place / "runs/job/seed_3").exists()
    )
    assert (
        "deleted in runs/job/seed_2: 1 checkpoint, history.jsonl\n"
        in said["sweep afresh"][0]["out"]
    )
    shutil.rmtree(place / "runs/job/ensemble")
    before = place.history("runs/job/one_rank")
    said = place.all_of(
        1,
        {
            "compare": ["compare", *one, "--resume"],
            "another job": ["compare", "job.toml", "--resume"],
            "sweep": ["sweep", *one, "--over", "training.seed=2,3", "--resume"],
        },
    )
    assert [records[0]["code"] for records in said.values()] == [0, 2, 0], said
    assert (
        place.history("runs/job/one_rank") == before
        and said["compare"][0]["out"].count("continuing from ") == 1
    )
    rows = json.loads((place / "runs/job/comparison.json").read_text())["rows"]
    continued = [row["note"].startswith("continued: ") for row in rows]
    assert continued == [True] + [False] * len(METHODS) and rows[0]["bytes_sent"] is None
    assert (
        "'runs/job/one_rank' was trained with training.epochs = 1, and this job has 3"
        in said["another job"][0]["err"]
    )
    assert (
        "continuing from runs/job/seed_2/" in said["sweep"][0]["out"]
        and (place / "runs/job/seed_3").exists()
    )
