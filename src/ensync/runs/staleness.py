"""How far behind the networks were that gradients were computed with, over a run."""

import numpy as np

from ensync.mpi.allreduce import sum_counts
from ensync.mpi.world import share
from ensync.runs.session import Session


def staleness_of(run: Session) -> list[int]:
    """Return how many gradients were of networks so many steps behind, over all members; none
    where there is no server. Collective.
    """
    own = [t.reducer.staleness for m, t in run.trainers.items() if run.mesh.owns(m)]
    length = max(share(run.comm, max(map(len, own), default=0)))
    counts = np.zeros(length, np.int64)
    for each in own:
        counts[: len(each)] += each
    return [int(count) for count in sum_counts(run.comm, counts)] if length else []
