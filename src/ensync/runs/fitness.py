"""Is this machine, this launcher and this file system fit for Ensync? Pure judgement of facts that
fitness_facts.py gathers.

Every check takes the facts of all ranks, in order of rank, and returns findings of one sentence
each: what is, and for yellow and red what it costs and the option that mends it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from ensync.runs.open_mpi import Variable

Level = Literal["green", "yellow", "red"]
CLOCK_SPREAD = 1.0  # seconds between the clocks of two nodes from which times in logs mislead
SLOW_ALLREDUCE = (
    100e6  # bytes per second below which the network costs more than a rank on another node brings
)


@dataclass(frozen=True)
class Finding:
    """One sentence about one subject."""

    level: Level
    subject: str
    sentence: str


@dataclass(frozen=True)
class Rank:
    """What one rank knows of itself and its node."""

    rank: int
    node: str
    mpi: str  # "MPICH 5.0.2"
    launcher: str  # "srun", "mpirun" or "" when started directly
    cores: frozenset[int]  # that it may run on
    node_cores: int  # of the machine
    threads: int  # that its kernels take
    granted: int = 0  # cores that Slurm promised to it, 0 when not said
    layer: str = "omp"  # numba's threading layer
    vectors: str = "avx512 vectors"  # of its kernels
    cache: str = ""  # numba's cache directory
    cache_trouble: str = ""  # why it cannot be written
    clock: float = 0.0  # seconds since 1970 at a common moment
    memory: float = 0  # bytes that the job can still take on the node, all limits considered
    bound: str = "the node"  # what bounds them: the node, a control group, Slurm's grant
    own_memory: float = math.inf  # bytes that this process can still take by its own limit
    own_bound: str = ""
    quota: float = (
        math.inf
    )  # cores' worth of time that a control group gives to the ranks of the node together
    unset: tuple[Variable, ...] = ()  # what Open MPI needs here and nobody has set


@dataclass(frozen=True)
class Site:
    """What the ranks have in common: the wire and the file system of output.directory."""

    allreduce_right: bool
    allreduce_bytes: int
    allreduce_seconds: float
    directory: str
    file_system: str
    free_bytes: int
    hdf5: str
    write_trouble: str = ""
    lock_trouble: str = ""
    needed: dict[str, int] = field(
        default_factory=dict
    )  # bytes: "dataset" on each node, "rank" for each rank; empty without a job


def examine(ranks: Sequence[Rank], site: Site) -> list[Finding]:
    """Return all findings."""
    checks = [
        launcher(ranks),
        *variables(ranks),
        spread(ranks),
        *cores(ranks),
        *threading(ranks),
        clocks(ranks),
        allreduce(ranks, site),
        *files(site),
        *memory(ranks, site),
    ]
    return [finding for finding in checks if finding]


def exit_code(findings: Sequence[Finding]) -> int:
    """Return 1 when anything is red, otherwise 0."""
    return int(any(finding.level == "red" for finding in findings))


def nodes_of(ranks: Sequence[Rank]) -> dict[str, list[Rank]]:
    """Return the ranks of every node."""
    nodes: dict[str, list[Rank]] = {}
    for rank in ranks:
        nodes.setdefault(rank.node, []).append(rank)
    return nodes


def launcher(ranks: Sequence[Rank]) -> Finding:
    """Say which MPI runs under which launcher. (Ranks that do not find each other never come
    here: ensync.mpi refuses them.)
    """
    kinds = sorted({rank.mpi for rank in ranks})
    if len(kinds) > 1:
        return Finding(
            "red",
            "MPI",
            f"the ranks load different MPI libraries ({', '.join(kinds)}); use the same "
            "environment on every node",
        )
    started = f"started by {ranks[0].launcher}" if ranks[0].launcher else "started directly"
    return Finding(
        "green",
        "MPI",
        f"{kinds[0]}, {_count(len(ranks), 'rank')} "
        f"{started}{', which find each other' * (len(ranks) > 1)}",
    )


def variables(ranks: Sequence[Rank]) -> list[Finding]:
    """Name each variable that Open MPI lacks, with the line that sets it."""
    return [
        Finding(
            "yellow",
            "variable",
            f"without {each.name} {each.without}; type `export {each.name}={each.value}`, or "
            "activate the environment that `make MPI=openmpi` made, which sets it",
        )
        for each in ranks[0].unset
    ]


def spread(ranks: Sequence[Rank]) -> Finding:
    """Say how many ranks are on each node."""
    counts = {node: len(here) for node, here in nodes_of(ranks).items()}
    if len(set(counts.values())) > 1:
        uneven = ", ".join(f"{count} on {node}" for node, count in counts.items())
        return Finding(
            "yellow",
            "nodes",
            f"ranks are spread unevenly ({uneven}), so all wait for the fullest node; give "
            "--ntasks-per-node or -ppn",
        )
    each = next(iter(counts.values()))
    return Finding(
        "green",
        "nodes",
        f"{_count(len(counts), 'node')} ({', '.join(counts)}) with "
        f"{_count(each, 'rank')}{' each' * (len(counts) > 1)}",
    )


def cores(ranks: Sequence[Rank]) -> list[Finding]:
    """Judge the cores of the ranks of each node; nodes that are alike are told once."""
    found: dict[tuple[Level, str], list[str]] = {}
    for node, here in nodes_of(ranks).items():
        found.setdefault(_cores_of_node(here), []).append(node)
    return [
        Finding(level, "cores", f"{sentence} (on {', '.join(nodes)})")
        for (level, sentence), nodes in found.items()
    ]


def _cores_of_node(here: Sequence[Rank]) -> tuple[Level, str]:
    usable = frozenset().union(*(rank.cores for rank in here))
    wanted, first = sum(rank.threads for rank in here), here[0]
    share = max(1, len(usable) // len(here))
    if len(here) > len(usable):
        return (
            "yellow",
            f"{len(here)} ranks share {_count(len(usable), 'core')} and take turns; start at "
            f"most {len(usable)}{_fewer(first, len(usable))}",
        )
    if wanted > len(usable):
        return (
            "yellow",
            f"{_count(wanted, 'thread')} of {_count(len(here), 'rank')} share "
            f"{_count(len(usable), 'core')}; set training.threads={share} or "
            f"{option(first, share)}",
        )
    if wanted >= first.quota + 1:
        return "yellow", (
            f"{_count(wanted, 'thread')} of {_count(len(here), 'rank')} get the time of "
            f"{first.quota:g} core{'s' * (first.quota != 1)} (a control group's CPU quota) "
            f"and are halted for the rest; {_within_quota(here)}"
        )
    if 0 < first.granted < max(rank.threads for rank in here):
        return (
            "yellow",
            f"a rank takes {_count(first.threads, 'thread')} but Slurm gave it "
            f"{_count(first.granted, 'core')} and does not bind it; set "
            f"training.threads={first.granted}",
        )
    fair = max(1, first.node_cores // len(here))
    if (
        _bound(here)
        and len(usable) < first.node_cores
        and len(first.cores) < fair
        and not first.granted
    ):
        return (
            "yellow",
            f"each rank is bound to {len(first.cores)} of {first.node_cores} cores; add "
            f"{option(first, fair)} to use {fair}",
        )
    how = "bound to cores of its own" if _bound(here) and len(here) > 1 else "not bound"
    return (
        "green",
        f"each rank has {_count(first.threads, 'thread')}, {how}; "
        f"{_count(first.node_cores, 'core')} in all",
    )


def _within_quota(here: Sequence[Rank]) -> str:
    """Return what keeps the ranks of a node within their quota."""
    fair, most = max(1, int(here[0].quota / len(here))), max(1, int(here[0].quota))
    if len(here) > most:
        return f"start at most {most}{_fewer(here[0], most)}" + (
            " and set training.threads=1" if here[0].threads > 1 else ""
        )
    return f"set training.threads={fair}"


def _bound(here: Sequence[Rank]) -> bool:
    """Whether no two ranks may run on the same core."""
    return sum(len(rank.cores) for rank in here) == len(
        frozenset().union(*(rank.cores for rank in here))
    )


def option(rank: Rank, count: int) -> str:
    """Return what gives `count` cores to each rank, in the words of this launcher."""
    if rank.launcher == "srun":
        return f"--cpus-per-task={count} --cpu-bind=cores"
    return (
        f"--map-by slot:PE={count}" if rank.mpi.startswith("Open MPI") else f"-bind-to core:{count}"
    )


def _fewer(rank: Rank, count: int) -> str:
    return (
        f" (--ntasks-per-node={count})"
        if rank.launcher == "srun"
        else f" on each node (-n, -ppn {count})"
    )


def threading(ranks: Sequence[Rank]) -> list[Finding]:
    """Judge numba's threading layer and its cache."""
    layers = sorted({rank.layer for rank in ranks})
    vectors = ", ".join(sorted({rank.vectors for rank in ranks}))
    troubles = sorted({rank.cache_trouble for rank in ranks} - {""})
    words = f"{vectors}, numba threads by {', '.join(layers)}, cache {ranks[0].cache}"
    found = [Finding("green", "kernels", words)]
    if troubles:
        found = [
            Finding(
                "yellow",
                "kernels",
                f"compiled kernels cannot be kept ({troubles[0]}), so each start compiles for "
                "half a minute; set NUMBA_CACHE_DIR",
            )
        ]
    if "workqueue" in layers and max(rank.threads for rank in ranks) > 1:
        found.append(
            Finding(
                "yellow",
                "kernels",
                "numba has only its workqueue layer, which is slower with several threads; "
                "install libgomp (gcc's OpenMP)",
            )
        )
    return found


