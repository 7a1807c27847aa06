"""The one error a user meets: what was given, what was expected, what to do."""

import difflib
from collections.abc import Iterable


class EnsyncError(Exception):
    """A mistake of the user's or of the machine's, told in one sentence of three parts.

    given: what was found ("training.epochs = -3"); expected: what would be right ("a whole number of at least 1");
    action: what to do ("change it in the job file or with --set training.epochs=N").
    """

    exit_code = 2

    def __init__(self, given: str, expected: str, action: str) -> None:
        super().__init__(given, expected, action)
        self.given, self.expected, self.action = given, expected, action

    def __str__(self) -> str:
        return f"{self.given}; expected {self.expected}; {self.action}."


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Return " (did you mean 'x'?)" for the nearest allowed name, or "" when none is near."""
    near = difflib.get_close_matches(name, list(allowed), n=1, cutoff=0.5)
    return f" (did you mean '{near[0]}'?)" if near else ""
