"""`ensync submit`: the line that hands a job file to Slurm, refused beforehand when the
partition cannot give what it asks for.
"""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ensync.core.errors import EnsyncError, nearest, plural, printable
from ensync.core.launching import started
from ensync.runs.options import Request

if TYPE_CHECKING:
    from ensync.core.config.job import Job

SCRIPT = "slurm/train.sbatch"


@dataclass(frozen=True)
class Partition:
    """What `sinfo` says of one partition. minutes: its time limit, None when it has none; cores:
    of its largest node.
    """

    name: str
    default: bool
    up: bool
    minutes: float | None
    nodes: int
    cores: int


def minutes(time: str) -> float:
    """Return the minutes of a time as Slurm writes it: MM, MM:SS, HH:MM:SS, D-HH, D-HH:MM,
    D-HH:MM:SS. Errors: EnsyncError.
    """
    days, dash, rest = time.rpartition("-")
    parts = rest.split(":")
    if not re.fullmatch("([0-9]+-)?[0-9]+(:[0-9]+){0,2}", time):
        raise EnsyncError(
            f"--time {time}", "MINUTES, HH:MM:SS or D-HH:MM:SS", "write for example --time 1:00:00"
        )
    numbers = [int(part) for part in parts]
    if dash:
        hours, mins, seconds = (numbers + [0, 0])[:3]
    else:
        hours, mins, seconds = {1: [0, *numbers, 0], 2: [0, *numbers], 3: numbers}[len(numbers)]
    return 1440 * int(days or 0) + 60 * hours + mins + seconds / 60


def read_partitions(text: str) -> list[Partition]:
    """Return the partitions from `sinfo -h -o "%P|%a|%l|%D|%c"`; lines of one partition (nodes
    that differ) are put together.
    """
    found: dict[str, Partition] = {}
    for line in text.splitlines():
        name, state, limit, nodes, cores = line.split("|")
        before = found.get(name.rstrip("*"))
        found[name.rstrip("*")] = Partition(
            name.rstrip("*"),
            name.endswith("*"),
            state == "up",
            None if limit == "infinite" else minutes(limit),
            int(nodes) + (before.nodes if before else 0),
            max(int(cores.rstrip("+")), before.cores if before else 0),
        )
    return list(found.values())


def check(request: Request, partitions: Sequence[Partition]) -> Partition:
    """Return the partition of the request. Errors: EnsyncError for what it cannot give."""
    names = {partition.name: partition for partition in partitions}
    default = next((partition for partition in partitions if partition.default), None)
    partition = names.get(request.partition) if request.partition else default
    if partition is None:
        given = (
            f"no partition '{request.partition}'{nearest(request.partition, names)}"
            if request.partition
            else "this Slurm has no default partition"
        )
        raise EnsyncError(given, f"one of {', '.join(names)}", "give --partition NAME")
    if not partition.up:
        raise EnsyncError(
            f"partition '{partition.name}' is down",
            "one that is up",
            "see sinfo, or give --partition NAME",
        )
    if request.nodes > partition.nodes:
        raise EnsyncError(
            f"--nodes {request.nodes}",
            f"at most {partition.nodes}, the nodes of partition '{partition.name}'",
            "ask for fewer, or give --partition NAME",
        )
    wanted = request.ranks_per_node * request.cores_per_rank
    if wanted > partition.cores:
        raise EnsyncError(
            f"{plural(request.ranks_per_node, 'rank')} x "
            f"{plural(request.cores_per_rank, 'core')} on a node",
            f"at most {plural(partition.cores, 'core')}, as nodes of '{partition.name}' have",
            "lower --ranks-per-node or --cores-per-rank",
        )
    if partition.minutes is not None and minutes(request.time) > partition.minutes:
        raise EnsyncError(
            f"--time {request.time}",
            f"at most {partition.minutes:g} minutes, the limit of partition '{partition.name}'",
            "ask for less: the job is requeued at its limit and continues by itself",
        )
    minutes(request.time)
    return partition


def command(request: Request, job: str, overrides: Sequence[str]) -> list[str]:
    """Return the sbatch line."""
    options = [
        f"--nodes={request.nodes}",
        f"--ntasks-per-node={request.ranks_per_node}",
        f"--cpus-per-task={request.cores_per_rank}",
        f"--time={request.time}",
    ]
    options += [f"--partition={request.partition}"] if request.partition else []
    return [
        "sbatch",
        "--parsable",
        *options,
        SCRIPT,
        job,
        *(part for value in overrides for part in ("--set", value)),
    ]


def submit(request: Request, path: str, overrides: Sequence[str], dry_run: bool) -> list[str]:
    """Submit a job file, after a look at it, its dataset and the partition.

    Return the lines to print: the job's number, and where its log, run and history will be; with
    dry_run what would be done. Errors: EnsyncError.
    """
    from ensync.core.config.job import load_job
    from ensync.storage.dataset import open_dataset

    _refuse_launcher()
    job = load_job(path, overrides)
    open_dataset(job.data.path).close()
    if not Path(SCRIPT).is_file():
        raise EnsyncError(
            f"no {SCRIPT} in {Path.cwd()}", "Ensync's directory", "change into it and submit again"
        )
    if shutil.which("sbatch") is None:
        raise EnsyncError(
            "no command 'sbatch' here",
            "a machine with Slurm",
            "run this on the cluster's login node, or use mpirun",
        )
    partition = check(request, read_partitions(_run(["sinfo", "-h", "-o", "%P|%a|%l|%D|%c"])))
    line = command(request, path, overrides)
    if dry_run:
        return [
            printable(f"would run: {shlex.join(line)}"),
            *_locations(job, "NUMBER"),
            "",
            *Path(SCRIPT).read_text().splitlines(),
        ]
    number = _run(line).strip().split(";")[0]
    return [
        f"job {number} on {request.nodes} of {partition.nodes} nodes of partition "
        f"'{partition.name}'",
        *_locations(job, number),
    ]


def _refuse_launcher() -> None:
    if (launch := started(os.environ)).size > 1:
        raise EnsyncError(
            f"`ensync submit` as one of {launch.size} ranks ({launch.name})",
            "one process",
            "run it without a launcher, outside of a job step",
        )


def _locations(job: "Job", number: str) -> list[str]:
    directory = Path(job.output.directory)
    return [
        printable(line)
        for line in (
            f"  log      slurm-ensync-train-{number}.out",
            f"  run      {directory}",
            f"  history  {directory / 'history.jsonl'}",
        )
    ]


def _run(line: Sequence[str]) -> str:
    done = subprocess.run(line, capture_output=True, text=True, errors="replace")
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise EnsyncError(
            f"Slurm refused: {said}", f"a line that {line[0]} takes", f"it was: {shlex.join(line)}"
        )
    return done.stdout
