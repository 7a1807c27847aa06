"""`ensync data prepare` from end to end: every dataset, every wrong option, twice."""

import os
from functools import partial

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from samples import (
    ROOT,
    prepare,
    published,
    write_cifar,
    write_classes,
    write_csv,
    write_idx,
    write_pictures,
)

from ensync.cli.main import cli
from ensync.core.errors import EnsyncError
from ensync.storage.dataset import open_dataset
from ensync.storage.prepare import default_destination
from ensync.storage.sources import SOURCES, cifar
from ensync.storage.verification import check


def test_digits_need_no_files(tmp_path):
    seen = []
    done = prepare("digits", tmp_path / "d.h5", progress=lambda *step: seen.append(step))
    assert done.changed and str(done) == f"{tmp_path / 'd.h5'} is written"
    assert seen[-1] == ("writing test images", 359, 359)
    with open_dataset(tmp_path / "d.h5") as dataset:
        assert dataset.sizes == {
            "train": 1294,
            "validation": 144,
            "test": 359,
        } and dataset.shape == (8, 8, 1)
        spread = np.stack([dataset.counts[split] / dataset.sizes[split] for split in dataset.sizes])
        assert np.ptp(spread, axis=0).max() < 0.01  # every class has the same part of each split
    again = prepare("digits", tmp_path / "d.h5")
    assert not again.changed and "is there already and identical" in str(again)
    assert "in place of another dataset" in str(
        prepare("digits", tmp_path / "d.h5", validation=0.2)
    )
    for spoilt, words in (
        ("digests", "is written again"),
        ("mean", "in place of a damaged dataset"),
    ):
        with h5py.File(tmp_path / "d.h5", "r+") as file:
            if spoilt == "digests":
                del file["digests"]
            else:
                file["mean"][0] += 1
        assert words in str(prepare("digits", tmp_path / "d.h5", validation=0.2))


@pytest.mark.parametrize(
    ("name", "write", "options", "shape", "notes"),
    [
        ("mnist", write_idx, {}, (5, 4, 1), 5),
        ("fashion-mnist", write_idx, {}, (5, 4, 1), 5),
        ("cifar-10", lambda place: write_cifar(place, "bin", 10), {}, (32, 32, 3), 1),
        (
            "csv",
            lambda place: (place.mkdir(), write_csv(place / "train.csv")),
            {"bad_rows": "skip"},
            (4, 4, 1),
            2,
        ),
        ("images", write_pictures, {}, (9, 9, 3), 2),
        (
            "images",
            write_pictures,
            {"size": 8, "greyscale": True, "bad_rows": "skip"},
            (8, 8, 1),
            1,
        ),
    ],
)
def test_every_dataset_is_prepared_from_its_files(
    tmp_path, monkeypatch, name, write, options, shape, notes
):
    monkeypatch.setattr(cifar, "read_cifar10", partial(cifar.read_cifar10, rows=10))
    write(tmp_path / "files")
    done = prepare(name, tmp_path / "out" / "x.h5", tmp_path / "files", seed=5, **options)
    assert done.changed and len(done.notes) == notes and os.listdir(tmp_path / "out") == ["x.h5"]
    with open_dataset(done.path) as dataset:
        assert (
            dataset.shape == shape
            and dataset.name == name
            and dataset.fingerprint == done.fingerprint
        )
        assert dataset.layout.tables["notes"] == list(done.notes)
        check(dataset)
    assert not prepare(
        name, tmp_path / "out" / "x.h5", tmp_path / "files", seed=5, **options
    ).changed


@pytest.mark.parametrize("name", ["csv", "images"])
def test_validation_images_of_their_own_are_taken_whole_and_in_order(tmp_path, name):
    if name == "csv":
        write_csv(tmp_path / "train.csv")
        write_csv(tmp_path / "own.csv", 7)
    else:
        write_pictures(tmp_path / "train", ("a", "b", "c"))
        write_pictures(tmp_path / "own.csv", ("a", "c"), 3)
    place = tmp_path / "train.csv" if name == "csv" else tmp_path / "train"
    with pytest.raises(EnsyncError, match="--validation 0.2 with validation images of their own"):
        prepare(
            name, tmp_path / "x.h5", place, validation_from=tmp_path / "own.csv", validation=0.2
        )
    with open_dataset(
        prepare(name, tmp_path / "x.h5", place, validation_from=tmp_path / "own.csv").path
    ) as dataset:
        assert (
            dataset.preparation["validation"] == "as given"
            and dataset.preparation["test"] == 0.2
            and dataset.preparation["kind"] == name
        )
        assert dataset.labels("validation").tolist() == (
            [0, 1, 2, 0, 1, 2, 0] if name == "csv" else [0, 0, 0, 2, 2, 2]
        )
        assert dataset.sizes["train"] + dataset.sizes["test"] == (30 if name == "csv" else 18)


