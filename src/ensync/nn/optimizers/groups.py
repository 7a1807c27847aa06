"""Which parameters belong to which group of an optimiser ([[optimizer.groups]])."""

from dataclasses import dataclass
from fnmatch import fnmatchcase

from ensync.core.config.optimizers import OPTIMIZERS
from ensync.core.config.optimizers import Optimizer as Settings
from ensync.core.errors import EnsyncError, nearest
from ensync.nn.optimizers.update import Layout

REST = 0  # the number of the parameters in no group; the groups count from 1
NAMED = 40  # parameters that a refusal names


@dataclass(frozen=True)
class Stretch:
    """Neighbours of one group: the elements from `start` to before `stop` of the flat vector, and
    the layout of these.
    """

    group: int
    start: int
    stop: int
    layout: Layout


def stretches_of(settings: Settings, layout: Layout) -> list[Stretch]:
    """Cut a layout into as few stretches as have one group each.

    Errors: EnsyncError, where a pattern matches no parameter, or two groups the same one.
    """
    groups = _groups_of(settings, layout)
    found: list[Stretch] = []
    start = 0
    for group, (name, parameter) in zip(groups, layout, strict=True):
        first, before = start, list(layout[:0])
        if found and found[-1].group == group:
            last = found.pop()
            first, before = last.start, list(last.layout)
        stop = start + parameter.size
        found.append(Stretch(group, first, stop, [*before, (name, parameter)]))
        start = stop
    return found


def slots_of(settings: Settings) -> list[str]:
    """Return the names of the vectors that the optimiser and its groups keep; a name that several
    have is one vector, since each parameter has one of them.
    """
    names = dict.fromkeys(each.name for each in settings.of_groups)
    return list(dict.fromkeys(slot for name in names for slot in OPTIMIZERS[name].slots))


def _groups_of(settings: Settings, layout: Layout) -> list[int]:
    """Return each parameter's group."""
    found, names = [REST] * len(layout), [name for name, _ in layout]
    for number, group in enumerate(settings.groups, 1):
        for pattern in group.patterns:
            matching = [i for i, name in enumerate(names) if fnmatchcase(name, pattern)]
            if not matching:
                raise _unmatched(pattern, number, names)
            for i in matching:
                if found[i] not in (REST, number):
                    raise _twice(names[i], found[i], number)
                found[i] = number
    return found


def _unmatched(pattern: str, number: int, names: list[str]) -> EnsyncError:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return EnsyncError(
        f"parameters = '{pattern}' of optimizer.groups {number} matches no parameter"
        f"{nearest(pattern, names)}",
        "a pattern (* for any text) of " + ", ".join(names[:NAMED]) + more,
        "correct or remove it",
    )


def _twice(name: str, first: int, second: int) -> EnsyncError:
    return EnsyncError(
        f"the parameter '{name}' is in optimizer.groups {first} and {second}",
        "each parameter in one group at most",
        "make the patterns of one of them narrower",
    )
