"""The mesh of ranks: its axes cover the ranks without overlap, whatever their number."""

import numpy as np
import pytest
from mpi4py import MPI

from ensync.mpi.mesh import AXES, make_mesh
from ensync.mpi.survivors import Loss

COMM = MPI.COMM_WORLD
pytestmark = pytest.mark.mpi


def everywhere(mesh):
    """Return every rank's coordinates, by axis."""
    return COMM.allgather(dict(mesh.coordinates))


@pytest.mark.parametrize("members", [1, 2, 3, 5])
def test_every_member_is_trained_by_the_ranks_of_one_group(members):
    mesh = make_mesh(COMM, members)
    here = COMM.allgather((mesh.coordinates["member"], list(mesh.mine)))
    for member in range(members):
        groups = {group for group, mine in here if member in mine}
        assert len(groups) == 1, "one group trains a member"
        first = next(rank for rank, (group, _) in enumerate(here) if group in groups)
        assert mesh.owners[member] == first
        assert mesh.owns(member) == (COMM.rank == first)
    assert mesh.data.size == sum(group == mesh.coordinates["member"] for group, _ in here)
    assert mesh.data.rank == mesh.coordinates["data"]
    assert mesh.sizes["member"] == min(members, COMM.size)
    mesh.free()


@pytest.mark.parametrize("members", [1, 2, 3])
def test_along_an_axis_are_the_ranks_that_differ_in_it_only(members):
    mesh = make_mesh(COMM, members)
    there = everywhere(mesh)
    for axis in AXES:
        ranks = [
            rank
            for rank, other in enumerate(there)
            if all(other[each] == mesh.coordinates[each] for each in AXES if each != axis)
        ]
        assert mesh.along(axis).allgather(COMM.rank) == ranks
        assert mesh.along(axis) is mesh.along(axis), "split once"
    mesh.free()


def test_ranks_of_one_replica_lie_along_the_model_axis():
    mesh = make_mesh(COMM, 1, model=COMM.size)
    assert (mesh.data.size, mesh.along("model").size) == (1, COMM.size)
    assert mesh.along("model").rank == mesh.coordinates["model"] == COMM.rank
    total = np.ones(1)
    mesh.along("model").Allreduce(MPI.IN_PLACE, total)
    assert total[0] == COMM.size
    mesh.free()
    with pytest.raises(ValueError, match="ranks by"):
        make_mesh(COMM, 1, model=COMM.size + 1)


def test_a_member_by_itself_needs_no_other_rank():
    mesh = make_mesh(COMM, 3)
    if COMM.rank == 0:
        lone = mesh.of_one(2)
        assert (lone.data.size, list(lone.mine), lone.members) == (1, [2], 3)
        assert lone.owners == mesh.owners
    with pytest.raises(ValueError, match="none of member, data, model"):
        mesh.along("rows")
    mesh.free()


@pytest.mark.mpi(min_size=2)
def test_members_of_the_dead_go_to_the_first_that_is_left():
    mesh = make_mesh(COMM, COMM.size)
    group = mesh.along("member")
    assert group.size == COMM.size
    left = Loss(COMM.Split(COMM.rank == 0), [-1, *range(COMM.size - 1)], "rank 0")
    if COMM.rank:
        rest = mesh.without(left)
        assert rest.owners == [0, *range(COMM.size - 1)] and rest.members == COMM.size
        assert rest.owns(COMM.rank) and rest.owns(0) == (COMM.rank == 1)
        assert rest.data is mesh.data, "which holds no dead rank"
    left.comm.Free()
    mesh.free()
