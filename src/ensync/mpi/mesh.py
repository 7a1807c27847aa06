"""The ranks of a job arranged along named axes.

member: the groups of ranks, each of which trains networks of its own. data: the ranks of a group,
which cut every batch among them. model: the ranks that hold parts of one replica, or its stages.
Groups may differ in size by one row of ranks, so that the length of an axis may differ from group
to group.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ensync.core.sharding import group_index, groups
from ensync.mpi.survivors import Loss
from ensync.mpi.world import Comm, alone, split

AXES = ("member", "data", "model")


@dataclass(frozen=True)
class Mesh:
    """Where this rank stands among the ranks of `comm`, and who trains which member.

    sizes, coordinates: by axis, how many ranks lie along it here, and which of them this is.
    members: how many networks there are. mine: those of this rank, which it trains in turn.
    owners: by member, the first rank of `comm` that trains it.
    """

    comm: Comm
    members: int
    mine: range
    owners: Sequence[int]
    sizes: Mapping[str, int]
    coordinates: Mapping[str, int]
    _along: dict[str, Comm] = field(default_factory=dict, repr=False)

    def along(self, axis: str) -> Comm:
        """Return the communicator of the ranks that differ from this one along `axis` only, in
        order. Collective over `comm` at the first call for an axis.
        """
        if axis not in self._along:
            if axis not in AXES:
                raise ValueError(f"axis '{axis}' is none of {', '.join(AXES)}")
            color = 0
            for other in AXES:
                if other != axis:
                    color = color * self.comm.size + self.coordinates[other]
            self._along[axis] = split(self.comm, color, self.coordinates[axis])
        return self._along[axis]

    @property
    def data(self) -> Comm:
        """The ranks that train one replica each of the same network. Collective at the first
        call.
        """
        return self.along("data")

    def owns(self, member: int) -> bool:
        """Whether this rank speaks for a member: gathers, saves and fuses it."""
        return self.owners[member] == self.comm.rank

    @property
    def is_first(self) -> bool:
        """Whether this rank is the first of those that train its members."""
        return self.coordinates["data"] == self.coordinates["model"] == 0

    def without(self, loss: Loss) -> "Mesh":
        """Return the mesh of the ranks that are left. Members of the dead go to rank 0.

        Only for meshes in which every member has one rank, whose `data` then holds no dead rank.
        """
        owners = [max(loss.moved[owner], 0) for owner in self.owners]
        kept = {axis: comm for axis, comm in self._along.items() if axis != "member"}
        return replace(self, comm=loss.comm, owners=owners, _along=kept)

    def of_one(self, member: int) -> "Mesh":
        """Return the mesh of this rank by itself, with one of the members."""
        ones, own = dict.fromkeys(AXES, 1), range(member, member + 1)
        here = dict.fromkeys(AXES, 0)
        return Mesh(alone(), self.members, own, self.owners, ones, here, {"data": alone()})

    def free(self) -> None:
        """Give the communicators of the axes back. Collective."""
        for comm in self._along.values():
            comm.Free()
        self._along.clear()


def make_mesh(comm: Comm, members: int, model: int = 1) -> Mesh:
    """Arrange all ranks of `comm`: neighbours train a member together, and with more members than
    ranks each rank trains several. Collective.

    model: the ranks, neighbours, that hold one replica and count as one; ValueError unless it
    divides the ranks.
    """
    if comm.size % model:
        raise ValueError(f"{comm.size} ranks by {model}")
    replicas, (replica, part) = comm.size // model, divmod(comm.rank, model)
    teams, index = groups(replicas, members), group_index(replicas, members, replica)
    mesh = Mesh(
        comm,
        members,
        teams[index].members,
        [model * team.ranks[0] for team in teams for _ in team.members],
        {"member": len(teams), "data": len(teams[index].ranks), "model": model},
        {"member": index, "data": replica - teams[index].ranks.start, "model": part},
    )
    mesh.along("data")
    return mesh
