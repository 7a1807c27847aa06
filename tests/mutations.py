"""Seeded damage for files: the same number always does the same, so that a find is a number to
put into a regression test.
"""

import os
import random
import time
from collections.abc import Callable, Iterator

from ensync.core.errors import EnsyncError

tried = {"read": 0, "refused": 0}  # how many damaged files, in this session
# seconds of this process's own work that one damaged file may take; a wait without end is pytest's
# to find
SLOWEST = 10.0
EDGES = (
    0,
    1,
    127,
    128,
    255,
    256,
    0x7FFF,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    0xFFFFFFFFFFFFFFFF,
)


def rounds(usual: int) -> range:
    """Return the numbers of the mutations to try: `usual` in the suite, ENSYNC_FUZZ from
    ENSYNC_FUZZ_SEED on in `make fuzz`.
    """
    first = int(os.environ.get("ENSYNC_FUZZ_SEED", "0"))
    return range(first, first + int(os.environ.get("ENSYNC_FUZZ", usual)))


def mutate(data: bytes, number: int) -> bytes:
    """Return `data` with one to a dozen changes: bits, bytes, numbers at their edges, pieces
    moved, doubled, cut out or cut off.
    """
    dice = random.Random(number)
    changed = bytearray(data)
    for _ in range(dice.choice((1, 1, 1, 2, 4, 12))):
        dice.choice(CHANGES)(changed, dice, dice.randrange(len(changed) + 1))
    return bytes(changed)


def _flip(data: bytearray, dice: random.Random, place: int) -> None:
    data[place : place + 1] = bytes(
        byte ^ 1 << dice.randrange(8) for byte in data[place : place + 1]
    )


def _number(data: bytearray, dice: random.Random, place: int) -> None:
    size = dice.choice((1, 2, 4, 8))
    value = dice.choice(EDGES) % (1 << 8 * size)
    data[place : place + size] = value.to_bytes(size, dice.choice(("big", "little")))[
        : len(data[place : place + size])
    ]


def _text(data: bytearray, dice: random.Random, place: int) -> None:
    data[place : place + 1] = dice.choice(
        (
            b"",
            b",",
            b"\n",
            b'"',
            b"-",
            b"nan",
            b"1e999",
            b"\x00",
            b"\xff\xfe",
            b"99999999999999999999",
            b"[" * 50,
        )
    )


def _cut_out(data: bytearray, dice: random.Random, place: int) -> None:
    del data[place : place + dice.choice((1, 2, 16, 1000))]


def _cut_off(data: bytearray, dice: random.Random, place: int) -> None:
    del data[place:]


def _copy(data: bytearray, dice: random.Random, place: int) -> None:
    source = dice.randrange(len(data) + 1)
    data[place : place + dice.choice((0, 8))] = data[
        source : source + dice.choice((1, 8, 64, 1000))
    ]


CHANGES = (_flip, _flip, _flip, _number, _number, _text, _cut_out, _cut_off, _copy, _copy)


def survives(read: Callable[[], object], number: int) -> str | None:
    """Read a damaged file: it must be read or refused in one sentence, soon. Return the
    sentence, None when it was read.
    """
    start = time.process_time()
    try:
        read()
        sentence = None
    except EnsyncError as error:
        sentence = str(error)
        assert "\n" not in sentence and len(sentence) < 2000 and "Traceback" not in sentence, (
            f"mutation {number}: {sentence}"
        )
    except BaseException as error:
        raise AssertionError(
            f"mutation {number} of this file is not refused in a sentence"
        ) from error
    assert time.process_time() - start < SLOWEST, f"mutation {number} takes too long"
    tried["read" if sentence is None else "refused"] += 1
    return sentence


def try_all(data: bytes, usual: int, read: Callable[[bytes], object]) -> Iterator[str | None]:
    """Read each mutation of `data`; yield what `survives` returns."""
    for number in rounds(usual):
        yield survives(lambda number=number: read(mutate(data, number)), number)


def places(tree, found):
    """Every dict or list of a tree with one of its keys, the tree's own first."""
    for key in list(tree) if isinstance(tree, dict) else range(len(tree)):
        found.append((tree, key))
        if isinstance(tree[key], dict | list):
            places(tree[key], found)
    return found
