"""What a job needs of a node's memory, known before any of it is taken, and whether it is there."""

import platform
from collections.abc import Sequence
from dataclasses import dataclass

from ensync.core.config.schema import Job
from ensync.core.errors import EnsyncError
from ensync.core.resources import Memory, node_memory, process_memory
from ensync.core.sharding import groups
from ensync.nn.memory import counted
from ensync.nn.optimizers.groups import slots_of, stretches_of
from ensync.nn.split.exchange import Holding
from ensync.report.text import plural, size
from ensync.runs.networks import Data, build_network, stand_ins
from ensync.storage.layout import SPLITS
from ensync.strategies import strategy_of
from ensync.training.batches import BLOCK
from ensync.training.learning_rate import largest_batch

SHARE_OF_MEMORY = 0.5  # of what can be had; beyond it the dataset is streamed
TESTED = 3  # vectors of all parameters that a test takes: a spare network, and a copy
KERNELS = 64 << 20  # bytes that compiled kernels take in each rank


@dataclass(frozen=True)
class Need:
    """Bytes that a job takes: the images once on a node, and of each rank weights (with
    gradient, optimiser and copies), batches and kernels.
    """

    ranks: int
    images: int
    weights: int
    batches: int

    @property
    def rank(self) -> int:
        """Bytes of each rank."""
        return self.weights + self.batches + KERNELS

    def of_node(self, ranks: int) -> int:
        """Bytes of a node with so many of the job's ranks."""
        return self.images + min(ranks, self.ranks) * self.rank

    def parts(self, ranks: int) -> str:
        """What it is made of there, in words."""
        return (
            f"{plural(min(ranks, self.ranks), 'rank')} x ({size(self.weights)} of weights and "
            f"optimiser + {size(self.batches)} of batches + {size(KERNELS)} of code) + "
            f"{size(self.images)} of images"
        )


@dataclass(frozen=True)
class Having:
    """What a rank can have: its node, the memory there, and the limit of its own process."""

    node: str
    shared: Memory
    own: Memory


def having() -> Having:
    """Return what this process can have."""
    return Having(platform.node(), node_memory(), process_memory())


def is_streamed(placement: str, dataset: Data) -> bool:
    """Return whether images are read in blocks while training, as data.placement says or memory
    asks for.
    """
    if placement != "auto":
        return placement == "stream"
    return sum(dataset.sizes.values()) * dataset.features > SHARE_OF_MEMORY * node_memory().bytes


def need_of(
    job: Job, dataset: Data, ranks: int, trains: bool = True, splits: Sequence[str] = SPLITS
) -> Need:
    """Return what a job needs on so many ranks, or the test of its run (trains = False); arrays of
    a few numbers are left out.

    splits: whose images are read.
    """
    strategy = strategy_of(job)
    teams = groups(strategy.replicas(ranks), strategy.members(ranks)) if trains else groups(1, 1)
    mine, together = (
        max(len(team.members) for team in teams),
        min(len(team.ranks) for team in teams) if trains else ranks,
    )
    try:
        parts = stand_ins(job) if trains else [None]
        found = [_of_network(job, dataset, together, trains, part) for part in parts]
        weights, batches = max(found, key=sum)
    except MemoryError:
        weights, batches = 1 << 62, 0
    streamed, labels = is_streamed(job.data.placement, dataset), 8 * sum(dataset.sizes.values())
    blocks = (
        sum(min(BLOCK.rows * (BLOCK.blocks + 1), dataset.sizes[split]) for split in splits)
        * dataset.features
    )
    scores = (dataset.sizes["test"] + dataset.sizes["validation"]) * dataset.classes * 8
    return Need(
        ranks,
        0 if streamed else sum(dataset.sizes[split] for split in splits) * dataset.features,
        mine * weights,
        mine * batches + labels + scores + (blocks if streamed else 0),
    )


def _of_network(
    job: Job, dataset: Data, ranks: int, trains: bool, part: Holding | None
) -> tuple[int, int]:
    """Return the bytes of weights (with gradient, slots and copies) and of batches of one member
    on one rank, which holds this part of it.
    """
    shares = job.training.virtual_shards
    with counted() as count:
        network = build_network(job, dataset, ranks, exchange=part)
        vector = network.parameters.nbytes + network.statistics.nbytes
        replicas = (
            -(-shares // ranks) - 1
            if job.training.deterministic and network.synchronizes_statistics and trains
            else 0
        )
        batches = (count.bytes - 2 * vector) * (1 + replicas)
        if trains:
            stretches_of(job.optimizer, network.layout)  # refuses patterns before all else
        slots = len(slots_of(job.optimizer)) if trains else 0
        slots *= 1 + job.communication.is_local  # their mean, and the replica's beside it
    if not trains:
        return 4 * vector, max(0, batches)
    vectors = (_copies(job) + slots + 2 * replicas) * vector
    if parts := network.parts:  # the networks of the test are whole, and so is a gathered vector
        whole = network.dtype.itemsize * (parts.parameters.size + parts.statistics.size)
        vectors += TESTED * (whole - vector) + whole
    return vectors, max(0, batches)


def _copies(job: Job) -> int:
    """Return how many vectors of all parameters a trained member has beside its slots: itself, its
    gradient, and copies of it.

    After the training its test takes a spare network and a copy for the fusion, when gradient and
    slots are still there.
    """
    t = job.training
    sliced = job.slice_of(largest_batch(job)) < largest_batch(job)
    slow = bool(job.lookahead.every_steps)
    # the network of the last meeting, the replica beside the mean, and the outer momentum
    local = (2 + bool(job.communication.outer_momentum)) * job.communication.is_local
    # what a rank has not sent yet; words that it sends, receives and gathers
    packed = 3 * job.communication.compresses
    # the last networks, what is on its way of them or of as many gradients, and the sum of these
    served = (2 * job.communication.max_staleness + 4) * job.communication.is_served
    beside = (
        served + 2 * bool(t.weight_average) + slow + local + packed + bool(t.best_weights) + sliced
    )
    return 2 + TESTED + beside


def shortage(needs: Sequence[Need], all_ranks: Sequence[Having]) -> EnsyncError | None:
    """Return the refusal where a node, or the limit of a process, has less than one of the
    needs; the same for the same arguments.
    """
    nodes: dict[str, list[Having]] = {}
    for each in all_ranks:
        nodes.setdefault(each.node, []).append(each)
    for need in needs:
        for node, here in nodes.items():
            shared, own = (
                min((h.shared for h in here), key=_bytes),
                min((h.own for h in here), key=_bytes),
            )
            for asked, left in ((need.of_node(len(here)), shared), (need.images + need.rank, own)):
                if asked > left.bytes:
                    return EnsyncError(
                        f"the job needs about {size(asked)} of memory on {node} "
                        f"({need.parts(len(here))})",
                        f"at most {size(left.bytes)}, which {left.bound} leaves",
                        _advice(need, len(here)),
                    )
    return None


def _bytes(memory: Memory) -> float:
    return memory.bytes


def _advice(need: Need, ranks: int) -> str:
    """Return what to lower, the largest part first."""
    advice = {
        "take a smaller network": need.weights,
        "lower training.batch or training.slice": need.batches,
        "set data.placement = 'stream'": need.images / min(ranks, need.ranks),
    }
    largest = sorted(advice, key=lambda each: -advice[each])
    fewer = ["start fewer ranks on a node"] if min(ranks, need.ranks) > 1 else []
    return ", or ".join(
        [
            *largest[:1],
            *fewer,
            *[each for each in largest[1:] if advice[each] > 0.1 * need.of_node(1)],
        ]
    )
