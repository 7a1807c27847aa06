"""Rows of a split that does not fit into memory, read in whole blocks of neighbours and kept
while they are in use.
"""

import numpy as np

from ensync.core.activity import Doing, doing
from ensync.storage.dataset import Dataset
from ensync.storage.verification import check_block, is_block


class BlockReader:
    """Holds up to `blocks` blocks of `block` rows of a split; a row asked for brings in its block,
    in place of the one longest unused.

    With an order that shuffles `blocks` blocks of `block` rows at a time (sharding.epoch_order with
    a window) each block is read once in an epoch. rows: the dataset rows int64, ascending, that the
    order was made for, where it is not all of the split (a member's shard); blocks are then cut
    from these. Memory: blocks + 1 blocks, more only for batches larger than a block. labels: int64
    (rows,) of the split; with them a block is compared with its digest when it is read for the
    first time, where it has one.
    """

    def __init__(
        self,
        dataset: Dataset,
        split: str,
        block: int,
        blocks: int,
        rows: np.ndarray | None = None,
        labels: np.ndarray | None = None,
    ) -> None:
        self._dataset, self._split, self._block, self._rows = dataset, split, block, rows
        self._size = dataset.sizes[split] if rows is None else len(rows)
        count = -(-self._size // block)
        self._slots = min(blocks, count)
        self._buffer = np.empty(((self._slots + 1) * block, dataset.features), np.uint8)
        self._slot_of = np.full(count, -1, np.int64)  # of a block; -1: not held
        self._block_in = np.full(self._slots, -1, np.int64)  # of a slot; -1: empty
        self._used = np.full(self._slots, -1, np.int64)  # when a row of the slot was last asked for
        self._labels, self._checked = labels, np.zeros(count, bool)
        self._clock = 0
        self.blocks_read = 0

    def batch(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return images uint8 (m, features) and the place int64 (n,) of each of `rows` (n,) among
        them, valid until the next call.

        A batch that straddles two windows may need more blocks than there is room for. Its first
        rows are then set aside, in the spare block, before their blocks make way.
        """
        numbers = self._numbers(rows)
        start = 0
        while (stop := start + self._fitting(numbers[start:])) < len(numbers):
            self._hold(numbers[start:stop])
            self._set_aside(self._places(numbers[start:stop]), start)
            start = stop
        self._hold(numbers[start:])
        aside = self._slots * self._block + np.arange(start)
        return self._buffer, np.concatenate([aside, self._places(numbers[start:])])

    def _numbers(self, rows: np.ndarray) -> np.ndarray:
        """Return the place int64 of each row in the order's numbering."""
        rows = np.asarray(rows, np.int64)
        return rows if self._rows is None else np.searchsorted(self._rows, rows)

    def _fitting(self, numbers: np.ndarray) -> int:
        """Return how many of the first rows lie in no more blocks than there are slots."""
        first = np.unique(numbers // self._block, return_index=True)[1]
        return len(numbers) if len(first) <= self._slots else int(np.sort(first)[self._slots])

    def _hold(self, numbers: np.ndarray) -> None:
        """Bring in the blocks of these rows; those longest unused make way."""
        needed, from_end = np.unique((numbers // self._block)[::-1], return_index=True)
        missing = needed[self._slot_of[needed] < 0]
        if len(missing):
            idle = np.flatnonzero(~np.isin(self._block_in, needed))
            for block, slot in zip(
                missing.tolist(),
                idle[np.argsort(self._used[idle], kind="stable")].tolist(),
                strict=False,
            ):
                self._load(block, slot)
        self._clock += len(numbers)
        self._used[self._slot_of[needed]] = self._clock - from_end

    def _load(self, block: int, slot: int) -> None:
        if self._block_in[slot] >= 0:
            self._slot_of[self._block_in[slot]] = -1
        start, stop = block * self._block, min((block + 1) * self._block, self._size)
        target = self._buffer[slot * self._block :][: stop - start]
        with doing(Doing.READING):
            if self._rows is None:
                self._dataset.read_into(self._split, start, stop, target)
                self._check(block, start, target)
            else:
                target[:] = self._dataset.rows(self._split, self._rows[start:stop])
        self._block_in[slot], self._slot_of[block] = block, slot
        self.blocks_read += 1

    def _check(self, block: int, start: int, images: np.ndarray) -> None:
        stop = start + len(images)
        if (
            self._labels is not None
            and not self._checked[block]
            and is_block(self._dataset, self._split, start, stop)
        ):
            check_block(self._dataset, self._split, start, images, self._labels[start:stop])
        self._checked[block] = True

    def _places(self, numbers: np.ndarray) -> np.ndarray:
        """Return where in the buffer the rows are whose blocks are held."""
        slots = self._slot_of[numbers // self._block]
        places: np.ndarray = slots * self._block + numbers % self._block
        return places

    def _set_aside(self, places: np.ndarray, start: int) -> None:
        """Copy rows of the buffer to its end, after `start` others."""
        first = self._slots * self._block + start
        if first + len(places) > len(self._buffer):
            grown = np.empty((first + len(places), self._dataset.features), np.uint8)
            grown[: len(self._buffer)] = self._buffer
            self._buffer = grown
        self._buffer[first : first + len(places)] = self._buffer[places]
