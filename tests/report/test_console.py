import inspect
import io
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ensync.report import tables, text
from ensync.report.console import Console, SilentConsole, make_console
from ensync.report.results import Comparison, Sweep, TopK, from_json
from ensync.report.terminal import Terminal

ESCAPE = "\x1b"
END = b"\x00end"


class Clock:
    """A clock that stands still until it is set."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def log(clock):
    """Return a console that writes into a buffer, as into a log."""
    console = Console(io.StringIO(), clock=clock)
    console.text = lambda: console._output.stream.getvalue()
    return console


def record(epoch: int, **more: object) -> dict:
    base = {
        "epoch": epoch,
        "train_loss": 0.5,
        "train_accuracy": 0.81,
        "validation_loss": 0.6,
        "validation_accuracy": 0.8,
        "learning_rate": 1e-3,
        "samples_per_second": 12_345.6,
        "seconds": 1.234,
    }
    return base | more


def columns(line: str) -> list[str]:
    return re.split(r" {2,}", line.strip())


def test_pairs_are_two_aligned_columns():
    lines = tables.pairs(
        {
            "versions": "Ensync 0.1.0",
            "running on": tables.places(4, 2, ["a", "b"]),
            "fusion": None,
            "seed": 1,
        }
    )
    assert columns(lines[0]) == ["versions", "Ensync 0.1.0"]
    assert "4 ranks x 2 threads on 2 nodes (a, b)" in lines[1]
    assert "seed" in lines[2] and "fusion" not in "".join(lines)
    assert len({re.match(r"  \S+(?: \S+)* +", line).end() for line in lines}) == 1


def test_epoch_lines_stand_under_their_heads(log):
    with log.training(range(100, 1201, 100)):
        log.epoch(record(1))
        log.epoch(
            record(12, train_loss=123.456, samples_per_second=1_234_567.0, validation_accuracy=None)
        )
    heads, first, last = log.text().splitlines()
    assert columns(first) == [
        "1/12",
        "0.5000",
        "81.00 %",
        "0.6000",
        "80.00 %",
        "0.001",
        "12,346",
        "1.23",
    ]
    assert columns(last)[1] == "123.4560" and columns(last)[4] == "-"
    assert len(heads) == len(first) == len(last)
    assert [m.end() for m in re.finditer(r"\S+(?: \S+)*", heads)] == [
        m.end() for m in re.finditer(r"\S+(?: \S+)*", first)
    ]


def test_members_share_one_line_with_mean_and_range(log):
    members = [
        record(
            1,
            member=m,
            train_loss=0.4 + 0.1 * m,
            train_accuracy=0.8 + 0.02 * m,
            samples_per_second=100.0,
            seconds=1.0 + m,
        )
        for m in range(3)
    ]
    log.epoch(members, epochs=5)
    heads, line = log.text().splitlines()
    assert columns(line)[1:3] == ["0.5000 (0.4000-0.6000)", "82.00 % (80.00-84.00)"]
    assert columns(line)[-2:] == ["300", "3.00"]
    assert len(heads) == len(line)


def test_a_diverged_member_is_counted_and_left_out(log):
    log.epoch(
        [
            record(1, train_loss=0.4),
            record(1, train_loss=float("nan"), train_accuracy=0.1),
            record(1, train_loss=0.2),
        ],
        epochs=5,
    )
    assert columns(log.text().splitlines()[1])[1:3] == [
        "0.3000 (0.2000-0.4000)",
        "81.00 % (81.00-81.00)",
    ] and log.text().endswith("(1 member diverged)\n")


def test_a_network_that_diverged_shows_a_dash(log):
    log.epoch(record(3, train_loss=float("nan"), validation_loss=float("inf")), epochs=5)
    assert columns(log.text().splitlines()[-1])[1:4] == ["-", "81.00 %", "-"]


@pytest.mark.parametrize("epochs", [5, 100, 1000])
@pytest.mark.parametrize("members", [1, 2, 200])
def test_an_epoch_is_one_line_of_80_columns(members, epochs):
    records = [record(1, train_accuracy=1.0, validation_accuracy=1.0 - m) for m in range(2)]
    for columns in (40, 80, 100, 120, 200):
        heads = tables.epoch_heads(epochs, members, columns)
        line = tables.epoch_line((records * 100)[:members], epochs, columns)
        assert len(heads) == len(line) <= columns
        assert "epoch" in heads and "validation" in heads


@pytest.mark.parametrize(
    ("members", "columns", "heads"),
    [
        (1, 80, "loss|train|val. loss|validation|samples/s|seconds"),
        (1, 88, "loss|train|val. loss|validation|learning rate|samples/s|seconds"),
        (3, 80, "loss|train|val. loss|validation|seconds"),
        (3, 200, "loss|train|val. loss|validation|learning rate|samples/s|seconds"),
        (3, None, "loss|train|val. loss|validation|learning rate|samples/s|seconds"),
    ],
)
def test_more_columns_are_shown_where_there_is_room(members, columns, heads):
    shown = re.split(r" {2,}", tables.epoch_heads(20, members, columns).strip())
    assert shown == ["epoch", *heads.split("|")]


def test_members_have_their_range_of_validation_at_80_columns():
    records = [record(1, validation_accuracy=share) for share in (0.7, 0.8, 0.9)]
    assert columns(tables.epoch_line(records, 5, 80)) == [
        "1/5", "0.5000", "81.00 %", "0.6000", "80.00 % (70.00-90.00)", "1.23"
    ]  # fmt: skip


def test_members_that_diverged_are_counted_within_80_columns():
    records = [record(1), record(1, train_loss=float("nan")), record(1)]
    line = tables.epoch_line(records, 5, 80)
    assert line.endswith("  (1 diverged)") and len(line) <= 80
    assert "80.00 % (80.00-80.00)" in line


def test_a_log_gets_a_progress_line_once_in_a_while(log, clock):
    with log.training(range(1000, 2001, 1000), step=500):
        for step in range(501, 1001):
            clock.now += 0.25
            log.step(step, 0.25)
    lines = log.text().splitlines()
    assert len(lines) == 4  # 125 s, one each 30 s
    assert columns(lines[0]) == [
        "epoch 1/2",
        "step 620 of 2,000",
        "4.00 steps/s",
        "loss 0.2500",
        "5:45 left",
    ]


def test_epochs_of_a_growing_batch_have_fewer_steps(log, clock):
    with log.training([80, 120, 140]):
        for step in range(1, 141):
            clock.now += 1
            log.step(step, 0.25)
    shown = [columns(line) for line in log.text().splitlines()]
    assert [(line[0], line[1], line[-1]) for line in shown] == [
        ("epoch 1/3", "step 30 of 140", "1:50 left"),
        ("epoch 1/3", "step 60 of 140", "1:20 left"),
        ("epoch 2/3", "step 90 of 140", "0:50 left"),
        ("epoch 3/3", "step 120 of 140", "0:20 left"),
    ]


def test_lines_put_off_the_next_progress_line(log, clock):
    with log.training(range(1000, 2001, 1000)):
        for step in range(1, 1001):
            clock.now += 0.1
            log.step(step, 0.25)
            if step % 200 == 0:
                log.line("an epoch")
    assert log.text() == "an epoch\n" * 5


def test_a_log_of_very_many_epochs_gets_few_of_their_lines(log, clock, monkeypatch):
    monkeypatch.setattr("ensync.report.console.LOG_EPOCHS", 5)
    for epoch in range(1, 101):
        clock.now += 1
        log.epoch(record(epoch), epochs=100)
    shown = [int(columns(line)[0].split("/")[0]) for line in log.text().splitlines()[1:]]
    assert shown == [1, 2, 3, 4, 5, 35, 65, 95, 100]


def test_steps_outside_training_say_nothing(log):
    log.step(5, 0.1)
    assert log.text() == ""


@pytest.fixture
def screen(clock, monkeypatch):
    """Return a console on a pseudo-terminal and a function that reads what it shows."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr("ensync.report.terminal._launcher", lambda: None)
    ours, theirs = os.openpty()
    with open(theirs, "w", encoding="utf-8") as stream, ThreadPoolExecutor(1) as reader:
        shown = reader.submit(read_until_end, ours)
        yield (
            lambda: Console(stream, clock=clock),
            lambda: os.write(theirs, END) and shown.result(timeout=20),
        )
        os.write(theirs, END)
        shown.result(timeout=20)
    os.close(ours)


