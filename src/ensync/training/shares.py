"""The part of each batch that is this rank's by its speed, and how fast this rank is."""

from dataclasses import dataclass, replace

from ensync.core.shares import Speeds
from ensync.training.reducers import Part

SHORTEST = 1e-9  # seconds that count


@dataclass
class Shares:
    """The speeds by which batches are cut, none for equal parts, and what this rank has computed
    since the last look: rows, and seconds without those of sums and waits.
    """

    speeds: Speeds = ()
    rows: int = 0
    seconds: float = 0.0

    def cut(self, part: Part) -> Part:
        """Return a part as the speeds have it, where they are those of as many ranks."""
        return replace(part, speeds=self.speeds) if len(self.speeds) == part.count else part

    def note(self, rows: int, seconds: float) -> None:
        """Count what was computed."""
        self.rows, self.seconds = self.rows + rows, self.seconds + seconds

    def measured(self) -> float | None:
        """Return this rank's rows per second since the last call, None where it had none."""
        rows, seconds = self.rows, max(self.seconds, SHORTEST)
        self.rows, self.seconds = 0, 0.0
        return rows / seconds if rows else None
