"""The end of a run that was asked to stop."""

from typing import Any

from ensync.core.errors import EnsyncError, printable


class Stopped(EnsyncError):
    """The run was asked to stop; its state is in a checkpoint."""

    def __init__(self, given: str, expected: str, action: str, exit_code: int) -> None:
        super().__init__(given, expected, action)
        self.exit_code = exit_code

    def __reduce__(self) -> tuple[Any, ...]:
        return (Stopped, (self.given, self.expected, self.action, self.exit_code))

    def __str__(self) -> str:
        return printable(f"{self.given}; {self.action}.")

    def of_part(self, part: str, whole: str) -> "Stopped":
        """Return it for a study that was stopped in one of its runs, `part`, and that the command
        `whole` continues."""
        return Stopped(
            f"{self.given}, in {part}",
            "",
            f"{self.action} that alone, {whole} all of it",
            self.exit_code,
        )
