"""Batches cut by the speeds of the ranks that train a network: what an epoch has shown of them
decides the parts of the next one, the same on all ranks.
"""

from collections.abc import Iterable, Sequence

from ensync.core.shares import adjusted, rows_by_speed
from ensync.mpi.world import Comm, share
from ensync.report.console import Console
from ensync.runs.schema import EpochRecord
from ensync.training.trainer import Trainer

SHOWN = 8  # ranks whose rows a line names one by one


def rows_of_ranks(trainer: Trainer, ranks: int) -> list[int]:
    """Return how many rows of a batch of the current epoch, or of a slice of it, each rank has."""
    speeds = trainer.position.speeds
    return [*rows_by_speed(_at_once(trainer), speeds if len(speeds) == ranks else (1.0,) * ranks)]


def follow_speeds(trainer: Trainer, ranks: Comm, console: Console) -> None:
    """Cut the batches of the epoch that begins by what the last one has shown, and say so where
    that is another cut. Collective over the ranks of the network.
    """
    if trainer.shares is None:
        return
    position, before = trainer.position, rows_of_ranks(trainer, ranks.size)
    speeds = position.speeds if len(position.speeds) == ranks.size else ()
    measured = share(ranks, trainer.shares.measured())
    position.speeds = adjusted(speeds, measured, _at_once(trainer))
    rows = rows_of_ranks(trainer, ranks.size)
    if rows != before and not trainer.done:
        console.line(f"parts of a batch by speed from now on: {listed(rows)}")


def last_shares(history: Sequence[EpochRecord], members: int) -> list[list[int]]:
    """Return the rows of a batch by rank of each member, as its last epoch had them."""
    last = {record["member"]: record.get("shares", []) for record in history}
    return [last.get(member, []) for member in range(members)]


def say_unknown(trainers: Iterable[Trainer], ranks: int, console: Console) -> None:
    """Say of a resumed run that its speeds were those of other ranks, where they were."""
    if any(t.shares and t.position.speeds and len(t.position.speeds) != ranks for t in trainers):
        console.line("batches are cut equally until the speeds of these ranks are known")


def _at_once(trainer: Trainer) -> int:
    """Return how many rows are cut at once."""
    return min(trainer.batch, trainer.job.training.slice, len(trainer.rows))


def listed(rows: list[int]) -> str:
    """Return "rank 0 has 21, rank 1 has 43 of 64 rows", of many ranks the least and the most."""
    few = len(rows) <= SHOWN
    ranks = range(len(rows)) if few else (rows.index(min(rows)), rows.index(max(rows)))
    parts = ", ".join(f"rank {rank} has {rows[rank]:,}" for rank in ranks)
    return f"{parts} of {sum(rows):,} rows" + ", all others between these" * (not few)
