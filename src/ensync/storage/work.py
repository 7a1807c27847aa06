"""How a preparation goes about its pictures."""

from dataclasses import dataclass, field

from ensync.storage.partial import Partial
from ensync.storage.request import Progress


def silent(what: str, done: int, total: int, unit: str = "", /) -> None:
    """Tell nobody of progress."""


@dataclass(frozen=True)
class Work:
    """Who is told of progress; jobs: how many threads decode, 0 for one on each CPU that this
    process may use; partial: what an earlier call that was stopped has done.
    """

    progress: Progress = silent
    jobs: int = 0
    partial: Partial = field(default_factory=Partial)


ALONE = Work()
