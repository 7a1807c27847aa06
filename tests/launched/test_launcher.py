"""A launcher that does not belong to the MPI library, and no MPI library at all, each get a
sentence.
"""

import os
import subprocess
import sys

import pytest
from launched import launch

from ensync.core.errors import EnsyncError
from ensync.mpi import launcher

pytestmark = [pytest.mark.mpi_skip, pytest.mark.timeout(60)]


def ensync(*arguments, **variables):
    return subprocess.run(
        [sys.executable, "-m", "ensync", *arguments],
        env=launch.environment() | variables,
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"PMI_SIZE": "1", "PMI_RANK": "0"},
        {"SLURM_NTASKS": "4", "SLURM_PROCID": "0"},  # a batch script that starts no ranks itself
        {"OMPI_COMM_WORLD_SIZE": "1", "SLURM_STEP_NUM_TASKS": "2"},  # mpirun -n 1 on two nodes
        {"PMI_SIZE": ""},
    ],
)
def test_one_rank_that_is_alone_is_alone(variables):
    launcher.check_before(variables, "MPICH")
    launcher.check_after(variables, "MPICH", 1)


@pytest.mark.parametrize("name", ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"])
def test_every_rank_alone_is_refused_with_the_variable_that_says_so(name):
    with pytest.raises(
        EnsyncError, match=rf"started 4 ranks \({name}=4\) but Open MPI sees 1.*srun --mpi=pmix"
    ):
        launcher.check_after({name: "4"}, "Open MPI", 1)
    launcher.check_after({name: "4"}, "Open MPI", 4)


def test_only_the_first_rank_speaks(monkeypatch):
    monkeypatch.setattr(launcher.time, "sleep", lambda seconds: None)
    with pytest.raises(SystemExit, match="2"):
        launcher.check_after({"PMI_SIZE": "4", "PMI_RANK": "3"}, "Open MPI", 1)


def test_open_mpis_mpirun_is_refused_before_another_library_aborts():
    with pytest.raises(EnsyncError, match="MPICH cannot join them.*pmi2"):
        launcher.check_before({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"}, "MPICH")
    launcher.check_before({"OMPI_COMM_WORLD_SIZE": "2"}, "Open MPI")


def test_a_mismatch_is_one_sentence_without_traceback():
    ended = ensync("train", "none.toml", SLURM_STEP_NUM_TASKS="3")
    assert (
        ended.returncode == 2 and "Traceback" not in ended.stderr and "Warning" not in ended.stderr
    )
    assert ended.stderr.count("the launcher started 3 ranks (SLURM_STEP_NUM_TASKS=3)") == 1


def test_without_an_mpi_library_training_says_what_to_install():
    ended = ensync("train", "none.toml", MPI4PY_LIBMPI=os.devnull)
    assert ended.returncode == 2 and "Traceback" not in ended.stderr
    assert (
        "no MPI library could be loaded" in ended.stderr
        and "pip install 'ensync[mpich]'" in ended.stderr
    )


def test_without_an_mpi_library_help_and_data_work(tmp_path):
    assert ensync("--help", MPI4PY_LIBMPI=os.devnull).returncode == 0
    ended = ensync("data", "--help", MPI4PY_LIBMPI=os.devnull)
    assert ended.returncode == 0, ended.stderr


def test_only_one_thread_at_a_time_calls_mpi():
    code = (
        "import ensync.mpi; from mpi4py import MPI; assert MPI.Query_thread() >= "
        "MPI.THREAD_SERIALIZED"
    )
    ended = launch.run(2, "-c", code)
    assert ended.code == 0, ended
