"""The look at every picture before anything is written, of which a later call remembers what was
found.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Self, TypeVar

from ensync.storage.sources.decoding import Decoded
from ensync.storage.sources.depth import Depth
from ensync.storage.sources.picture_rows import in_order
from ensync.storage.work import Work

SHAPE = (8, 8, 1)  # height, width, channels that a picture is decoded to when it is looked at


class Look(NamedTuple):
    """What a look at a picture has found: what decoding it gave, without pixels, and the SHA-256
    of its bytes.
    """

    one: Decoded
    sha: bytes

    def recorded(self) -> list[Any]:
        """Return it as JSON has it, without what is wrong with a picture: that may be mended."""
        one = self.one
        usual = one == Decoded(side=one.side)
        rare = [] if usual else [one.transparent, one.frames, one.depth and list(one.depth)]
        return [self.sha.hex(), one.side, *rare]

    @classmethod
    def of(cls, recorded: list[Any]) -> Self:
        """Return what `recorded` gave."""
        sha, side, *rare = recorded
        if not rare:
            return cls(Decoded(side=side), bytes.fromhex(sha))
        transparent, frames, depth = rare
        if depth:
            bits, values, *rest = depth
            depth = Depth(bits, (values[0], values[1]), *rest)
        one = Decoded(None, "", transparent, frames, depth or None, side)
        return cls(one, bytes.fromhex(sha))


Item = TypeVar("Item")


def look_at(
    items: Iterable[Item],
    look: Callable[[Item], Look],
    key: Callable[[Item], int],
    size: Callable[[Item], int],
    work: Work,
) -> Iterator[tuple[Item, Look]]:
    """Yield each picture with what a look at it finds in threads, or an earlier call has found.

    key(item): a number of 64 bits, the same for the same picture, 0 for one that is not to be
    remembered. size(item): the bytes that it holds.
    """
    kept = work.partial

    def fresh(item: Item) -> tuple[Look, int]:
        return look(item), key(item)

    def known(item: Item) -> tuple[Look, int] | None:
        found = kept.known(key(item)) if kept.knows_pictures else None
        return None if found is None else (Look.of(found), 0)

    for item, (found, number) in in_order(fresh, items, size, work.jobs, known):
        if number and not found.one.problem:
            kept.note(number, found.recorded())
        yield item, found
