"""What this process may use of its machine: memory and CPU time, control groups and other limits
included.
"""

import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

try:
    import resource
except ImportError:  # not a Unix
    resource = None  # type: ignore[assignment]

BOUNDLESS = (
    1 << 60
)  # bytes from which version 1 of control groups means no limit (it writes 2^63 less a page)


@dataclass(frozen=True)
class Memory:
    """Memory in bytes that can still be taken, and what bounds it, in words for a sentence."""

    bytes: float
    bound: str


def usable_cpus() -> int:
    """Return how many CPUs this process may keep busy: those of its affinity mask, no more than its
    control groups allow.
    """
    mask = getattr(os, "sched_getaffinity", None)
    here = len(mask(0)) if mask else os.cpu_count() or 1
    return max(1, int(min(here, cpu_quota())))


def cpu_quota(root: str | Path = "/") -> float:
    """Return the CPUs' worth of time that control groups allow this process and its neighbours
    there, infinity without a quota.

    Linux: cpu.max (version 2) or cpu.cfs_quota_us (version 1), the least over the group and those
    above it. root: where /proc and /sys lie, for tests.
    """
    return min((_quota(group) for group in _groups(Path(root), "cpu")), default=math.inf)


def node_memory(root: str | Path = "/", environment: Mapping[str, str] = os.environ) -> Memory:
    """Return what all processes of this job on this node can still take together: of the node,
    of its control groups, of Slurm's grant.
    """
    return min(_node_bounds(Path(root), environment), key=lambda memory: memory.bytes)


def process_memory(root: str | Path = "/") -> Memory:
    """Return what this process can still take by its own limits (ulimit -v, -d), infinity
    without one.
    """
    return min(
        _process_bounds(Path(root)),
        key=lambda memory: memory.bytes,
        default=Memory(math.inf, "no limit"),
    )


def _node_bounds(root: Path, environment: Mapping[str, str]) -> Iterator[Memory]:
    yield Memory(_available(root), "the node")
    for group in _groups(root, "memory"):
        if (left := _left_in(group)) < math.inf:
            yield Memory(left, f"the control group {group.name or '/'}")
    for name, factor in (
        ("SLURM_MEM_PER_NODE", 1),
        ("SLURM_MEM_PER_CPU", number(environment.get("SLURM_CPUS_ON_NODE"))),
    ):
        if (granted := number(environment.get(name))) and factor:
            yield Memory(granted * factor << 20, name)


def _available(root: Path) -> float:
    """Return MemAvailable of /proc/meminfo, elsewhere the pages that are free."""
    found = re.search(r"^MemAvailable: *(\d+) kB", _text(root / "proc/meminfo"), re.MULTILINE)
    return (
        int(found[1]) << 10 if found else os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    )


def _left_in(group: Path) -> float:
    """Return what a memory group leaves: its limit less what is used and cannot be given back
    (files in the page cache can).
    """
    limits = [
        _limit(group / name) for name in ("memory.max", "memory.high", "memory.limit_in_bytes")
    ]
    used = number(_text(group / "memory.current")) or number(_text(group / "memory.usage_in_bytes"))
    kept = re.findall(
        r"^(?:total_)?(?:in)?active_file (\d+)$", _text(group / "memory.stat"), re.MULTILINE
    )
    cached = sum(
        map(int, kept[-2:])
    )  # version 1 has those of the group alone first, then those of its whole tree
    return max(0, min(limits) - max(0, used - cached))


def _limit(path: Path) -> float:
    value = _text(path).strip()
    return int(value) if re.fullmatch("[0-9]+", value) and int(value) < BOUNDLESS else math.inf


def _quota(group: Path) -> float:
    quota, period = (*_text(group / "cpu.max").split(), "", "")[:2]
    if not quota:
        quota, period = (
            _text(group / "cpu.cfs_quota_us").strip(),
            _text(group / "cpu.cfs_period_us").strip(),
        )
    return (
        int(quota) / number(period)
        if re.fullmatch("[0-9]+", quota) and number(period)
        else math.inf
    )


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Yield the directories of this process's control groups that may bear this controller's
    limits, each followed by those above it.
    """
    inside = dict(_memberships(root, controller))
    for line in _text(root / "proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        place, (kind, _, options) = left.split(), (*right.split(), "", "", "")[:3]
        if (
            len(place) < 5
            or not (kind == "cgroup2" or (kind == "cgroup" and controller in options.split(",")))
            or kind not in inside
        ):
            continue
        top = root / place[4].lstrip("/")
        own = os.path.relpath(inside[kind], place[3])
        group = (
            top if own.startswith("..") else top / own
        )  # a container may see its own group alone, mounted as the top
        yield from (
            directory for directory in (group, *group.parents) if directory.is_relative_to(top)
        )


def _memberships(root: Path, controller: str) -> Iterator[tuple[str, str]]:
    """Yield ("cgroup2" or "cgroup", path of this process's group) from lines such as 0::/a/b and
    4:cpu,cpuacct:/a.
    """
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, controllers, path = (*line.split(":", 2), "", "")[:3]
        if not path:
            continue
        if number == "0" and not controllers:
            yield "cgroup2", path
        elif controller in controllers.split(","):
            yield "cgroup", path


def _process_bounds(root: Path) -> Iterator[Memory]:
    status = _text(root / "proc/self/status")
    for limit, taken, option in (
        ("RLIMIT_AS", "VmSize", "ulimit -v"),
        ("RLIMIT_DATA", "VmData", "ulimit -d"),
    ):
        allowed = resource.getrlimit(getattr(resource, limit))[0] if resource else -1
        used = re.search(rf"^{taken}:\s*(\d+) kB", status, re.MULTILINE)
        if allowed >= 0 and resource and allowed != resource.RLIM_INFINITY:
            yield Memory(
                max(0, allowed - (int(used[1]) << 10 if used else 0)),
                f"the limit of a process ({option})",
            )


def number(text: str | None) -> int:
    """Return the whole number that a variable or a file of the system holds, 0 when it is none."""
    return int(text) if text and re.fullmatch(r"\s*[0-9]+\s*", text) else 0


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
