"""The doctor's judgement on facts of machines that are not here."""

import os
import re
import subprocess
from dataclasses import replace

import pytest
from samples import ROOT

from ensync.runs import fitness, open_mpi
from ensync.runs.fitness import Rank, Site

GOOD = Site(True, 4 << 20, 1e-3, "/scratch/runs", "lustre", 10**12, "2.0.0")


def ranks(count, nodes=1, cores=8, bound=0, threads=None, **facts):
    """Facts of `count` ranks on each of some nodes with `cores` cores, bound to so many each or
    to none.
    """
    return [
        Rank(
            node * count + local,
            f"n{node + 1}",
            facts.get("mpi", "MPICH 5.0.2"),
            facts.get("launcher", "mpirun"),
            frozenset(range(local * bound, (local + 1) * bound) if bound else range(cores)),
            cores,
            threads or (bound or max(1, cores // count)),
            **{key: value for key, value in facts.items() if key not in ("mpi", "launcher")},
        )
        for node in range(nodes)
        for local in range(count)
    ]


def only(findings, level, *words):
    """Assert that one finding is of this level and says these words."""
    found = [finding for finding in findings if finding and finding.level == level]
    assert len(found) == 1 and all(word in found[0].sentence for word in words), found


def test_all_is_well():
    found = fitness.examine(
        ranks(2, nodes=2, memory=10**10), replace(GOOD, needed={"dataset": 10**9, "rank": 10**8})
    )
    assert {finding.level for finding in found} == {"green"} and fitness.exit_code(found) == 0
    assert [finding.subject for finding in found] == [
        "MPI",
        "nodes",
        "cores",
        "kernels",
        "clocks",
        "allreduce",
        "files",
        "memory",
    ]
    assert all(finding.sentence and "\n" not in finding.sentence for finding in found)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (ranks(4, cores=2), ["4 ranks share 2 cores", "-ppn 2"]),
        (ranks(4, cores=2, launcher="srun"), ["4 ranks share 2 cores", "--ntasks-per-node=2"]),
        (
            ranks(2, cores=8, threads=8),
            ["16 threads of 2 ranks share 8 cores", "training.threads=4", "-bind-to core:4"],
        ),
        (
            ranks(2, cores=8, bound=1, mpi="Open MPI 5.0.11"),
            ["bound to 1 of 8 cores", "--map-by slot:PE=4"],
        ),
        (
            ranks(2, cores=8, bound=1, launcher="srun"),
            ["bound to 1 of 8 cores", "--cpus-per-task=4"],
        ),
        (
            ranks(1, cores=8, threads=8, granted=2, launcher="srun"),
            ["takes 8 threads", "gave it 2 cores"],
        ),
    ],
    ids=[
        "oversubscribed",
        "oversubscribed by srun",
        "threads",
        "Open MPI binds to one core",
        "srun binds to one core",
        "Slurm does not bind",
    ],
)
def test_cores_and_the_exact_option(facts, words):
    only(fitness.cores(facts), "yellow", *words)


def test_nodes_that_are_alike_are_told_once():
    only(fitness.cores(ranks(2, nodes=3)), "green", "on n1, n2, n3")
    assert (
        len(fitness.cores(ranks(2, nodes=2) + [replace(rank, node="n3") for rank in ranks(16)]))
        == 2
    )


def test_bound_to_what_slurm_granted_is_well():
    only(
        fitness.cores(ranks(2, cores=64, bound=4, granted=4, launcher="srun")),
        "green",
        "4 threads",
        "bound to cores of its own",
    )


def test_a_cpu_quota():
    only(
        fitness.cores(ranks(2, cores=64, threads=2, quota=2.5)),
        "yellow",
        "4 threads of 2 ranks",
        "2.5 cores",
        "training.threads=1",
    )
    only(
        fitness.cores(ranks(4, cores=64, threads=1, quota=2)),
        "yellow",
        "start at most 2 on each node",
    )
    only(fitness.cores(ranks(1, cores=64, threads=2, quota=1.5)), "green")


def test_uneven_nodes_and_mixed_libraries():
    only([fitness.spread(ranks(2, nodes=2)[:3])], "yellow", "2 on n1, 1 on n2")
    mixed = ranks(2)
    only(
        [fitness.launcher([mixed[0], replace(mixed[1], mpi="Open MPI 5.0.11")])],
        "red",
        "MPICH 5.0.2, Open MPI 5.0.11",
    )


