"""Rows that are in two splits: a network is then tested on what it was trained with."""

from collections.abc import Mapping

import numpy as np

from ensync.storage.sources.source import Source
from ensync.storage.sources.tally import Tally

Rows = Mapping[str, tuple[str, np.ndarray]]


def shared_rows(source: Source, rows: Rows) -> list[str]:
    """Return notes about the rows of validation and test that are in train, too.

    rows: {split: (split of the source, rows int64 of it)}.
    """
    if not source.identities:
        return []
    tally = Tally()
    own = {split: source.identities[origin][places] for split, (origin, places) in rows.items()}
    order = np.argsort(own["train"], kind="stable")
    for split in ("validation", "test"):
        at = np.searchsorted(own["train"], own[split], sorter=order).clip(max=len(order) - 1)
        replica = order[at]
        for place in np.flatnonzero(own["train"][replica] == own[split]).tolist():
            tally.add(
                f"{split} images that are training images, too",
                f"{_name(source, rows[split], place)} is "
                + _name(source, rows["train"], int(replica[place])),
            )
    return tally.notes()


def _name(source: Source, rows: tuple[str, np.ndarray], place: int) -> str:
    origin, places = rows
    return (
        source.names[origin][places[place]]
        if source.names
        else f"row {places[place] + 1} of {origin}"
    )
