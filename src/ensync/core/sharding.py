"""Who works on which rows: blocks of a global batch, the order of an epoch, the shards and groups
of an ensemble.

Everything here is a pure function of its arguments. Ranks agree because they compute the same
thing, not because they talk.
"""

from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple

import numpy as np

from ensync.core.errors import EnsyncError, nearest


class Purpose(IntEnum):
    """What a stream of random numbers is for; the numbers are part of what a seed means and
    never change.
    """

    INITIAL = 0
    ORDER = 1
    DROPOUT = 2
    AUGMENTATION = 3
    SHARDS = 4
    BOOTSTRAP = 5
    LABEL_SKEW = 6
    SPLIT = 7
    MIXING = 8
    COMPRESSION = 9
    DELAYS = 10


def seed_sequence(seed: int, purpose: Purpose, *keys: int) -> np.random.SeedSequence:
    """Return the independent stream of `purpose`, told apart further by keys such as member,
    epoch or layer.
    """
    return np.random.SeedSequence(seed, spawn_key=(int(purpose), *map(int, keys)))


def generator(seed: int, purpose: Purpose, *keys: int) -> np.random.Generator:
    """Return a generator (PCG64) on the stream of `seed_sequence`."""
    return np.random.Generator(np.random.PCG64(seed_sequence(seed, purpose, *keys)))


def key64(seed: int, purpose: Purpose, *keys: int) -> np.uint64:
    """Return 64 random bits of the stream of `seed_sequence`: the key of a counter-based mask."""
    bits: np.uint64 = seed_sequence(seed, purpose, *keys).generate_state(1, np.uint64)[0]
    return bits