def clocks(ranks: Sequence[Rank]) -> Finding | None:
    """Judge how far the nodes' clocks are apart."""
    by_node = {node: here[0].clock for node, here in nodes_of(ranks).items()}
    if len(by_node) == 1:
        return None
    late, early = max(by_node, key=by_node.__getitem__), min(by_node, key=by_node.__getitem__)
    apart = by_node[late] - by_node[early]
    if apart > CLOCK_SPREAD:
        return Finding(
            "yellow",
            "clocks",
            f"{late} is {apart:.1f} s ahead of {early}, so times in logs mislead; results are "
            "not touched; start chrony or ntpd",
        )
    return Finding(
        "green", "clocks", f"{_count(len(by_node), 'node')} within {max(apart, 0.01):.2f} s"
    )


def allreduce(ranks: Sequence[Rank], site: Site) -> Finding | None:
    """Judge a sum over all ranks: its values, then its speed."""
    if not site.allreduce_right:
        return Finding(
            "red",
            "allreduce",
            f"a sum over {_count(len(ranks), 'rank')} came out wrong: this MPI installation is "
            "broken; take another",
        )
    if len(ranks) == 1:
        return None
    speed = site.allreduce_bytes / site.allreduce_seconds
    text = (
        f"a sum of {site.allreduce_bytes / 1e6:.0f} MB over {len(ranks)} ranks is right and "
        f"takes {1e3 * site.allreduce_seconds:.1f} ms ({speed / 1e9:.2f} GB/s)"
    )
    if speed < SLOW_ALLREDUCE:
        return Finding(
            "yellow",
            "allreduce",
            f"{text}, slow: give each step a larger training.batch, or train an ensemble; see "
            "that MPI uses the fast network",
        )
    return Finding("green", "allreduce", text)