def read_until_end(descriptor: int) -> str:
    data = b""
    while END not in data:
        data += os.read(descriptor, 65536)
    return data[: data.index(END)].decode()


def watch(console: Console, clock: Clock) -> None:
    with console.training(range(100, 301, 100)):
        for step in range(0, 150, 10):
            clock.now += 0.1
            console.step(step, 0.25)
        console.epoch(record(1))
        console.warn("slow")


def test_a_terminal_gets_a_bar_below_the_lines(screen, clock):
    open_console, read = screen
    watch(open_console(), clock)
    shown = read()
    assert "epoch 1/3" in shown and "epoch 2/3" in shown and "100 steps/s  loss 0.2500" in shown
    assert "learning rate" not in shown, "it has no room in 80 columns"
    assert (
        "  1/3     0.5000    81.00 %" in shown and f"{ESCAPE}[33mwarning: slow{ESCAPE}[0m" in shown
    )
    assert shown.count("steps/s") <= 10, "a few times per second at most"
    assert f"{ESCAPE}[?25l" not in shown, (
        "the cursor must not be hidden, an aborted run could not bring it back"
    )


def test_the_terminal_is_left_clean(screen, clock):
    open_console, read = screen
    console = open_console()
    with pytest.raises(KeyboardInterrupt):
        with console.training(range(100, 301, 100)):
            clock.now += 1
            console.step(5, 0.5)
            raise KeyboardInterrupt
    assert read().endswith(f"{ESCAPE}[1A{ESCAPE}[2K"), "the bar is wiped away"


