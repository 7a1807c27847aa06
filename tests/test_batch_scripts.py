"""The batch scripts as texts; tests/slurm runs them on a real Slurm."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SLURM = Path(__file__).parents[1] / "slurm"
SCRIPTS = sorted(SLURM.glob("*.sbatch"))


def test_all_are_here():
    assert [script.stem for script in SCRIPTS] == ["compare", "scaling", "sweep", "train"]


@pytest.mark.parametrize(
    "script",
    [*SCRIPTS, SLURM / "environment.sh", SLURM / "functions.sh"],
    ids=lambda path: path.name,
)
def test_bash_reads_it(script):
    assert subprocess.run(["bash", "-n", script], capture_output=True, text=True).stderr == ""


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_every_sbatch_line_has_its_reason_and_none_stands_too_late(script):
    lines = script.read_text().splitlines()
    places = [place for place, line in enumerate(lines) if line.startswith("#SBATCH")]
    assert all(re.match(r"# [a-z0-9]", lines[place - 1]) for place in places)
    first_command = next(
        place for place, line in enumerate(lines) if line and not line.startswith("#")
    )
    assert places and max(places) < first_command  # sbatch stops reading at the first command


def test_all_settings_that_srun_would_guess_are_given():
    launch = (SLURM / "functions.sh").read_text()
    joined = launch.replace("\\\n", "")
    line = next(line for line in joined.splitlines() if "exec srun" in line)
    for option in [
        "--mpi=",
        "--ntasks=",
        "--cpus-per-task=",
        "--cpu-bind=",
        "--kill-on-bad-exit=1",
    ]:
        assert option in line


def test_what_python_says_at_its_end_is_no_part_of_a_path(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        'import atexit\nprint("a banner")\natexit.register(print, "a farewell")\n'
    )
    (tmp_path / "job.toml").write_text('[data]\npath = "d.h5"\n[output]\ndirectory = "runs/a b"\n')
    line = (
        f"source slurm/functions.sh && output_directory {tmp_path}/job.toml --set training.epochs=2"
    )
    environment = {
        **os.environ,
        "VENV": sys.prefix,
        "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}",
    }
    done = subprocess.run(
        ["bash", "-c", line], cwd=SLURM.parent, env=environment, capture_output=True, text=True
    )
    assert done.stdout == "runs/a b" and "a banner" in done.stderr


def test_an_active_environment_is_no_substitute_for_the_one_in_venv():
    environment = {
        **os.environ,
        "VENV": "/nowhere",
        "VIRTUAL_ENV": sys.prefix,
        "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}",
    }
    done = subprocess.run(
        [SLURM / "train.sbatch", "jobs/quickstart.toml"],
        cwd=SLURM.parent,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert (
        done.returncode == 2
        and "no command 'ensync' in /nowhere/bin" in done.stderr
        and done.stderr.count("\n") == 1
    )
