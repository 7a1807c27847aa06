"""A loaded run gives the numbers of `ensync evaluate` and `ensync predict`, and those that plain
numpy computes from its parameters.
"""

import base64
import io
import re
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import ensync
from ensync.core.errors import EnsyncError
from ensync.mpi.world import alone
from ensync.runs import predict
from ensync.storage.dataset import open_dataset


def naive_probabilities(parameters, images, dataset):
    """Return the outputs float64 (n, 10) of the mlp 64-24-10, computed in float64."""
    with open_dataset(dataset) as found:
        inputs = (images.reshape(-1, 64) - found.mean.astype(float)) / found.std.astype(float)
    first, rest = parameters[: 64 * 24].reshape(64, 24), parameters[64 * 24 :].astype(float)
    hidden = np.maximum(inputs @ first + rest[:24], 0)
    logits = hidden @ rest[24:264].reshape(24, 10) + rest[264:]
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def test_probabilities_are_those_of_plain_numpy(place, test_split):
    run, (images, _) = ensync.load(place.one.directory), test_split
    expected = naive_probabilities(
        run._tester.loaded.arrays["members/0000/parameters"], images, place.dataset
    )
    found = run.predict_proba(images)
    assert found.shape == (359, 10) and np.allclose(found.sum(1), 1)
    assert np.allclose(found, expected, atol=1e-5)
    assert np.array_equal(run.predict(images), expected.argmax(1))
    assert np.array_equal(run.predict_proba(images[..., 0]), found)  # grey without its axis
    assert np.array_equal(run.predict_proba(images[7:9]), found[7:9])


def test_an_ensemble_is_the_mean_of_its_members(place, test_split):
    run, (images, _) = ensync.load(place.several.path), test_split
    expected = [
        naive_probabilities(
            run._tester.loaded.arrays[f"members/{m:04d}/parameters"], images, place.dataset
        )
        for m in range(2)
    ]
    for member, probabilities in zip(run.members, expected, strict=True):
        assert np.allclose(member.predict_proba(images), probabilities, atol=1e-5)
    assert np.allclose(run.predict_proba(images), np.mean(expected, 0), atol=1e-5)
    votes = np.eye(10)[np.argmax(expected, 2)].mean(0)
    assert np.allclose(run.predict_proba(images, method="hard_voting"), votes)
    assert len({len(member.members) for member in run.members}) == 1


def test_scores_are_those_of_the_result(place, test_split):
    for run in (ensync.load(place.one.directory), ensync.load(place.several.directory)):
        assert run.score(*test_split) == run.result.test["soft_voting"].accuracy
        assert [member.score(*test_split) for member in run.members] == run.result.members
    names = np.array(run.class_names)[test_split[1]]
    assert run.score(test_split[0], names) == run.score(*test_split)


def test_averaged_weights_predict(place, test_split):
    run = ensync.load(place.several.directory)
    mean = np.mean([run._tester.loaded.arrays[f"members/{m:04d}/parameters"] for m in (0, 1)], 0)
    found = run.predict_proba(test_split[0], method="weight_averaging")
    expected = naive_probabilities(mean.astype(np.float32), test_split[0], place.dataset)
    assert np.allclose(found, expected, atol=1e-5)


@pytest.fixture
def lame(place):
    """The ensemble, whose member 1 has a parameter that is not finite."""
    run = ensync.load(place.several.directory)
    run._tester.loaded.arrays["members/0001/parameters"][0] = np.nan
    return run


def test_a_member_that_is_left_out_is_warned_of(lame, test_split, tmp_path):
    told = "member 1 is left out: its outputs are not finite"
    with pytest.warns(UserWarning, match=told) as warned:
        found = lame.predict_proba(test_split[0])
    assert warned[0].filename == __file__, "the user's line"
    assert np.array_equal(found, lame.members[0].predict_proba(test_split[0]))
    with pytest.warns(UserWarning, match=told):
        lame.export(tmp_path / "one.onnx")