def test_no_color_is_respected(screen, clock, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    open_console, read = screen
    watch(open_console(), clock)
    shown = read()
    assert (
        not re.search(rf"{ESCAPE}\[[0-9;]*3\d[0-9;]*m|{ESCAPE}\[[0-9;]*9\d[0-9;]*m", shown)
        and "warning: slow" in shown
    )


def test_a_pipe_gets_no_escape_codes_and_pays_for_no_terminal_library():
    program = """
import sys
from ensync.report.console import make_console
console = make_console(0)
with console.training([10, 20]):
    console.step(1, 0.5)
    console.epoch({"epoch": 1, "train_loss": 0.5})
    console.warn("w")
    console.advise("a")
console.line(str({"rich", "matplotlib", "scipy.stats", "jinja2"} & set(sys.modules)))
"""
    run = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env=os.environ | {"TERM": "xterm"},
    )
    assert ESCAPE not in run.stdout and run.stdout.endswith("warning: w\nadvice: a\nset()\n")


def test_names_from_files_cannot_steer_the_terminal(log, counts):
    log.warn("class \x1b[2J\rnamed\nso")
    log.test("\x1b]0;title", counts, ["\x1b[31mred"] + [str(i) for i in range(9)])
    assert (
        ESCAPE not in log.text()
        and "\r" not in log.text()
        and "warning: class \\x1b[2J\\rnamed\\nso\n" in log.text()
    )


def test_the_test_table_agrees_with_scikit_learn(log, counts):
    from sklearn.metrics import precision_recall_fscore_support

    labels = np.repeat(np.repeat(np.arange(10), 10), counts.ravel())
    predictions = np.repeat(np.tile(np.arange(10), 10), counts.ravel())
    names = [f"class {i}" for i in range(10)]
    log.test("synchronous", counts, names, loss=0.3, top_k=TopK(5, 0.99))
    lines = {columns(line)[0]: columns(line) for line in log.text().splitlines() if line}
    for place, expected in enumerate(zip(*precision_recall_fscore_support(labels, predictions))):
        assert lines[f"class {place}"][1:5] == [
            *map(text.percent, expected[:3]),
            f"{expected[3]:,}",
        ]
    for average, name in (("macro", "mean of classes"), ("weighted", "weighted by images")):
        expected = precision_recall_fscore_support(labels, predictions, average=average)[:3]
        assert lines[name][1:4] == [*map(text.percent, expected)]
    first = log.text().splitlines()[1]
    right = np.trace(counts) / counts.sum()
    assert (
        f"{text.percent(right)} of 10,000 images right (95 % interval" in first
        and first.endswith("loss 0.3000, among the 5 likeliest 99.00 %")
    )


