"""The runs in a directory: listed where there are several, taken where there is one; and every path
that a verb prints stands for a run or for the directory of several.
"""

import json

import pytest

from ensync.cli.main import main
from ensync.core.config.job import dump_job, job_from_dict
from ensync.mpi.world import alone
from ensync.runs import studies
from ensync.runs.below import choose, directory_of, listed, runs_below
from ensync.runs.options import RunOptions
from ensync.storage.checkpoint import checkpoint_name
from ensync.storage.sources.digits import read_digits
from ensync.storage.writing import write_dataset

pytestmark = [pytest.mark.mpi_skip, pytest.mark.timeout(240)]  # run alone, it compiles

TAKE_A_RUN = ["describe", "evaluate", "fuse", "predict", "resume"]


def code_of(*arguments):
    """Run a command line in this process; return its exit code, as one rank ends with it."""
    try:
        return main(list(arguments))
    except SystemExit as end:
        return end.code


def leave_run(directory, ended, epoch=2, epochs=2, **training):
    """Write what a run leaves, but for what its checkpoint holds; ended: why, by member."""
    (directory / "checkpoints").mkdir(parents=True)
    (directory / "checkpoints" / checkpoint_name(epoch, 7)).write_bytes(b"")
    job = {"data": {"path": "digits.h5"}, "training": {"epochs": epochs, **training}}
    job["output"] = {"directory": str(directory)}
    (directory / "job.toml").write_text(dump_job(job_from_dict(job)))
    records = [
        {"member": member, "epoch": epoch} | ({"ended": why} if why else {})
        for member, why in enumerate(ended)
    ]
    (directory / "history.jsonl").write_text("".join(f"{json.dumps(r)}\n" for r in records))


@pytest.fixture
def several(tmp_path, monkeypatch):
    """A working directory with runs/ of three runs at different depths, and one too deep."""
    monkeypatch.chdir(tmp_path)
    runs = tmp_path / "runs"
    leave_run(runs / "one", ["all 2 epochs"])
    leave_run(runs / "a/b/c/d", ["early stopping", "all 2 epochs"], strategy="ensemble")
    leave_run(runs / "a/more", ["all 2 epochs"], epochs=3)
    leave_run(runs / "a/b/c/d2/e", ["all 2 epochs"])
    (runs / "a/notes").mkdir()
    return tmp_path


def test_runs_are_found_down_to_the_depth_of_a_studys_cells(several):
    found = runs_below(several / "runs")
    assert [str(path.relative_to(several / "runs")) for path in found] == [
        "a/b/c/d",
        "a/more",
        "one",
    ]


def test_the_list_says_what_each_run_is_and_whether_it_is_done(several):
    leave_run(several / "runs/begun", ["", ""], epoch=1)
    (several / "runs/begun/job.toml").write_text("[training")
    rows = [line.split() for line in listed(runs_below(several / "runs"))]
    assert [[cell.removeprefix(f"{several}/") for cell in row] for row in rows] == [
        ["run", "strategy", "members", "epochs", "state"],
        ["runs/a/b/c/d", "ensemble", "2", "2", "of", "2", "done"],
        ["runs/a/more", "synchronous", "1", "2", "of", "3", "not", "done"],
        ["runs/begun", "-", "2", "1", "of", "-", "not", "done"],
        ["runs/one", "synchronous", "1", "2", "of", "2", "done"],
    ]


@pytest.mark.parametrize("verb", TAKE_A_RUN)
def test_several_runs_are_listed_and_refused(verb, several, capsys):
    assert code_of(verb, "runs", *["digit.png"] * (verb == "predict")) == 2
    told = capsys.readouterr()
    assert [line.split()[0] for line in told.out.splitlines()] == [
        "run", "runs/a/b/c/d", "runs/a/more", "runs/one"
    ]  # fmt: skip
    assert told.err.startswith("'runs' holds 3 runs; expected ") and told.err.count("\n") == 1
    assert f"`ensync {verb} runs/a/b/c/d" in told.err
    assert all(name in told.err for name in [*TAKE_A_RUN, "ensync collect"])


