import json

import pytest

from ensync.errors import EnsyncError
from ensync.report.files import write_whole
from ensync.report.history import History, read_history, thin, truncate_after


def records(epochs: int, members: int = 1) -> list[dict]:
    return [{"event": "epoch", "member": m, "epoch": e, "step": 10 * e, "train_loss": 1 / e} for e in range(1, epochs + 1) for m in range(members)]


def test_what_is_appended_is_read_back(tmp_path):
    history = History(tmp_path / "run" / "history.jsonl")
    for record in records(3):
        history.append(record)
    history.append(*records(1, members=4))
    assert history.read() == records(3) + records(1, members=4)


def test_no_history_is_an_empty_one(tmp_path):
    assert read_history(tmp_path / "none.jsonl") == []
    assert truncate_after(tmp_path / "none.jsonl", 5) == 0


def test_figures_that_are_not_finite_become_null(tmp_path):
    history = History(tmp_path / "history.jsonl")
    history.append({"train_loss": float("nan"), "validation_loss": float("inf")})
    assert history.path.read_text() == '{"train_loss":null,"validation_loss":null}\n'


def test_a_last_line_cut_short_is_left_out(tmp_path):
    path = tmp_path / "history.jsonl"
    History(path).append(*records(3))
    whole = path.read_bytes()
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        assert read_history(path) == records(3)[: whole[:end].count(b"\n")]


def test_appending_after_a_cut_line_begins_a_new_one(tmp_path):
    path = tmp_path / "history.jsonl"
    History(path).append(*records(2))
    path.write_bytes(path.read_bytes()[:-5])
    History(path).append(records(3)[-1])
    assert [record["epoch"] for record in read_history(path)] == [1, 3]


def test_a_broken_line_in_the_middle_is_named(tmp_path):
    path = tmp_path / "history.jsonl"
    path.write_text('{"epoch":1}\nnot JSON\n{"epoch":3}\n')
    with pytest.raises(EnsyncError, match="line 2 of .*history.jsonl"):
        read_history(path)


def test_truncating_drops_what_a_resumed_run_writes_again(tmp_path):
    path = tmp_path / "history.jsonl"
    history = History(path)
    history.append({"event": "start"}, *records(5, members=2))
    assert truncate_after(path, 30) == 4
    assert read_history(path) == [{"event": "start"}, *records(3, members=2)]
    for record in records(5, members=2)[6:]:
        history.append(record)
    assert read_history(path) == [{"event": "start"}, *records(5, members=2)]
    assert [file.name for file in tmp_path.iterdir()] == ["history.jsonl"]


def test_thinning_keeps_the_newer_half_and_the_first_epoch():
    kept = [record["epoch"] for record in thin(records(12))]
    assert kept == [1, 3, 5, 7, 8, 9, 10, 11, 12]


def test_a_long_history_stays_below_its_limit(tmp_path):
    history = History(tmp_path / "history.jsonl", limit_bytes=4000)
    for record in records(500):
        history.append(record)
        assert history.path.stat().st_size <= 4000
    epochs = [record["epoch"] for record in history.read()]
    assert epochs[0] == 1 and epochs[-1] == 500 and epochs == sorted(set(epochs))


def test_a_directory_that_cannot_be_written_gets_its_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(EnsyncError, match="could not be written"):
        History(tmp_path / "file" / "history.jsonl")
    with pytest.raises(EnsyncError, match="could not be written"):
        write_whole(tmp_path / "missing" / "page.html", "text")


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "page.html"
    write_whole(path, "old")
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(EnsyncError, match="No space left"):
        write_whole(path, "new")
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_every_line_is_json(tmp_path):
    history = History(tmp_path / "history.jsonl")
    history.append(*records(2))
    assert [json.loads(line)["step"] for line in history.path.read_text().splitlines()] == [10, 20]
