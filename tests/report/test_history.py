import json

import pytest

from ensync.core.errors import EnsyncError
from ensync.report.files import write_whole
from ensync.report.history import History, read_history, rebuild, thin


def records(epochs: int, members: int = 1) -> list[dict]:
    return [
        {"event": "epoch", "member": m, "epoch": e, "step": 10 * e, "train_loss": 1 / e}
        for e in range(1, epochs + 1)
        for m in range(members)
    ]


def test_what_is_appended_is_read_back(tmp_path):
    history = History(tmp_path / "run" / "history.jsonl")
    for record in records(3):
        history.append(record)
    history.append(*records(1, members=4))
    assert history.read() == records(3) + records(1, members=4)


def test_no_history_is_an_empty_one(tmp_path):
    assert read_history(tmp_path / "none.jsonl") == []
    assert rebuild(tmp_path / "none.jsonl", []) == ""


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


def test_the_steps_after_a_checkpoint_are_dropped_without_a_word(tmp_path):
    path = tmp_path / "history.jsonl"
    history = History(path)
    history.append(*records(5, members=2))
    path.write_bytes(path.read_bytes()[:-7])
    assert rebuild(path, records(3, members=2)) == ""
    assert read_history(path) == records(3, members=2)
    history.append(*records(5, members=2)[6:])
    assert read_history(path) == records(5, members=2)
    assert [file.name for file in tmp_path.iterdir()] == ["history.jsonl"]


DAMAGES = {
    "garbage": (lambda lines: [*lines[:3], b"\xff{[", *lines[3:]], "restored 0, lines left out 1"),
    "another value": (
        lambda lines: [lines[0].replace(b"1.0", b"7.0"), *lines[1:]],
        "restored 1, lines left out 1",
    ),
    "cut": (lambda lines: lines[:3], "restored 5, lines left out 0"),
    "missing": (lambda lines: [], "restored 8, lines left out 0"),
    "twice": (lambda lines: [*lines, *lines], "restored 0, lines left out 8"),
    "another run's": (
        lambda lines: [
            *lines,
            b'{"epoch":2,"member":5,"step":15}',
            b"7",
            b'{"epoch":"2","member":0}',
        ],
        "restored 0, lines left out 3",
    ),
    "nested": (lambda lines: [b"[" * 100_000, *lines], "restored 0, lines left out 1"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_history_is_rebuilt_from_the_checkpoint_and_that_is_told(tmp_path, name):
    path, (damage, told) = tmp_path / "history.jsonl", DAMAGES[name]
    History(path).append(*records(4, members=2))
    path.write_bytes(b"".join(line + b"\n" for line in damage(path.read_bytes().splitlines())))
    assert rebuild(path, records(4, members=2)).endswith(told)
    assert read_history(path) == records(4, members=2)


def test_of_a_long_run_the_epochs_that_the_file_alone_has_are_kept(tmp_path):
    path, whole = tmp_path / "history.jsonl", records(12)
    History(path).append(*whole[:3], whole[3] | {"step": 7}, *whole[4:])
    assert rebuild(path, thin(whole)).endswith("restored 0, lines left out 1")
    assert [record["epoch"] for record in read_history(path)] == [
        1,
        2,
        3,
        5,
        6,
        7,
        8,
        9,
        10,
        11,
        12,
    ]
    assert rebuild(path, thin(whole)) == ""


def test_figures_that_are_not_finite_are_no_damage(tmp_path):
    path, diverged = (
        tmp_path / "history.jsonl",
        [record | {"train_loss": float("nan")} for record in records(3)],
    )
    History(path).append(*diverged)
    assert rebuild(path, diverged) == ""


def test_a_broken_line_does_not_end_a_long_run(tmp_path):
    history = History(tmp_path / "history.jsonl", limit_bytes=600)
    history.path.write_text("not JSON\n")
    history.append(*records(20))
    assert [record["epoch"] for record in history.read()] == [
        record["epoch"] for record in thin(records(20))
    ]


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
    monkeypatch.setattr(
        "os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(EnsyncError, match="No space left"):
        write_whole(path, "new")
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_every_line_is_json(tmp_path):
    history = History(tmp_path / "history.jsonl")
    history.append(*records(2))
    assert [json.loads(line)["step"] for line in history.path.read_text().splitlines()] == [10, 20]
