"""The records of a run's history: one for each epoch of each member, the same on every rank, and on
rank 0 in history.jsonl.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from ensync.mpi.world import Comm, on_root, share
from ensync.report.history import History, readable_records
from ensync.runs.schema import EpochRecord
from ensync.training.trainer import Trainer


def epoch_record(
    trainer: Trainer, epoch: int, figures: Mapping[str, float], elapsed: float
) -> EpochRecord:
    """Return what the history says of an epoch of a member, whose figures are given by name."""
    record: dict[str, object] = {
        "event": "epoch",
        "member": trainer.member,
        "epoch": epoch,
        "step": trainer.optimizer.steps,
        "validation_loss": None,
        "validation_accuracy": None,
    }
    record |= {name: value if math.isfinite(value) else None for name, value in figures.items()}
    record["elapsed"] = elapsed
    if trainer.done:
        record["ended"] = trainer.ended
    return cast(EpochRecord, record)


def complete_records(comm: Comm, path: Path, known: Sequence[EpochRecord]) -> list[EpochRecord]:
    """Return the records that any rank knows, and append to the file those that are missing at its
    end. Collective.
    """
    found = {(r["epoch"], r["member"]): r for records in share(comm, known) for r in records}

    def write() -> None:
        written = {(r["epoch"], r["member"]) for r in readable_records(path)[0]}
        last = max((epoch for epoch, _ in written), default=0)
        if missing := [
            record for key, record in sorted(found.items()) if key[0] >= last and key not in written
        ]:
            History(path).append(*missing)

    on_root(comm, write)
    return [found[key] for key in sorted(found)]
