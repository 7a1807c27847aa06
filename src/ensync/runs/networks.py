"""A job's network on a dataset, with buffers for what goes through it at once."""

from typing import Protocol

from ensync.core.config.schema import Job
from ensync.core.shares import most_rows
from ensync.nn.memory import Workspace
from ensync.nn.models import zoo
from ensync.nn.network import Network
from ensync.nn.split.exchange import Holding, StandIn, StandInLinks
from ensync.training.learning_rate import largest_batch


class Data(Protocol):
    """What must be known of a dataset: an open one, or the identity of one."""

    @property
    def classes(self) -> int:
        """How many classes there are."""
        ...

    @property
    def features(self) -> int:
        """Values, and bytes, of an image."""
        ...

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        ...

    @property
    def sizes(self) -> dict[str, int]:
        """Rows of each split."""
        ...


def rows_at_once(job: Job, train_rows: int, ranks: int) -> int:
    """Return how many samples go through a network at once: a rank's share, or a virtual shard,
    of a slice of the batch.
    """
    largest = job.slice_of(min(largest_batch(job), train_rows))
    if job.communication.by_speed:
        return most_rows(largest, ranks)
    return -(-largest // (job.training.virtual_shards if job.training.deterministic else ranks))


def rows_together(job: Job, network: Network, rows: int) -> int:
    """Return how many of a member's rows batch normalisation takes together: those of a slice of
    its batch, or so many as a network has room for on each of any ranks.
    """
    if job.training.deterministic:  # on one rank by itself; its buffers are for a virtual shard
        return network.rows
    return max(job.slice_of(min(largest_batch(job), rows)), network.at_once)


def build_network(
    job: Job,
    dataset: Data,
    ranks: int,
    workspace: Workspace | None = None,
    exchange: Holding | None = None,
) -> Network:
    """Return the job's network with buffers for this rank's share (or one virtual shard) of what
    goes through it at once.

    workspace: of networks that never compute at the same time as this one. exchange: with the
    other ranks that hold a part of the network each, where this rank is to hold one.
    """
    rows = rows_at_once(job, dataset.sizes["train"], ranks)
    return zoo.build(job, dataset.shape, dataset.classes, rows, workspace, exchange)


def stand_ins(job: Job) -> list[Holding | None]:
    """Return what takes the place of the other ranks of a network that several are to hold, where
    only shapes matter: one for each kind of part. None where each rank holds a whole network.
    """
    parallel = job.parallel
    if parallel.stages > 1:
        return [StandInLinks(parallel.stages, stage) for stage in range(parallel.stages)]
    return [StandIn(parallel.model) if parallel.model > 1 else None]