def test_clocks():
    first, second = ranks(1, nodes=2)
    only([fitness.clocks([first, replace(second, clock=7.5)])], "yellow", "n2 is 7.5 s ahead of n1")
    assert fitness.clocks([first]) is None


def test_kernels():
    only(
        fitness.threading(ranks(2, cache_trouble="read-only"))[:1],
        "yellow",
        "read-only",
        "NUMBA_CACHE_DIR",
    )
    only(fitness.threading(ranks(2, layer="workqueue")), "yellow", "workqueue")


def test_the_wire():
    only(
        [fitness.allreduce(ranks(2), replace(GOOD, allreduce_right=False))], "red", "came out wrong"
    )
    only(
        [fitness.allreduce(ranks(2), replace(GOOD, allreduce_seconds=1.0))],
        "yellow",
        "1000.0 ms",
        "slow",
    )
    assert fitness.allreduce(ranks(1), GOOD) is None


def test_files_and_memory():
    only(
        fitness.files(
            replace(GOOD, write_trouble="/x cannot be written because the disk quota is used up")
        ),
        "red",
        "quota",
    )
    only(
        fitness.files(replace(GOOD, lock_trouble="Errno 11")),
        "yellow",
        "HDF5_USE_FILE_LOCKING=FALSE",
    )
    facts = ranks(2, nodes=2, memory=10**9)
    facts[2] = replace(facts[2], memory=10**8)
    only(
        fitness.memory(facts, replace(GOOD, needed={"dataset": 10**8, "rank": 10**8})),
        "red",
        "0.30 GB",
        "n2, where the node leaves 0.10 GB",
    )
    only(
        fitness.memory(
            [replace(facts[0], own_memory=10**7, own_bound="ulimit -v")],
            replace(GOOD, needed={"dataset": 10**8, "rank": 10**8}),
        ),
        "red",
        "ulimit -v leaves 0.01 GB",
    )


def test_red_is_an_exit_code():
    assert (
        fitness.exit_code([fitness.Finding("red", "a", "b")]) == 1
        and fitness.exit_code([fitness.Finding("yellow", "a", "b")]) == 0
    )


def test_variables_that_open_mpi_lacks_are_named_with_the_line_to_type():
    lacking = tuple(open_mpi.missing({"OMPI_MCA_btl": "self"}, open_mpi.Machine(True, True, True)))
    assert {each.name for each in open_mpi.VARIABLES} - {each.name for each in lacking} == {
        "OMPI_MCA_btl"
    }
    found = fitness.examine(ranks(2, mpi="Open MPI 5.0.9", unset=lacking), GOOD)
    told = [each.sentence for each in found if each.subject == "variable"]
    assert len(told) == len(lacking) == 7 and fitness.exit_code(found) == 0
    assert "`export PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe`" in " ".join(told)


@pytest.mark.parametrize("machine", [(True, False, False), (False, True, False), (False,) * 3])
def test_only_variables_that_a_machine_needs_are_named(machine):
    known = open_mpi.Machine(*machine)
    wanted = {each.name for each in open_mpi.VARIABLES if getattr(known, each.when)}
    assert {each.name for each in open_mpi.missing({}, known)} == wanted
    assert bool(wanted) == any(machine)


def test_the_makefile_sets_the_same_variables():
    listed = re.search(r"^VARIABLES := (.*?[^\\])\n", (ROOT / "Makefile").read_text(), re.M | re.S)
    found = dict(word.split("=", 1) for word in listed[1].replace("\\\n", " ").split())
    assert found == {each.name: each.value for each in open_mpi.VARIABLES}


def test_an_environment_of_make_sets_them_where_nobody_has(tmp_path):
    """With `true` in the place of the Python that would make the environment."""
    (tmp_path / "bin").mkdir()
    words = ["make", "-s", "MPI=openmpi", "PYTHON=true", f"VENV={tmp_path}", f"{tmp_path}/made"]
    subprocess.run(words, cwd=ROOT, check=True)
    shown = subprocess.run(
        ["bash", "-c", f"source {tmp_path}/bin/activate; env -0"],
        env={"PATH": os.environ["PATH"], "OMPI_MCA_btl": "self"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = dict(each.split("=", 1) for each in shown.split("\0") if each)
    expected = {each.name: each.value for each in open_mpi.VARIABLES} | {"OMPI_MCA_btl": "self"}
    assert {name: found.get(name) for name in expected} == expected
