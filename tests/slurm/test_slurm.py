"""The batch scripts on a real Slurm of three nodes: every script, every launcher, and what
clusters do to jobs.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from slurm.batch import CLUSTER, PROJECT, run, submitted, wait_for

from ensync.storage.checkpoint import load_checkpoint, newest_valid

pytestmark = pytest.mark.timeout(400)
OPEN_MPI = PROJECT / ".venv-openmpi"
VENVS = [
    pytest.param(sys.prefix, id="this"),
    pytest.param(
        str(OPEN_MPI),
        id="openmpi",
        marks=pytest.mark.skipif(not OPEN_MPI.exists(), reason="no .venv-openmpi"),
    ),
]
EPOCHS = 150


def final(job):
    """Return the arrays of the job's newest checkpoint, which must be sound, with nothing left
    beside it.
    """
    path, rejected = newest_valid(job.directory / "checkpoints")
    assert path is not None and rejected == []
    assert not [name for name in os.listdir(path.parent) if name.endswith((".tmp", ".part"))]
    attributes, arrays = load_checkpoint(path)
    return attributes, arrays


def assert_same(job, other):
    """Both runs ended in the same state to the bit."""
    arrays, others = final(job)[1], final(other)[1]
    assert arrays.keys() == others.keys()
    for name in arrays:
        assert arrays[name].tobytes() == others[name].tobytes(), name


@pytest.fixture(scope="module")
def uninterrupted(site):
    """A run of two ranks on two nodes that nothing befalls."""
    return site.job("uninterrupted", "train", "--nodes=2", epochs=EPOCHS).end()


@pytest.fixture(scope="module", autouse=True)
def widowed(site):
    """Two runs, and the node that each has lost: the first, which runs the script, and the other.
    They are requeued, and end, while other tests run.
    """
    names = ["widowed-first", "widowed-other"]
    options = ("--nodes=2", "--partition=beside", "--exclusive")  # else both lose the first node
    jobs = [site.job(name, "train", *options, epochs=EPOCHS) for name in names]
    lost, used = [], []
    for job, which in zip(jobs, (0, 1), strict=True):
        job.reach(20)
        nodes = run("scontrol", "show", "hostnames", job.show("NodeList")).split()
        lost.append(nodes[which])
        used += nodes
        assert (job.show("BatchHost") == lost[-1]) == (which == 0)
        run(CLUSTER, "kill", lost[-1])
    assert len(set(used)) == 4
    return list(zip(jobs, lost, strict=True))


@pytest.mark.parametrize("venv", VENVS)
@pytest.mark.parametrize("launcher", ["srun", "mpirun"])
def test_two_nodes(site, venv, launcher):
    name = f"two-{launcher}-{Path(venv).name}"
    job = site.job(name, "train", "--nodes=2", epochs=5, VENV=venv, LAUNCHER=launcher).end()
    assert "2 ranks x 1 thread on 2 nodes (n1, n2)" in job.text and job.text.rstrip().endswith(
        "slurm: done"
    )
    assert json.loads((job.directory / "result.json").read_text())["test"]
    assert f"by {launcher}" in job.text


@pytest.mark.parametrize("venv", VENVS)
@pytest.mark.parametrize("launcher", ["srun", "mpirun"])
def test_preempted_it_saves_is_requeued_and_ends_to_the_bit_as_if_nothing_had_been(
    site, uninterrupted, venv, launcher
):
    name = f"preempted-{launcher}-{Path(venv).name}"
    job = site.job(name, "train", "--nodes=2", epochs=EPOCHS, VENV=venv, LAUNCHER=launcher)
    job.reach(10)
    site.urgent()
    job.end()
    assert job.show("Restarts") == "1", job.text
    assert (
        "signal USR1: the ranks are asked for a checkpoint" in job.text
        and "requeued" in job.text
        and "continuing from" in job.text
    )
    assert len(job.history()) == EPOCHS
    assert_same(job, uninterrupted)


def test_a_time_limit_is_met_with_a_checkpoint_and_a_restart(site):
    """Awaited at once: beside other tests, the run would take the cores from them."""
    options = ("--nodes=2", "--partition=beside", "--time=1")
    # Slurm sends it up to a minute early
    job = site.job("limited", "train", *options, "--signal=B:USR1@40", epochs=100_000)
    wait_for(lambda: "continuing from" in job.text, 120, lambda: job.text)
    assert "signal USR1: the ranks are asked for a checkpoint" in job.text
    assert int(job.show("Restarts")) >= 1  # the next limit may have come already
    job.reach(len(job.history()) + 5)
    run("scancel", job.number)
    job.end("CANCELLED", 20)
    epochs = [record["epoch"] for record in job.history()]
    assert epochs == list(range(1, len(epochs) + 1))
    final(job)


@pytest.mark.parametrize("launcher", ["srun", "mpirun"])
def test_a_signal_while_the_ranks_start_is_not_lost(site, launcher):
    job = site.job(f"early-{launcher}", "train", "--nodes=2", epochs=100_000, LAUNCHER=launcher)
    wait_for(lambda: "restart 0" in job.text, 30, lambda: job.text)
    run("scancel", "--batch", "--signal=USR1", job.number)
    wait_for(lambda: "requeued" in job.text, 30, lambda: job.text)
    run("scancel", job.number)
    job.end("CANCELLED", 20)


@pytest.mark.parametrize("venv", VENVS)
def test_a_rank_that_hangs_on_another_node_is_named_and_ends_the_job(site, venv):
    """Rank 0 learns it from the other node, where no rank can answer: the stopped one is alone
    there.
    """
    job = site.job(
        f"hung-{Path(venv).name}",
        "train",
        "--nodes=2",
        arguments=("--set", "training.watchdog=10"),
        epochs=100_000,
        VENV=venv,
    )
    job.reach(3)
    assert "cannot reach each other" not in job.text
    os.kill(int(re.search(r"rank 1: (\d+)", job.text)[1]), signal.SIGSTOP)
    begun = time.monotonic()
    job.end("FAILED", 60)
    assert time.monotonic() - begun < 10 + 20
    assert re.search(
        r"\[rank 0 of 2 on n1\] rank 0 waits in .*; rank 1 on n2 \(process \d+\) does not answer "
        r"any more; expected",
        job.text,
    ), job.text
    assert "ended with exit code" in job.text


def test_scancel_saves_and_stays_cancelled(site, uninterrupted):
    job = site.job("cancelled", "train", "--nodes=2", epochs=EPOCHS)
    job.reach(10)
    run("scancel", job.number)
    job.end("CANCELLED", 20)
    assert "ended by Slurm" in job.text and "requeued" not in job.text
    assert final(job)[0]["history"][-1]["epoch"] >= 10
    time.sleep(8)  # a requeued job would be back after 5
    assert job.state == "CANCELLED"
    again = site.job(
        "cancelled", "train", "--nodes=2", epochs=EPOCHS
    ).end()  # the same line again continues
    assert "continuing from" in again.text
    assert_same(again, uninterrupted)


@pytest.mark.parametrize("nodes", [1, 3])
def test_requeued_on_another_number_of_nodes_it_continues_to_the_same_result(
    site, uninterrupted, nodes
):
    job = site.job(f"resized-{nodes}", "train", "--nodes=2", epochs=EPOCHS)
    job.reach(10)
    site.urgent(5)
    wait_for(lambda: job.state == "PENDING", 60, lambda: job.text)
    run(
        "scontrol",
        "update",
        f"JobId={job.number}",
        f"NumNodes={nodes}-{nodes}",
        f"NumTasks={nodes}",
    )
    job.end()
    assert (
        job.show("NumNodes") == str(nodes)
        and "2 ranks x" in job.text
        and f"{nodes} rank" in job.text.split("requeued")[1]
    )
    assert len(job.history()) == EPOCHS
    assert job.history()[-1]["train_loss"] == pytest.approx(
        uninterrupted.history()[-1]["train_loss"], rel=1e-2
    )


def test_a_killed_rank_ends_the_job_within_ten_seconds(site):
    job = site.job("killed", "train", "--nodes=2", epochs=100_000)
    job.reach(10)
    ranks = [
        int(pid)
        for pid in os.listdir("/proc")
        if pid.isdigit() and rank_of(pid) == ("1", job.number)
    ]
    os.kill(ranks[0], 9)
    died = time.monotonic()
    job.end("FAILED", 20)
    seconds = time.monotonic() - died
    print(f"{seconds:.1f} s from a rank's death to the end of the job")
    assert seconds < 10
    assert "task 1: Killed" in job.text and "requeued" not in job.text
    final(job)


def rank_of(pid):
    """Return (rank, job) of a process that Slurm started as a rank, None of another."""
    try:
        entries = dict(
            entry.split("=", 1)
            for entry in Path(f"/proc/{pid}/environ").read_text().split("\0")
            if "=" in entry
        )
        python = b"python" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, UnicodeDecodeError):
        return None
    return (
        (entries.get("SLURM_PROCID"), entries.get("SLURM_JOB_ID"))
        if python and "PMI_RANK" in entries
        else None
    )


def test_a_mistake_ends_the_job_with_its_sentence(site):
    job = site.job("mistaken", "train", "--nodes=2", arguments=["--set", "training.epocs=3"]).end(
        "FAILED", 60
    )
    assert (
        job.text.count("\n") == 1
        and "'training.epocs'" in job.text
        and "did you mean 'epochs'" in job.text
    )
    assert job.show("ExitCode") == "2:0"


def test_of_two_jobs_in_one_directory_the_second_is_refused_and_not_requeued(site):
    first = site.job("shared", "train", "--nodes=1", epochs=100_000)
    first.reach(3)
    site.job(
        "shared", "train", "--nodes=1", f"--output={site.directory}/second.log", epochs=100_000
    ).end("FAILED", 60)
    text = (site.directory / "second.log").read_text()
    assert (
        f"'{first.directory}' is in use by `ensync train`, process " in text
        and f", SLURM_JOB_ID={first.number}, since " in text
    )
    assert "ended with exit code 2" in text
    first.reach(len(first.history()) + 3)
    run("scancel", first.number)
    first.end("CANCELLED", 20)


@pytest.mark.parametrize("which", [0, 1], ids=["the first node", "another node"])
def test_a_node_that_dies_in_the_middle(uninterrupted, widowed, which):
    job, node = widowed[which]
    job.end()
    assert job.show("Restarts") == "1" and node not in job.show("NodeList"), job.text
    assert final(job)[0]["history"][-1]["epoch"] == EPOCHS
    assert_same(job, uninterrupted)


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"SRUN_MPI": "pmix"}, "does not understand srun --mpi=pmix; expected pmi2"),
        ({"LAUNCHER": "ssh"}, "LAUNCHER=ssh; expected srun or mpirun"),
        ({"VENV": "/nowhere"}, "no command 'ensync'"),
    ],
    ids=["plugin", "launcher", "environment"],
)
def test_what_cannot_work_is_said_before_ranks_start(site, environment, sentence):
    job = site.job(
        "impossible-" + next(iter(environment)), "train", "--nodes=2", **environment
    ).end("FAILED", 60)
    assert job.text.count("\n") == 1 and sentence in job.text and job.text.startswith("ensync: ")
    assert job.show("ExitCode") == "2:0"


@pytest.mark.skipif(not OPEN_MPI.exists(), reason="no .venv-openmpi")
def test_open_mpi_with_mpichs_plugin_or_launcher_is_refused(site, tmp_path):
    job = site.job(
        "impossible-openmpi", "train", "--nodes=2", VENV=str(OPEN_MPI), SRUN_MPI="pmi2"
    ).end("FAILED", 60)
    assert "does not understand srun --mpi=pmi2; expected pmix" in job.text
    (tmp_path / "bin").mkdir()
    for program, venv in [("python", sys.prefix), ("ensync", sys.prefix), ("mpirun", OPEN_MPI)]:
        (tmp_path / "bin" / program).write_text(f'#!/bin/sh\nexec {venv}/bin/{program} "$@"\n')
        (tmp_path / "bin" / program).chmod(0o755)
    job = site.job(
        "impossible-mpirun", "train", "--nodes=2", VENV=str(tmp_path), LAUNCHER="mpirun"
    ).end("FAILED", 60)
    assert "belongs to another MPI than mpi4py's (MPICH" in job.text


def test_a_slurm_without_the_plugin_is_told_apart(site, tmp_path):
    (tmp_path / "srun").write_text('#!/bin/sh\necho "MPI plugin types are..."\necho "\tnone"\n')
    (tmp_path / "srun").chmod(0o755)
    job = site.job("without", "train", "--nodes=2", PATH=f"{tmp_path}:{os.environ['PATH']}").end(
        "FAILED", 60
    )
    assert "which this Slurm lacks" in job.text and "take LAUNCHER=mpirun" in job.text


def test_submit(site):
    ensync, directory = Path(sys.prefix) / "bin" / "ensync", site.directory / "submitted"
    line = [
        ensync,
        "submit",
        "jobs/quickstart.toml",
        "--ranks-per-node",
        "1",
        "--set",
        f"data.path={site.data}",
        "--set",
        f"output.directory={directory}",
        "--set",
        "training.epochs=2",
    ]
    dry = run(*line, "--nodes", "2", "--dry-run")
    assert "would run: sbatch --parsable --nodes=2" in dry and "#SBATCH --requeue" in dry
    text = run(*line, "--nodes", "2", VENV=sys.prefix, SBATCH_OUTPUT=f"{directory}.log")
    (job,) = submitted(text, directory)
    job.end()
    assert (
        str(directory / "history.jsonl") in text
        and f"slurm-ensync-train-{job.number}.out" in text
        and (directory / "result.json").exists()
    )
    for options, sentence in [
        (["--nodes", "4"], "at most 3, the nodes of partition 'debug'"),
        (["--partition", "debuk"], "did you mean 'debug'?"),
    ]:
        done = subprocess.run([*line, *options], cwd=PROJECT, capture_output=True, text=True)
        assert done.returncode == 2 and sentence in done.stderr


def test_the_doctor_under_srun(site):
    ensync = Path(sys.prefix) / "bin" / "ensync"
    text = run(
        "srun",
        "--mpi=pmi2",
        "--nodes=2",
        "--ntasks-per-node=1",
        "--cpus-per-task=1",
        "--cpu-bind=cores",
        "--kill-on-bad-exit=1",
        ensync,
        "doctor",
    )
    assert (
        "2 nodes (n1, n2) with 1 rank each" in text
        and "started by srun" in text
        and "a sum of 4 MB over 2 ranks is right" in text
    )
    assert "red" not in text.split() and text.count("MPI ") == 1


def test_compare(site):
    job = site.job("compared", "compare", "--nodes=2", epochs=3).end()
    assert "ensemble: soft voting" in job.text
    assert (job.directory / "comparison.html").exists()


def test_a_study_is_an_array_whose_cells_are_requeued_and_gathered(site):
    study = ["--seeds", "1", "--contestants", "synchronous,ensemble_shards"]
    job = site.job("studied", "compare", "--ntasks-per-node=2", arguments=study, epochs=100)
    array, page = job.end().submitted
    cells = job.directory / "cells"
    wait_for(lambda: list(cells.glob("*/*/*/checkpoints/*.h5")), 60, lambda: job.text)
    site.urgent()
    page.end()
    restarts = re.findall(r"Restarts=(\d+)", run("scontrol", "-o", "show", "job", array.number))
    assert "1" in restarts and len(list(cells.glob("*/ranks_2/seed_1/outputs.h5"))) == 2
    found = json.loads((job.directory / "study.json").read_text())
    assert (found["cells_done"], found["cells_left"]) == (2, 0)
    assert (job.directory / "study.html").exists()


def test_sweep_is_an_array_and_a_plot_that_waits_for_it(site):
    job = site.job(
        "swept", "sweep", arguments=["optimizer.learning_rate=0.001,0.004,0.016"], epochs=5
    )
    array, plot = job.end().submitted
    assert (
        run("squeue", "-h", "-t", "all", "-r", "-j", array.number, "-o", "%i").count(
            f"{array.number}_"
        )
        == 3
    )
    plot.end()
    rows = json.loads((job.directory / "sweep.json").read_text())["rows"]
    assert [row["value"] for row in rows] == [0.001, 0.004, 0.016] and all(
        row["test_accuracy"] for row in rows
    )
    assert (job.directory / "sweep.html").exists()


def test_sweep_submitted_from_a_login_node(site):
    directory = site.directory / "login"
    settings = {
        "data.path": site.data,
        "output.directory": directory,
        "training.threads": 1,
        "training.epochs": 2,
    }
    settings = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    text = run(
        "slurm/sweep.sbatch",
        "jobs/quickstart.toml",
        "network.hidden=[16,8],[8]",
        *settings,
        VENV=sys.prefix,
        SBATCH_OUTPUT=str(directory) + "-%j.log",
    )
    submitted(text, directory)[-1].end()
    assert [row["value"] for row in json.loads((directory / "sweep.json").read_text())["rows"]] == [
        [16, 8],
        [8],
    ]
    assert (directory / "sweep.html").exists()


def test_scaling_is_a_job_for_each_size_and_a_plot_that_waits_for_them(site):
    job = site.job("scaled", "scaling", arguments=["1", "2", "3"], epochs=5)
    job.end().submitted[-1].end()
    rows = json.loads((job.directory / "scaling.json").read_text())["rows"]
    assert [row["ranks"] for row in rows] == [1, 2, 3]
    assert (job.directory / "scaling.png").exists()


def test_a_script_without_a_job_file_says_how(site):
    for script in ["train", "compare", "sweep", "scaling"]:
        done = subprocess.run(
            [f"slurm/{script}.sbatch"],
            cwd=PROJECT,
            env={**os.environ, "VENV": sys.prefix},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 2 and "JOB.toml" in done.stderr and done.stderr.count("\n") == 1
    elsewhere = subprocess.run(
        [PROJECT / "slurm/train.sbatch", "job.toml"],
        cwd=site.directory,
        capture_output=True,
        text=True,
    )
    assert elsewhere.returncode == 2 and "submit from Ensync's directory" in elsewhere.stderr