def test_pictures_are_what_the_verb_predicts(place, test_split, tmp_path, capfd):
    for number, image in enumerate(test_split[0][:5, ..., 0]):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    predict.predict(alone(), str(place.one.directory), (str(tmp_path),), None, ())
    said = re.findall(r"png +(\d) ([\d.]+) %", capfd.readouterr().out)
    found = ensync.load(place.one.directory).predict_proba(test_split[0][:5])
    assert said == [(str(row.argmax()), f"{100 * row.max():.1f}") for row in found]


def test_no_dataset_is_needed(place, test_split, tmp_path):
    shutil.copytree(place.one.directory, tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    (tmp_path / "run" / "history.jsonl").unlink()
    here = place.dataset.rename(tmp_path / "away.h5")
    try:
        run = ensync.load(tmp_path / "run")
        assert np.array_equal(run.predict(test_split[0]), place.one.predict(test_split[0]))
    finally:
        here.rename(place.dataset)
    assert run.result is None and "<table>" not in run._repr_html_()
    assert run.history["epoch"].tolist() == [1, 2, 3]  # of the checkpoint


def test_history_is_columns(place):
    history = place.several.history
    assert history["member"].tolist() == [0, 1, 0, 1] and history["epoch"].dtype == np.int64
    assert {len(column) for column in history.values()} == {4}
    assert np.isfinite(history["validation_accuracy"]).all() and "event" not in history
    assert place.several.members[1].history["member"].tolist() == [1, 1]


def test_history_goes_into_pandas_where_that_is_installed(place, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=dict))
    assert place.one.history.to_pandas()["epoch"].tolist() == [1, 2, 3]
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(EnsyncError, match="without pandas"):
        place.one.history.to_pandas()


def test_a_run_is_found_one_level_deeper_and_several_are_named(place, tmp_path):
    assert ensync.load(place.path / "runs").directory == place.one.directory
    for name in ("a", "b"):
        shutil.copytree(place.one.directory, tmp_path / "several" / name)
    with pytest.raises(EnsyncError, match="holds 2 runs: .*/a', .*/b'; expected one of them"):
        ensync.load(tmp_path / "several")
    with pytest.raises(EnsyncError, match="holds no valid checkpoint"):
        ensync.load(place.dataset.parent)
    with pytest.raises(EnsyncError, match="no run at"):
        ensync.load(tmp_path / "nothing")


def test_no_images_give_no_answers(place):
    none = np.zeros((0, 8, 8, 1), np.uint8)
    assert place.one.predict(none).shape == (0,) and place.one.predict_proba(none).shape == (0, 10)


@pytest.mark.parametrize(
    "call, sentence",
    [
        (lambda run, x, y: run.predict(x / 255), r"images float64 .*expected uint8 \(n, 8, 8, 1\)"),
        (lambda run, x, y: run.predict(x[0]), "images uint8"),
        (lambda run, x, y: run.predict(x[:, :7]), "images uint8"),
        (lambda run, x, y: run.predict(x, "soft"), "did you mean 'soft_voting'"),
        (lambda run, x, y: run.score(x, y[:5]), "359 images with 5 labels"),
        (lambda run, x, y: run.score(x, y + 1), "numbers from 0 to 9"),
        (lambda run, x, y: run.score(x, y / 2), "numbers from 0 to 9"),
        (lambda run, x, y: run.score(x, y[:, None]), "one an image"),
    ],
)
def test_a_mistake_is_told_in_a_sentence(place, test_split, call, sentence):
    with pytest.raises(EnsyncError, match=sentence):
        call(place.one, *test_split)


def test_a_notebook_shows_what_it_reached(place):
    shown = place.several._repr_html_()
    assert f"{100 * place.several.result.test['soft_voting'].accuracy:.2f} %" in shown
    assert "<Run" not in shown and "fused/digits" in repr(place.several)
    picture = re.search(r'src="data:image/png;base64,([^"]+)"', shown)
    with Image.open(io.BytesIO(base64.b64decode(picture[1]))) as image:
        assert image.width > 300 and len(image.convert("RGB").getcolors(2**20)) > 10
