"""Jobs on the throw-away Slurm: submit, watch, wait."""

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
CLUSTER = Path(__file__).parent / "cluster.sh"
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"}
# On hosts that share two cores, without a fast network, as root: ranks that wait leave the core to
# others, with Open MPI by yielding it, with MPICH by a short sleep.
FEW_CORES = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_btl": "^ofi",
    "OMPI_MCA_osc": "^ucx",
    "OMPI_MCA_mpi_yield_when_idle": "1",
    "PMIX_MCA_psec": "native",
    "MPIR_CVAR_ENABLE_HEAVY_YIELD": "1",
}


def run(*command, **environment):
    """Run a command from the project's directory and return what it printed."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=PROJECT,
        env={**os.environ, **FEW_CORES, **environment},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def wait_for(what, seconds, reason, pause=0.05):
    """Look every `pause` seconds until `what()` is true and return its value."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        if found := what():
            return found
        time.sleep(pause)
    pytest.fail(f"not within {seconds} s: {reason() if callable(reason) else reason}")


@dataclass
class Job:
    """A submitted job: its number, its log and its run's directory."""

    number: str
    log: Path
    directory: Path
    begun: float = field(default_factory=time.monotonic)

    @property
    def state(self):
        return run("squeue", "-h", "-t", "all", "-j", self.number, "-o", "%T").split()[0]

    @property
    def text(self):
        return self.log.read_text() if self.log.exists() else ""

    def show(self, key):
        """Return one field of `scontrol show job`."""
        return re.search(rf"\b{key}=(\S*)", run("scontrol", "-o", "show", "job", self.number))[1]

    @property
    def submitted(self):
        return submitted(self.text, self.directory)

    def history(self):
        path = self.directory / "history.jsonl"
        return (
            [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]
            if path.exists()
            else []
        )

    def reach(self, epochs, seconds=100):
        """Wait until so many epochs are trained."""
        wait_for(
            lambda: len(self.history()) >= epochs,
            seconds,
            lambda: f"{epochs} epochs of {self.number}, {self.state}:\n{self.text}",
        )

    def end(self, state="COMPLETED", seconds=200):
        """Wait for the end of the job, which must be of this kind. Each look starts a program."""
        found = wait_for(
            lambda: (state := self.state) in ENDED and state,
            seconds,
            lambda: f"the end of {self.number}, {self.state}:\n{self.text}",
            pause=0.25,
        )
        assert found == state, f"{found}:\n{self.text}"
        return self


def submitted(text, directory):
    """Return the jobs that a script says it has submitted."""
    return [Job(number, directory / "none", directory) for number in re.findall(r"job (\d+)", text)]


class Site:
    """A cluster and what is on its file system."""

    def __init__(self, directory):
        self.directory, self.data = directory, directory / "digits.h5"

    def job(
        self,
        name,
        script="train",
        *options,
        arguments=(),
        job_file="jobs/quickstart.toml",
        epochs=150,
        **environment,
    ):
        """Submit a script with a job file of its own directory and log."""
        directory, log = self.directory / name, self.directory / f"{name}.log"
        settings = {
            "data.path": self.data,
            "output.directory": directory,
            "training.threads": 1,
            "training.epochs": epochs,
            "checkpoint.every_epochs": 5,
        }
        settings = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        number = run(
            "sbatch",
            "--parsable",
            f"--output={log}",
            "--ntasks-per-node=1",
            *options,
            f"slurm/{script}.sbatch",
            job_file,
            *arguments,
            *settings,
            **{"VENV": sys.prefix, **environment},
        )
        return Job(number.strip(), log, directory)

    def urgent(self, seconds=1):
        """Submit a more urgent job that needs every node."""
        run(
            "sbatch",
            "--parsable",
            "--partition=urgent",
            "--nodes=3",
            "--exclusive",
            "--output=/dev/null",
            f"--wrap=sleep {seconds}",
        )
