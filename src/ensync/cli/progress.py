"""Progress bars on a terminal."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from ensync.core.errors import printable
from ensync.storage.request import Progress


@contextmanager
def bars() -> Iterator[Progress]:
    """Show a bar for each kind of work while the block runs; yield what reports progress."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        TaskID,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Bars(*columns, console=console, transient=True, disable=not console.is_terminal) as shown:
        tasks: dict[str, TaskID] = {}

        def progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = shown.add_task(printable(what), total=total)
            shown.update(tasks[what], completed=done, total=total)

        yield progress


@contextmanager
def no_bars() -> Iterator[Progress]:
    """Show nothing."""
    yield lambda what, done, total: None


def bars_of(rank: int) -> Callable[[], AbstractContextManager[Progress]]:
    """Return what shows the bars of a rank: rank 0 alone has some."""
    return no_bars if rank else bars
