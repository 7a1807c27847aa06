"""Who trains what: members, the ranks of each, the rows of each. Synchronous training is an ensemble of one member."""

from dataclasses import dataclass

import numpy as np

from ensync.errors import EnsyncError
from ensync.mpi.world import Comm, split
from ensync.settings import Job
from ensync.sharding import group_index, groups, member_rows

MOST_MEMBERS = 4096


@dataclass
class Plan:
    """`members` networks; this rank belongs to `comm`, whose ranks train `mine` together; `owners[m]` is the first rank of member m."""

    members: int
    comm: Comm
    mine: range
    owners: list[int]


def count_members(job: Job, ranks: int, together: bool) -> int:
    """Return how many networks are trained: one when all ranks train together, else what the job says."""
    if together or job.training.strategy == "synchronous":
        return 1
    return job.ensemble.members or ranks


def make_plan(comm: Comm, members: int) -> Plan:
    """Split the ranks into groups. Collective."""
    if members > MOST_MEMBERS:
        raise EnsyncError(f"ensemble.members = {members}", f"at most {MOST_MEMBERS}", "use fewer members")
    teams = groups(comm.size, members)
    index = group_index(comm.size, members, comm.rank)
    owners = [team.ranks[0] for team in teams for _ in team.members]
    return Plan(members, split(comm, index, comm.rank), teams[index].members, owners)


def rows_of(job: Job, labels: np.ndarray, members: int, member: int) -> np.ndarray:
    """Return the training rows of a member: all of them when there is one network."""
    if job.training.strategy == "synchronous" or members == 1:
        return np.arange(len(labels), dtype=np.int64)
    options = {"alpha": job.ensemble.skew} if job.ensemble.data == "label_skew" else {}
    return member_rows(job.ensemble.data, labels, members, member, job.training.seed, **options)
