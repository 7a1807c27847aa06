"""What a run tells while it trains: callbacks, and event files for TensorBoard."""

import json
import re
import struct
import sys
from pathlib import Path
from types import ModuleType

import pytest

import ensync
from ensync.core.errors import EnsyncError
from ensync.report.callbacks import Callback
from ensync.runs.state import has_checkpoint

ROOT = Path(__file__).parents[3]


def settings(place, directory, **more):
    return {
        "data": place.dataset,
        "network": {"hidden": (8,)},
        "training": {"epochs": 2, "batch": 64},
        "output": {"directory": directory, **more.pop("output", {})},
    } | more


ENSEMBLE = {
    "training": {"epochs": 2, "batch": 64, "strategy": "ensemble"},
    "ensemble": {"members": 2},
}


class Kept(Callback):
    """Keeps what it is told; raises in one of its methods."""

    def __init__(self, failing=""):
        self.told, self.failing = [], failing

    def _keep(self, name, what):
        self.told.append((name, what))
        if name == self.failing:
            raise KeyError("no such run")

    def on_train_start(self, run):
        self._keep("start", run)

    def on_epoch_end(self, metrics):
        self._keep("epoch", metrics)

    def on_train_end(self, result):
        self._keep("end", result)

    def on_stop(self, reason):
        self._keep("stop", reason)


def test_it_is_told_what_the_files_of_the_run_tell(place, tmp_path):
    kept = Kept()
    run = ensync.train(settings(place, tmp_path / "run", **ENSEMBLE), quiet=True, callbacks=[kept])
    names, told = zip(*kept.told, strict=True)
    assert names == ("start", *["epoch"] * 4, "end")
    start, *epochs, end = told
    assert start.directory == tmp_path / "run" and (start.members, start.epoch) == (2, 0)
    assert start.settings["training.batch"] == 64
    assert end == run.result and len(end.members) == 2
    lines = (tmp_path / "run" / "history.jsonl").read_text().splitlines()
    for metrics, record in zip(epochs, map(json.loads, lines), strict=True):
        assert metrics.members == 2
        for name in ("member", "epoch", "step", "train_loss", "validation_accuracy", "seconds"):
            assert getattr(metrics, name) == record[name], name
        assert metrics.figures[f"member_{record['member']}/train_loss"] == record["train_loss"]
    more = settings(place, tmp_path / "run", **ENSEMBLE)
    more["training"] |= {"epochs": 2}
    again = Kept()
    ensync.train(more, resume=True, quiet=True, callbacks=[again])
    assert [name for name, _ in again.told] == ["start", "end"] and again.told[0][1].epoch == 2


@pytest.mark.parametrize("failing, left", [("start", False), ("epoch", True), ("end", True)])
def test_an_error_ends_the_run_in_a_sentence_and_nothing_is_lost(place, tmp_path, failing, left):
    kept = Kept(failing)
    job = settings(place, tmp_path / "run", checkpoint={"every_epochs": 0})
    sentence = r"the callback Kept failed with KeyError: 'no such run' \(test_callbacks.py, line"
    with pytest.raises(EnsyncError, match=sentence):
        ensync.train(job, quiet=True, callbacks=[kept])
    assert [name for name, _ in kept.told][-2:] == [failing, "stop"]
    assert "no such run" in kept.told[-1][1]
    assert has_checkpoint(tmp_path / "run") == left
    if failing == "epoch":
        run = ensync.train(job, resume=True, quiet=True)
        assert run.history["epoch"].tolist() == [1, 2]


def test_those_of_the_settings_are_found_by_name(place, tmp_path, monkeypatch):
    (tmp_path / "my_kept.py").write_text(
        "import ensync\nclass Logger(ensync.Callback):\n    epochs = []\n"
        "    def on_epoch_end(self, metrics):\n        self.epochs.append(metrics.epoch)\n"
        "class Other: pass\ndef broken():\n    raise OSError('no network')\n"
    )
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    job = settings(place, tmp_path / "run", output={"callbacks": ["my_kept:Logger"]})
    ensync.train(job, quiet=True)
    assert sys.modules.pop("my_kept").Logger.epochs == [1, 2] and sys.path == before


@pytest.mark.parametrize(
    "name, sentence",
    [
        ("my_wrong", "names 'my_wrong', which cannot be had: ValueError: it is not MODULE:OBJECT"),
        ("no_such:Logger", "ModuleNotFoundError: No module named 'no_such'"),
        ("json:Logger", "AttributeError: module 'json' has no attribute 'Logger'"),
        ("collections:OrderedDict", "that is of type OrderedDict; expected an object of a class"),
    ],
)
def test_what_is_no_callback_is_refused_before_training(place, tmp_path, name, sentence):
    job = settings(place, tmp_path / "run", output={"callbacks": [name]})
    with pytest.raises(EnsyncError, match=re.escape(sentence)):
        ensync.train(job, quiet=True)
    assert not (tmp_path / "run" / "history.jsonl").exists()


