"""The values of a sweep are TOML, each has one safe directory of its own, and the batch script
sees them as the program does.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ensync.core.config.values import safe_name, split_values
from ensync.core.errors import EnsyncError
from ensync.report.collect import doubts
from ensync.runs.sweeping import swept

ROOT = Path(__file__).parents[2]


@pytest.fixture
def job(tmp_path):
    path = tmp_path / "job.toml"
    path.write_text('[data]\npath = "d.h5"\n[output]\ndirectory = "runs/a \\"b\\""\n')
    return str(path)


@pytest.mark.parametrize(
    ("over", "values"),
    [
        ("network.hidden=[64,32],[32]", [[64, 32], [32]]),
        ("optimizer.learning_rate=0.05, 1e-1", [0.05, 0.1]),
        ("network.activation=relu,'tanh'", ["relu", "tanh"]),
        ('data.path=data/a.h5,../b.h5,"c,d].h5"', ["data/a.h5", "../b.h5", "c,d].h5"]),
        ("training.deterministic=true,false", [True, False]),
    ],
)
def test_values_are_cut_at_the_commas_between_them(job, over, values):
    found = swept(job, over)
    assert [one.value for one in found] == values
    directories = [Path(one.job.output.directory) for one in found]
    name = over.partition("=")[0].partition(".")[2]
    assert len(set(directories)) == len(values)
    assert all(
        place.parent == Path('runs/a "b"') and place.name.startswith(name + "_")
        for place in directories
    )


@pytest.mark.parametrize(
    ("over", "sentence"),
    [
        ("optimizer.learning_rate=0.1,,0.2", "--over optimizer.learning_rate=0.1,,0.2;"),
        ("optimizer.learning_rate=0.1,", "--over optimizer.learning_rate=0.1,;"),
        ("optimizer.learning_rate=0.1,1e-1", "has 0.1 and 1e-1, the same value twice"),
        ("optimizer.learning_rate=0.1,0.1", "has 0.1 twice"),
        ("network.hidden=[64,32],[32", "brackets and quotes closed"),
        ("network.hidden=[64,'32]", "brackets and quotes closed"),
        ("output.directory=a,b", "--over output.directory;"),
        ("network.hidden", "write for example --over optimizer.learning_rate=0.05,0.1,0.2"),
        ("a.b.c=1,2", "section.key=value,value"),
    ],
)
def test_values_that_are_no_sweep_are_refused(job, over, sentence):
    with pytest.raises(EnsyncError) as caught:
        swept(job, over)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "0.001",
        "[64,32]",
        "..",
        "/etc/passwd",
        "a/../b",
        "x" * 300,
        "[[1,2],[3]]",
        "é",
        "a b",
        "%2F",
        "",
    ],
)
def test_a_value_becomes_one_part_of_a_path(text):
    name = safe_name(text)
    assert 0 < len(name) <= 60 and "/" not in name and name.isascii() and name == safe_name(text)
    assert name == text or "-" in name


def test_names_of_different_values_differ():
    texts = ["[64,32]", "[64, 32]", "64_32", "[6,432]", "64/32", "x" * 300, "x" * 301]
    assert len({safe_name(text) for text in texts}) == len(texts)


def test_escaped_quotes_do_not_end_a_value():
    assert split_values(r'"a\",b",c') == [r'"a\",b"', "c"]


def test_the_batch_script_has_the_same_runs(job):
    over = ["network.hidden=[64,32],[32]", "--set", 'output.directory=runs/it\'s "here"']
    line = 'source slurm/functions.sh && swept "$@"'
    done = subprocess.run(
        ["bash", "-c", line, "bash", job, *over],
        cwd=ROOT,
        env={**os.environ, "VENV": sys.prefix},
        capture_output=True,
        text=True,
    )
    expected = [(one.text, one.job.output.directory) for one in swept(job, over[0], over[2:])]
    lines = done.stdout.splitlines()
    assert list(zip(lines[0::3], lines[1::3], strict=True)) == expected, done
    assert swept(job, over[0], [lines[2]])[0].job.output.directory.startswith(expected[0][1])


def test_a_collection_tells_of_runs_left_out_and_of_other_differences(tmp_path):
    for name, epochs, hidden in (("a", 3, [8]), ("b", 3, [8, 4]), ("c", 5, [4])):
        (tmp_path / name).mkdir()
        result = {
            "format": "ensync-result",
            "version": 1,
            "seconds": 1.0,
            "test": {"soft_voting": {"accuracy": 0.9}},
            "job": {"training": {"epochs": epochs}, "network": {"hidden": hidden}},
        }
        (tmp_path / name / "result.json").write_text(json.dumps(result))
    a, b, c, gone = (tmp_path / name for name in ("a", "b", "c", "gone"))
    assert doubts("network.hidden", [a, b]) == []
    assert doubts("network.hidden", [a, gone, c]) == [
        f"1 of 3 runs left out, without a result.json: {gone}",
        "the runs differ in more than network.hidden: training.epochs",
    ]
