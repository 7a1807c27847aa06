"""What the tables of losses, optimisers and schedules have in common."""

from collections.abc import Mapping
from typing import Protocol


class Spec(Protocol):
    """A row of such a table."""

    @property
    def settings(self) -> tuple[str, ...]:
        """The settings of its section that not every row has."""
        ...


def having(table: Mapping[str, Spec], setting: str) -> list[str]:
    """Return the names of the rows that have a setting."""
    return [name for name, spec in table.items() if setting in spec.settings]


def only(table: Mapping[str, Spec], setting: str) -> str:
    """Return the names that the help of a setting begins with, since only these have it."""
    return ", ".join(having(table, setting))