def test_of_a_study_its_verb_is_named(several):
    (several / "runs/study.json").write_text("{}")
    assert "`ensync report runs` takes the study" in str(choose("runs", "evaluate").refusal)


def test_a_run_is_taken_though_others_lie_in_it(several):
    leave_run(several / "runs/one/two", ["all 2 epochs"])
    assert choose("runs/one", "evaluate") == ("runs/one", (), None)


@pytest.mark.parametrize(
    ("ended", "settings", "state"),
    [
        ("all 2,000 steps", {"max_steps": 2000}, "done"),
        ("all 2 epochs", {"epochs": 20}, "not done"),
        ("diverged after step 3", {"epochs": 20}, "done"),
        ("", {"epochs": 20}, "not done"),
    ],
)
def test_a_run_is_done_when_all_its_members_are(ended, settings, state, tmp_path):
    leave_run(tmp_path / "run", ["early stopping", ended], **settings)
    assert listed([tmp_path / "run"])[1].endswith(f"  {state}")


@pytest.mark.parametrize("name", ["history.jsonl", "checkpoints"])
def test_what_lies_beside_a_run_stands_for_it(name, several):
    assert choose(f"runs/one/{name}", "evaluate").path == "runs/one"


def test_what_is_of_no_run_stays_as_it_is(several):
    (several / "empty").mkdir()
    (several / "empty/table.csv").write_text("")
    for path in ("runs/nothing", "empty", "empty/table.csv"):
        assert choose(path, "evaluate") == (path, (), None)
    assert directory_of(several / "runs/one/job.toml") == several / "runs/one/job.toml"


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """The directory of a comparison of one epoch on one rank, and what it printed of files."""
    place = tmp_path_factory.mktemp("compared")
    write_dataset(place / "digits.h5", read_digits(), validation=0.1, seed=1)
    job = job_from_dict(
        {
            "data": {"path": str(place / "digits.h5")},
            "network": {"name": "mlp", "hidden": [8]},
            "training": {"epochs": 1, "batch": 256, "threads": 1},
            "output": {"directory": str(place / "runs")},
        }
    )
    (place / "job.toml").write_text(dump_job(job))
    return place


def paths_of(printed):
    """The paths in the block that a verb ends with."""
    block = printed.rstrip().rpartition("\n\n")[2]
    return [line.split(maxsplit=1)[1] for line in block.splitlines()]


def test_every_path_that_a_verb_prints_works_behind_the_next(compared, capsys):
    studies.compare(alone(), str(compared / "job.toml"), RunOptions())
    ended = paths_of(capsys.readouterr().out)
    assert {path.rpartition("/")[2] for path in ended} >= {"comparison.json", "runs"}
    for path in ended:
        code_of("evaluate", path)
        told = capsys.readouterr()
        assert "runs/ensemble" in told.out and " holds " in told.out + told.err, told
    assert code_of("resume", str(compared / "runs/ensemble")) == 0
    ended = paths_of(capsys.readouterr().out)
    assert len(ended) == 3
    for path in ended:
        for verb in ("describe", "evaluate", "resume"):
            assert code_of(verb, path) == 0, (verb, path)
        told = capsys.readouterr()
        assert told.err == "" and "of 359 images right" in told.out


def test_the_only_run_in_a_directory_is_taken_and_told(several, capsys):
    run = "runs/a/b/c/d2/e"
    assert choose("runs/a/b/c/d2", "evaluate").path == run
    assert code_of("evaluate", "runs/a/b/c/d2") == 2  # its checkpoint is empty
    told = capsys.readouterr()
    assert told.out == f"'runs/a/b/c/d2' holds one run, which is taken: {run}\n"
    assert f"'{run}' holds no valid checkpoint" in told.err
