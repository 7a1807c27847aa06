"""What a shell completes, and what tells it to."""

import shutil
import subprocess

import pytest
from click.shell_completion import ShellComplete, get_completion_class

from ensync.cli.main import cli, main

pytestmark = pytest.mark.mpi_skip


def completed(*words):
    """What is proposed for the last of the words."""
    asked = ShellComplete(cli, {}, "ensync", "_ENSYNC_COMPLETE")
    return asked.get_completions(list(words[:-1]), words[-1])


def values(*words):
    return [item.value for item in completed(*words)]


def test_verbs_and_options():
    assert values("ev") == ["evaluate"]
    assert values("data", "ver") == ["verify"]
    assert values("train", "--res") == ["--resume"]


def test_settings():
    assert "training.epochs" in values("train", "--set", "training.e")
    assert all(name.startswith("optimizer.g") for name in values("settings", "optimizer.g"))
    assert "optimizer.groups" in values("settings", "optimizer.g")


@pytest.mark.parametrize(
    "words",
    [
        ("train", "jo"),
        ("evaluate", "jo"),
        ("predict", "run", "jo"),
        ("evaluate", "run", "--data", "jo"),
        ("data", "verify", "jo"),
    ],
)
def test_files_are_left_to_the_shell(words):
    assert [(item.value, item.type) for item in completed(*words)] == [("jo", "file")]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_what_click_writes(shell, capsys):
    assert not main(["completion", shell])
    said = capsys.readouterr().out
    assert (
        said == get_completion_class(shell)(cli, {}, "ensync", "_ENSYNC_COMPLETE").source() + "\n"
    )
    if program := shutil.which(shell):
        subprocess.run([program, "-n"], input=said, text=True, check=True)