def files(site: Site) -> list[Finding]:
    """Judge the file system of output.directory."""
    where = f"{site.directory} ({site.file_system}, {site.free_bytes / 1e9:.1f} GB free)"
    if site.write_trouble:
        return [Finding("red", "files", f"{site.write_trouble}")]
    lock = (
        f", whose locks fail here ({site.lock_trouble}): Ensync needs none, for other HDF5 "
        "tools set HDF5_USE_FILE_LOCKING=FALSE"
        if site.lock_trouble
        else ""
    )
    return [
        Finding(
            "yellow" if lock else "green",
            "files",
            f"{where} takes whole files; HDF5 {site.hdf5}{lock}",
        )
    ]


def memory(ranks: Sequence[Rank], site: Site) -> list[Finding]:
    """Judge whether a job's memory is there on every node."""
    found = []
    for node, here in nodes_of(ranks).items() if site.needed else ():
        least, own = (
            min(here, key=lambda rank: rank.memory),
            min(here, key=lambda rank: rank.own_memory),
        )
        need, free = site.needed["dataset"] + len(here) * site.needed["rank"], least.memory
        parts = (
            f"{need / 1e9:.2f} GB (dataset {site.needed['dataset'] / 1e9:.2f}, "
            f"{_count(len(here), 'rank')} x {site.needed['rank'] / 1e9:.2f})"
        )
        if need > free:
            advice = (
                "start fewer ranks on a node, lower training.batch, or set data.placement='stream'"
            )
            found.append(
                Finding(
                    "red",
                    "memory",
                    f"the job needs about {parts} on {node}, where {least.bound} leaves "
                    f"{free / 1e9:.2f} GB; {advice}",
                )
            )
        elif sum(site.needed.values()) > own.own_memory:
            found.append(
                Finding(
                    "red",
                    "memory",
                    f"a rank needs about {sum(site.needed.values()) / 1e9:.2f} GB, and "
                    f"{own.own_bound} leaves {own.own_memory / 1e9:.2f} GB; raise it",
                )
            )
    if site.needed and not found:
        found.append(
            Finding(
                "green",
                "memory",
                f"the job needs about {parts} on a node, and {least.bound} leaves "
                f"{free / 1e9:.2f} GB",
            )
        )
    return found


def _count(amount: int, what: str) -> str:
    return f"{amount} {what}{'s' * (amount != 1)}"