def test_the_confusion_matrix_is_compact_and_left_out_when_too_wide(log, counts):
    log.test("net", counts, [f"class {i}" for i in range(10)])
    rows = log.text().splitlines()[-10:]
    shown = [[0 if cell == "." else int(cell) for cell in row.split()[3:]] for row in rows]
    np.testing.assert_array_equal(shown, counts)
    wide = np.eye(30, dtype=np.int64)
    before = len(log.text())
    log.test("net", wide, [str(i) for i in range(30)])
    assert "predicted by column" not in log.text()[before:]


def test_no_test_images_are_said(log):
    log.test("net", np.zeros((3, 3), np.int64), ["a", "b", "c"])
    assert log.text() == "\nTest, net: no images\n"


def test_the_comparison_table_has_dashes_and_notes(log, comparison):
    log.comparison(from_json(Comparison, comparison))
    lines = log.text().splitlines()
    cells = {columns(line)[0]: columns(line) for line in lines if line}
    assert cells["synchronous"][1:] == [
        "4",
        "89.69 %",
        "89.08 to 90.27 %",
        "89.64 %",
        "0.3600",
        "4.71",
        "3.01x",
        "75 %",
        "7.3 GB",
    ]
    assert cells["ensemble: weight averaging"][2:9] == ["-"] * 7
    assert any(line.startswith("  ensemble: weight averaging: members started") for line in lines)
    assert any(line.startswith("Synchronous training reached 89.69 %") for line in lines)
    assert len({len(line) for line in lines[1:7]}) == 1


def test_the_sweep_table(log, sweep):
    log.sweep(from_json(Sweep, sweep))
    assert columns(log.text().splitlines()[1]) == [
        "optimizer.learning_rate",
        "test accuracy",
        "95 % interval",
        "validation",
        "95 % interval",
        "seconds",
        "samples/s",
    ]
    assert columns(log.text().splitlines()[-1]) == ["0.03", *4 * "-", "5.00", "120,000"]


def test_the_other_ranks_are_silent_and_have_every_method(capfd):
    silent = make_console(3)
    names = [
        name
        for name, _ in inspect.getmembers(Console, inspect.isfunction)
        if not name.startswith("_")
    ]
    assert "step" in names and "epoch" in names
    for name in names:
        assert name in vars(SilentConsole)
        method = getattr(silent, name)
        if name == "training":
            with method(1, 2, step=0):
                silent.step(1, 0.5)
        elif name == "counting":
            with method() as progress:
                progress("unseen", 1, 2)
        elif name == "board":
            method([]).line("unseen")
        else:
            assert method(None) is None
    assert capfd.readouterr() == ("", "")


def test_a_verbose_rank_says_its_number(capfd):
    console = make_console(3, verbose=True)
    console.lines(["one", "two"])
    assert capfd.readouterr().out == "[rank 3] one\n[rank 3] two\n"


def test_rank_0_writes_to_standard_output(capfd):
    make_console(0).files({"page": "runs/comparison.html", "history": "runs/history.jsonl"})
    assert (
        capfd.readouterr().out
        == "\n  page     runs/comparison.html\n  history  runs/history.jsonl\n"
    )


def test_an_explicit_terminal_is_taken(clock):
    stream = io.StringIO()
    Console(stream, terminal=Terminal(60), clock=clock).warn("x")
    assert "warning: x" in stream.getvalue()


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (text.percent(0.97216), "97.22 %"),
        (text.percent(float("nan")), "-"),
        (text.number(0.00001234), "1.234e-05"),
        (text.number(0.0), "0.0000"),
        (text.count(1234567.8), "1,234,568"),
        (text.count(3.456), "3.46"),
        (text.seconds(0.0123), "0.0123"),
        (text.seconds(1234.5), "1,234"),
        (text.clock(59.2), "1:00"),
        (text.clock(3725), "1:02:05"),
        (text.size(999), "999 B"),
        (text.size(1500), "1.5 kB"),
        (text.size(7.31e9), "7.3 GB"),
        (text.size(999_900), "1.0 MB"),
        (text.factor(12.345), "12.3x"),
        (text.plural(1, "rank"), "1 rank"),
        (text.plural(2, "class", "classes"), "2 classes"),
        (text.pad("日本", 6), "  日本"),
    ],
)
def test_figures_as_text(shown, expected):
    assert shown == expected
