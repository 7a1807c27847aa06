"""Who trains what: members, the ranks of each, the rows of each. Synchronous training is an
ensemble of one member.
"""

from dataclasses import dataclass

import numpy as np

from ensync.core.config.schema import Job
from ensync.core.errors import EnsyncError
from ensync.core.sharding import group_index, groups, member_rows
from ensync.mpi.world import Comm, split
from ensync.runs.content import MOST_MEMBERS

LOOKED_AT = 64  # members whose rows are looked at for a warning


@dataclass
class Plan:
    """`members` networks; this rank belongs to `comm`, whose ranks train `mine` together;
    `owners[m]` is the first rank of member m.
    """

    members: int
    comm: Comm
    mine: range
    owners: list[int]


def starts_together(job: Job) -> bool:
    """Whether an ensemble's members are one network for the first epochs."""
    return job.training.strategy == "ensemble" and job.ensemble.start == "synchronous"


def settle_members(job: Job, ranks: int) -> Job:
    """Return the job with the number of members that "one per rank" means here, so that a
    resumed run keeps it.
    """
    if job.training.strategy == "synchronous" or job.ensemble.members:
        return job
    return job.model_copy(update={"ensemble": job.ensemble.model_copy(update={"members": ranks})})


def first_members(job: Job) -> int:
    """Return how many networks are trained at the start: one when all ranks train together."""
    return (
        1
        if job.training.strategy == "synchronous" or starts_together(job)
        else job.ensemble.members
    )


def make_plan(comm: Comm, members: int) -> Plan:
    """Split the ranks into groups. Collective."""
    if members > MOST_MEMBERS:
        raise EnsyncError(
            f"ensemble.members = {members}", f"at most {MOST_MEMBERS}", "use fewer members"
        )
    teams = groups(comm.size, members)
    index = group_index(comm.size, members, comm.rank)
    owners = [team.ranks[0] for team in teams for _ in team.members]
    return Plan(members, split(comm, index, comm.rank), teams[index].members, owners)


def check_shards(job: Job, ranks: int, members: int) -> None:
    """Refuse more ranks for one network than a deterministic run has virtual shards of each
    batch.
    """
    most, shards = (
        max(len(team.ranks) for team in groups(ranks, members)),
        job.training.virtual_shards,
    )
    if job.training.deterministic and most > shards:
        raise EnsyncError(
            f"training.deterministic = true with training.virtual_shards = {shards} and {most} "
            "ranks for one network",
            "no more ranks than shards, each of which one rank computes",
            f"start at most {shards} ranks for each network, or give --set "
            f"training.virtual_shards={most}, with which the bits are others",
        )


def rows_of(job: Job, labels: np.ndarray, members: int, member: int) -> np.ndarray:
    """Return the training rows of a member: all of them while the ranks train one network."""
    if job.training.strategy == "synchronous" or (members == 1 and starts_together(job)):
        return np.arange(len(labels), dtype=np.int64)
    options = {"alpha": job.ensemble.skew} if job.ensemble.data == "label_skew" else {}
    return member_rows(job.ensemble.data, labels, members, member, job.training.seed, **options)


def lacking(job: Job, labels: np.ndarray, members: int) -> dict[int, int]:
    """Return {member: number of classes of which it has no training row}, where the data is meant
    to be spread evenly.

    Of many members only the first LOOKED_AT are looked at.
    """
    if members < 2 or job.ensemble.data not in ("shards", "bootstrap"):
        return {}
    there = np.bincount(labels) > 0
    found = {
        m: int(there.sum() - (np.bincount(labels[rows_of(job, labels, members, m)]) > 0).sum())
        for m in range(min(members, LOOKED_AT))
    }
    return {member: count for member, count in found.items() if count}