def test_a_class_that_train_lacks_is_refused_by_name(tmp_path):
    write_csv(tmp_path / "train.csv")
    (tmp_path / "test.csv").write_text(
        "\n".join(f"{label}," + ",".join(["7"] * 16) for label in (0, 9, 9, 5))
    )
    with pytest.raises(
        EnsyncError,
        match=r"the test images of csv have 2 classes that the training images lack: '5' \(1 "
        r"image\); '9' \(2 images\)",
    ):
        prepare("csv", tmp_path / "x.h5", tmp_path)


def test_the_command_line_hands_its_options_on(tmp_path):
    write_classes(
        tmp_path / "in", lambda path, seed: Image.new("I;16", (8, 8), 999 + seed).save(path)
    )
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "in" / "a" / "clear.png")
    write_pictures(tmp_path / "own", ("a",), 3)
    options = [
        "--size",
        "8",
        "--background",
        "#102030",
        "--range",
        "0,4095",
        "--validation-from",
        str(tmp_path / "own"),
    ]
    command = [
        "data",
        "prepare",
        "images",
        "--from",
        str(tmp_path / "in"),
        "--to",
        str(tmp_path / "x.h5"),
        *options,
    ]
    done = CliRunner().invoke(cli, command)
    assert (
        done.exit_code == 0
        and "transparent pixels, composed over #102030: 1 (a/clear.png)" in done.output
    ), done.output
    with open_dataset(tmp_path / "x.h5") as dataset:
        assert dataset.preparation["values"] == "0,4095" and dataset.sizes["validation"] == 3
    wrong = CliRunner().invoke(cli, [*command, "--background", "greenish"])
    assert isinstance(wrong.exception, EnsyncError) and "--background greenish" in str(
        wrong.exception
    )


def test_rows_of_a_table_that_are_in_train_and_test_are_told(tmp_path):
    write_csv(tmp_path / "train.csv")
    rows = (tmp_path / "train.csv").read_text().splitlines()
    write_csv(tmp_path / "test.csv", 5)
    with (tmp_path / "test.csv").open("a") as file:
        file.write("\n".join(rows[3:5]) + "\n")
    done = prepare("csv", tmp_path / "x.h5", tmp_path, validation=0)
    assert (
        "test images that are training images, too: 2 (row 6 of test is row 4 of train; row 7 of "
        "test is row 5 of train)" in done.notes
    )


def test_fashion_mnist_as_published(tmp_path):
    prepare("fashion-mnist", tmp_path / "f.h5", published("fashion-mnist"))
    with open_dataset(tmp_path / "f.h5") as dataset:
        assert dataset.sizes == {"train": 54_000, "validation": 6_000, "test": 10_000}
        assert {tuple(counts) for counts in dataset.counts.values()} == {
            (5400,) * 10,
            (600,) * 10,
            (1000,) * 10,
        }
        np.testing.assert_allclose(
            dataset.mean / 255, 0.2860, atol=5e-4
        )  # the figures everybody uses
        np.testing.assert_allclose(dataset.std / 255, 0.3530, atol=5e-4)
        assert dataset.layout.tables["notes"] == [] and dataset.class_names[9] == "Ankle boot"


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("mnits", {}, "the dataset 'mnits' (did you mean 'mnist'?)"),
        ("mnist", {}, "the dataset 'mnist' without --from DIR or --download"),
        ("mnist", {"directory": "x", "download": True}, "with both --from DIR and --download"),
        ("mnist", {"directory": "x", "size": 32}, "--size with the dataset 'mnist'"),
        (
            "mnist",
            {"directory": "x", "bad_rows": "skip"},
            "--bad-rows with the dataset 'mnist'",
        ),
        ("digits", {"directory": "x"}, "--from with the dataset 'digits'"),
        ("csv", {"download": True}, "--download with the dataset 'csv'"),
        ("csv", {}, "the dataset 'csv' without --from DIR"),
        (
            "images",
            {"directory": "x", "label": "y"},
            "--label with the dataset 'images'",
        ),
        ("images", {"directory": "x", "bad_rows": "drop"}, "--bad-rows drop"),
        ("images", {"directory": ".", "size": 0}, "--size 0"),
        ("digits", {"validation": 2.0}, "--validation 2.0"),
        ("digits", {"seed": -1}, "--seed -1"),
    ],
)
def test_each_wrong_option_has_its_sentence(tmp_path, name, options, sentence):
    with pytest.raises(EnsyncError) as caught:
        prepare(name, tmp_path / "x.h5", **options)
    assert sentence in str(caught.value) and os.listdir(tmp_path) == []


def test_the_default_place_is_data():
    assert str(default_destination("fashion-mnist")) == os.path.join("data", "fashion_mnist.h5")


@pytest.mark.parametrize("spec", SOURCES.values(), ids=SOURCES)
def test_each_source_is_explained_in_the_readme_and_in_help(spec):
    page = (ROOT / "data" / "README.md").read_text()
    assert f"| `{spec.name}` | {spec.content}" in page
    shown = CliRunner().invoke(cli, ["data", "prepare", "--help"]).output
    assert f"{spec.name:<14} {spec.content}\n" in shown and f"files: {spec.files}\n" in shown
    assert f" ensync data prepare {spec.name} {spec.example}".rstrip() in shown
    for flag in spec.options:
        assert f"--{flag} " in shown