def block(n: int, size: int, rank: int, unit: int = 1) -> tuple[int, int]:
    """Return (start, stop) of the rows of `rank` when n rows are cut into `size` blocks whose
    lengths differ by at most one `unit`.

    Every row belongs to exactly one rank, every block but the last is whole units; with fewer units
    than ranks the last ranks hold (n, n), which is empty.
    """
    whole, rest = divmod(-(-n // unit), size)
    start = rank * whole + min(rank, rest)
    stop = start + whole + (rank < rest)
    return min(start * unit, n), min(stop * unit, n)


def steps_per_epoch(n: int, global_batch: int) -> int:
    """Return how many global batches cover n rows; the last one may be smaller, no row is
    dropped.
    """
    return -(-n // global_batch)


def global_span(n: int, step: int, global_batch: int) -> tuple[int, int]:
    """Return (start, stop) of the places in the epoch's order that step number `step` (from 0)
    takes.
    """
    return min(step * global_batch, n), min((step + 1) * global_batch, n)


def local_span(n: int, step: int, global_batch: int, size: int, rank: int) -> tuple[int, int]:
    """Return (start, stop) of the places in the epoch's order that `rank` takes in `step`; empty
    when rows are fewer than ranks.
    """
    first, last = global_span(n, step, global_batch)
    start, stop = block(last - first, size, rank)
    return first + start, first + stop


def local_rows(order: np.ndarray, step: int, global_batch: int, size: int, rank: int) -> np.ndarray:
    """Return the dataset rows int64 (local batch,) of `rank` in `step`, a view of `order`
    (rows,).
    """
    start, stop = local_span(len(order), step, global_batch, size, rank)
    return order[start:stop]


class Window(NamedTuple):
    """How a dataset larger than memory is shuffled: blocks of `rows` neighbours permuted, rows
    shuffled within `blocks` of them.
    """

    rows: int
    blocks: int


def epoch_order(
    n: int, seed: int, epoch: int, window: Window | tuple[int, int] | None = None, member: int = 0
) -> np.ndarray:
    """Return the order int64 (n,) in which an epoch visits the rows 0..n-1, each exactly once.

    With a window, each stretch of the order is window.blocks whole blocks of window.rows
    neighbouring rows, shuffled together, so that a buffer of that many rows is enough to read each
    block of a file once.
    """
    random = generator(seed, Purpose.ORDER, member, epoch)
    if window is None or n <= window[0]:
        return random.permutation(n)
    rows, blocks = window
    starts = random.permutation(np.arange(0, n, rows))
    stretches = []
    for first in range(0, len(starts), blocks):
        stretch = (starts[first : first + blocks, None] + np.arange(rows)).ravel()
        stretches.append(random.permutation(stretch[stretch < n]))
    return np.concatenate(stretches)


def shard_rows(labels: np.ndarray, members: int, member: int, seed: int) -> np.ndarray:
    """Return the member's block int64 of one seeded permutation: shards are disjoint, cover all
    rows, differ by at most one row.
    """
    start, stop = block(len(labels), members, member)
    return np.sort(generator(seed, Purpose.SHARDS).permutation(len(labels))[start:stop])


def bootstrap_rows(labels: np.ndarray, members: int, member: int, seed: int) -> np.ndarray:
    """Return n rows int64 drawn with replacement from all n (bagging, Breiman 1996), a draw of
    its own for each member.
    """
    return np.sort(
        generator(seed, Purpose.BOOTSTRAP, member).integers(len(labels), size=len(labels))
    )


def full_rows(labels: np.ndarray, members: int, member: int, seed: int) -> np.ndarray:
    """Return all rows int64 (n,): a deep ensemble, whose members differ by their seeds only
    (Lakshminarayanan 2017).
    """
    return np.arange(len(labels))


def label_skew_rows(
    labels: np.ndarray, members: int, member: int, seed: int, alpha: float = 0.5
) -> np.ndarray:
    """Return the member's rows int64 when each class is dealt out in shares drawn from
    Dirichlet(alpha) (Hsu 2019, arXiv:1909.06335).

    A small alpha gives each member few classes, a large one gives equal shards. Disjoint, covering,
    no member empty.
    """
    random = generator(seed, Purpose.LABEL_SKEW)
    owner = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        rows = random.permutation(np.flatnonzero(labels == label))
        cuts = np.cumsum(random.dirichlet(np.full(members, alpha)))[:-1]
        for index, part in enumerate(np.split(rows, np.rint(cuts * len(rows)).astype(np.int64))):
            owner[part] = index
    _leave_none_empty(owner, members)
    return np.flatnonzero(owner == member)


def _leave_none_empty(owner: np.ndarray, members: int) -> None:
    """Give every member without rows one row of the member that has most."""
    for member in range(members):
        counts = np.bincount(owner, minlength=members)
        if counts[member] == 0:
            owner[np.flatnonzero(owner == counts.argmax())[0]] = member


MEMBER_DATA: dict[str, Callable[..., np.ndarray]] = {
    "shards": shard_rows,
    "bootstrap": bootstrap_rows,
    "full": full_rows,
    "label_skew": label_skew_rows,
}


def member_rows(
    mode: str, labels: np.ndarray, members: int, member: int, seed: int, **options: float
) -> np.ndarray:
    """Return the training rows int64, ascending, of one member of an ensemble; `mode` is a key
    of MEMBER_DATA.
    """
    if mode not in MEMBER_DATA:
        raise EnsyncError(
            f"member data '{mode}'",
            "one of " + ", ".join(MEMBER_DATA),
            "change it" + nearest(mode, MEMBER_DATA),
        )
    if mode in ("shards", "label_skew") and members > len(labels):
        raise EnsyncError(
            f"{members} members for {len(labels)} training images",
            "at least one image for each member",
            "use fewer members, or bootstrap or full data",
        )
    return MEMBER_DATA[mode](labels, members, member, seed, **options)


class Group(NamedTuple):
    """Ranks that work together, and the members they train one after the other."""

    ranks: range
    members: range


def groups(ranks: int, members: int) -> list[Group]:
    """Return who trains what: neighbouring ranks share one member, or, with more members than
    ranks, each rank trains several.
    """
    count = min(ranks, members)
    return [
        Group(range(*block(ranks, count, index)), range(*block(members, count, index)))
        for index in range(count)
    ]


def group_index(ranks: int, members: int, rank: int) -> int:
    """Return the place in `groups` of the group that `rank` belongs to: the colour of the
    communicator's split.
    """
    return next(index for index, group in enumerate(groups(ranks, members)) if rank in group.ranks)
