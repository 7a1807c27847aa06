"""How many rows of a batch each rank computes where that goes by its speed.

All of it is arithmetic of Python's floats, so that ranks on any CPU find the same.
"""

import heapq
from collections.abc import Sequence
from functools import lru_cache
from math import fsum

MOST = 2  # times an equal part: what a rank has room for
WORTH = 0.05  # share of the slowest rank's time that other parts must save to be taken
Speeds = tuple[float, ...]  # rows per second of each rank; only their ratios count


def most_rows(n: int, ranks: int) -> int:
    """Return how many of n rows a rank computes at most."""
    return min(n, MOST * -(-n // ranks))


@lru_cache(maxsize=64)
def rows_by_speed(n: int, speeds: Speeds) -> tuple[int, ...]:
    """Return how many of n rows each rank computes, so that the last of them ends soonest.

    Each has a row at least, where there are enough, and `most_rows` at most. Row after row goes to
    the rank that would be the first to end with it, among equals to the first of them: no other
    whole numbers have a smaller largest rows / speed. With equal speeds they are those of
    `sharding.block`.
    """
    most, least = most_rows(n, len(speeds)), int(n >= len(speeds))
    rows = [least] * len(speeds)
    ends = [((least + 1) / speed, rank) for rank, speed in enumerate(speeds) if least < most]
    heapq.heapify(ends)
    for _ in range(n - sum(rows)):
        rank = heapq.heappop(ends)[1]
        rows[rank] += 1
        if rows[rank] < most:
            heapq.heappush(ends, ((rows[rank] + 1) / speeds[rank], rank))
    return tuple(rows)


def block_by_speed(n: int, speeds: Speeds, rank: int) -> tuple[int, int]:
    """Return (start, stop) of the rows of `rank` when n rows are cut by the speeds of all."""
    rows = rows_by_speed(n, speeds)
    start = sum(rows[:rank])
    return start, start + rows[rank]


def adjusted(speeds: Speeds, measured: Sequence[float | None], n: int) -> Speeds:
    """Return the speeds by which batches of n rows are cut from now on, with a mean of about 1.

    speeds: those so far, none for equal ones. measured: rows per second since then, None of a rank
    without rows. The first ones count whole, later ones by half beside those so far; ones that
    would not save WORTH of the slowest rank's time change nothing.
    """
    before = speeds or (1.0,) * len(measured)
    known = [speed for speed in measured if speed is not None]
    mean = fsum(known) / max(len(known), 1)
    found = tuple(
        was if now is None else now / mean for was, now in zip(before, measured, strict=True)
    )
    if longest(rows_by_speed(n, found), found) > (1 - WORTH) * longest(
        rows_by_speed(n, before), found
    ):
        return speeds
    return tuple((was + now) / 2 for was, now in zip(before, found)) if speeds else found


def longest(rows: Sequence[int], speeds: Speeds) -> float:
    """Return the seconds of the rank that computes its rows last."""
    return max(count / speed for count, speed in zip(rows, speeds, strict=True))