def test_the_example_of_the_readme_passes_figures_on(place, tmp_path, monkeypatch):
    text = (ROOT / "jobs" / "README.md").read_text()
    (code,) = re.findall(r"```python\n(# mlflow_logger\.py\n.*?)```", text, re.DOTALL)
    logged, mlflow = [], ModuleType("mlflow")
    for name in ("start_run", "log_params", "log_metrics", "end_run"):
        setattr(mlflow, name, lambda *given, _name=name, **named: logged.append((_name, given)))
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    (tmp_path / "mlflow_logger.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    job = settings(place, tmp_path / "run", output={"callbacks": ["mlflow_logger:MLflow"]})
    ensync.train(job, quiet=True)
    sys.modules.pop("mlflow_logger")
    names = [name for name, _ in logged]
    assert names == [
        "start_run",
        "log_params",
        "log_metrics",
        "log_metrics",
        "log_metrics",
        "end_run",
    ]
    assert logged[1][1][0]["training.epochs"] == 2 and "train_loss" in logged[2][1][0]
    assert list(logged[4][1][0]) == ["test_soft_voting"]


# --- event files, read by the published formats of TFRecord and of protocol buffers ---


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0x82F63B78 * (crc & 1)
    return crc ^ 0xFFFFFFFF


def masked(data):
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def records(content):
    while content:
        (length,), (crc,) = struct.unpack("<Q", content[:8]), struct.unpack("<I", content[8:12])
        data, end = content[12 : 12 + length], content[12 + length : 16 + length]
        assert crc == masked(content[:8]) and struct.unpack("<I", end)[0] == masked(data)
        yield data
        content = content[16 + length :]


def varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 128:
            return value, at


def fields(data):
    """Return the values of a message by the numbers of its fields."""
    found, at = {}, 0
    while at < len(data):
        key, at = varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, at = varint(data, at)
        else:
            length, at = varint(data, at) if kind == 2 else ({1: 8, 5: 4}[kind], at)
            value, at = data[at : at + length], at + length
        found.setdefault(number, []).append(value)
    return found


def scalars(directory):
    """Return the values of an event file's scalars by tag and step, and the tags of texts."""
    (path,) = directory.glob("events.out.tfevents.*")
    values, texts = {}, []
    for record in records(path.read_bytes()):
        event = fields(record)
        for summary in event.get(5, []):
            for value in map(fields, fields(summary)[1]):
                tag, step = value[1][0].decode(), event.get(2, [0])[0]
                if 2 in value:
                    values[tag, step] = struct.unpack("<f", value[2][0])[0]
                else:
                    texts.append((tag, value[8][0]))
    return values, texts


def test_event_files_have_a_curve_for_each_member(place, tmp_path):
    pytest.importorskip("tensorboardX")
    run = ensync.train(
        settings(place, tmp_path / "run", **ENSEMBLE, output={"tensorboard": True}), quiet=True
    )
    lines = (tmp_path / "run" / "history.jsonl").read_text().splitlines()
    whole, texts = scalars(tmp_path / "run" / "tensorboard")
    fused = run.result.test["soft_voting"].accuracy
    assert whole == {("accuracy/test_soft_voting", 2): pytest.approx(fused)}
    assert texts[0][0].startswith("job") and b"batch = 64" in texts[0][1]
    members = [scalars(tmp_path / f"run/tensorboard/member_{m}")[0] for m in (0, 1)]
    for record in map(json.loads, lines):
        found, epoch = members[record["member"]], record["epoch"]
        for tag, name in (
            ("loss/train", "train_loss"),
            ("loss/validation", "validation_loss"),
            ("accuracy/train", "train_accuracy"),
            ("accuracy/validation", "validation_accuracy"),
            ("training/learning_rate", "learning_rate"),
            ("training/images_per_second", "samples_per_second"),
        ):
            assert found[tag, epoch] == pytest.approx(record[name]), tag
    for member, accuracy in enumerate(run.result.members):
        assert members[member]["accuracy/test", 2] == pytest.approx(accuracy)
        assert len(members[member]) == 2 * 6 + 1
    ensync.train(settings(place, tmp_path / "run"), quiet=True, overwrite=True)
    assert not list((tmp_path / "run").rglob("events.*")), "deleted with what was there"


def test_without_the_writer_it_is_refused_in_a_sentence(place, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(EnsyncError, match=r"pip install 'ensync\[tensorboard\]'"):
        ensync.train(settings(place, tmp_path / "run", output={"tensorboard": True}), quiet=True)
