"""The part of RESULTS.md on speed, of what the benchmarks have kept in results/speed/."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from results_text import narrow, wrapped

from ensync.report import text
from ensync.report.study_tables import Table

ENOUGH = 2.0  # times as fast as PyTorch: what lies below is explained
PRECISIONS = ("float32", "bf16")
Row = Mapping[str, object]


@dataclass(frozen=True)
class Column:
    """A column of a table: its head, the key of its values, and how they are written."""

    head: str
    key: str
    written: Callable[[float], str] | None = None
    factor: float = 1.0

    def of(self, row: Row) -> str:
        """Return the cell of a row."""
        value = row.get(self.key)
        if value is None:
            return text.DASH
        return self.written(self.factor * value) if self.written else str(value)


def figures(value: float) -> str:
    """Return a number with three figures that count: "0.0123", "1.23", "123", "12,300"."""
    if value >= 100:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:#.3g}".rstrip(".")


def times(value: float) -> str:
    """Return a ratio."""
    return f"{value:.2f}"


@dataclass(frozen=True)
class Kind:
    """A benchmark: the title of its table, what is said above it, and its columns, of which the
    first `left` are words.
    """

    title: str
    said: str
    columns: Sequence[Column]
    left: int = 1


BOTH = "float32 / bf16"
KINDS = {
    "zoo_steps": Kind(
        "Training steps",
        "Milliseconds of a whole step (gather and normalise a batch, forward, loss, backward, "
        f"Adam), {BOTH}, beside PyTorch in its faster memory format, bf16 by its autocast; medians "
        "of interleaved rounds. Floor: the higher of the plain arithmetic at the measured peak, "
        "which Winograd's algorithm passes below, and of the bytes at the speed of copying.",
        [
            Column("network", "network"),
            Column("batch", "batch"),
            Column("threads", "threads"),
            Column("Ensync", "ensync"),
            Column("PyTorch", "torch"),
            Column("times as fast", "ratio"),
            Column("floor", "floor"),
        ],
    ),
    "dense_steps": Kind(
        "Dense networks by optimiser",
        "Microseconds of a step; PyTorch with the faster of its fused and foreach optimisers.",
        [
            Column("network", "network"),
            Column("batch", "batch"),
            Column("optimiser", "optimizer"),
            Column("threads", "threads"),
            Column("Ensync", "ensync_us", figures),
            Column("PyTorch", "torch_us", figures),
            Column("times as fast", "ratio", times),
        ],
    ),
    "online_steps": Kind(
        "One sample a step",
        "Microseconds of a step, tanh and squared error.",
        [
            Column("network", "network"),
            Column("threads", "threads"),
            Column("Ensync", "ensync_us", figures),
            Column("PyTorch", "torch_us", figures),
            Column("times as fast", "ratio", times),
        ],
    ),
    "evaluation": Kind(
        "Evaluation",
        "Thousands of images a second, beside PyTorch's forward pass.",
        [
            Column("network", "network"),
            Column("batch", "batch"),
            Column("precision", "precision"),
            Column("threads", "threads"),
            Column("Ensync", "images_per_second", figures, 1e-3),
            Column("PyTorch", "torch_images_per_second", figures, 1e-3),
            Column("times as fast", "ratio", times),
        ],
    ),
    "ranks_against_ddp": Kind(
        "Two ranks",
        "Milliseconds of a step on one rank of one thread, on two, and of PyTorch's "
        "DistributedDataParallel (gloo) in two processes of one thread; the global batch is fixed, "
        "and batch normalisation over a rank's own rows where nothing else is said.",
        [
            Column("network", "network"),
            Column("batch", "global_batch"),
            Column("1 rank", "ensync_1_ms", figures),
            Column("2 ranks", "ensync_2_ms", figures),
            Column("speed-up", "speed_up_2_ranks", times),
            Column("DDP", "torch_2_ms", figures),
            Column("its speed-up", "ddp_speed_up", times),
            Column("times as fast", "ratio_to_ddp", times),
        ],
    ),
    "startup": Kind(
        "Start",
        "Seconds from `mpirun` to the end of the first step, kernels compiled, and megabytes of "
        "the largest rank beside the dataset.",
        [
            Column("ranks", "ranks"),
            Column("first step", "first_step_s", times),
            Column("slowest of all", "slowest_s", times),
            Column("megabytes", "beside_dataset_mb", figures),
        ],
        left=0,
    ),
}


def speed_lines(found: Mapping[str, Mapping]) -> list[str]:
    """Return the section on speed, a table for each benchmark that was kept; beside the file NAME
    those of other processors are NAME.PROCESSOR.
    """
    lines = ["## Speed", ""]
    for name, kind in KINDS.items():
        files = sorted(key for key in found if key.split(".")[0] == name)
        if files:
            lines += [f"### {kind.title}", "", *wrapped(kind.said), ""]
        for file in files:
            lines += _table(name, kind, found[file])
    return lines[:-1]


def _table(name: str, kind: Kind, kept: Mapping) -> list[str]:
    """Return the table of a benchmark on one processor, and what explains it."""
    rows = paired(kept["rows"]) if name == "zoo_steps" else kept["rows"]
    cells = [[column.of(row) for column in kind.columns] for row in rows]
    heads = [column.head for column in kind.columns]
    lines = [*wrapped(made(kept)), "", *narrow(Table(name, "", heads, cells, left=kind.left)), ""]
    if name == "zoo_steps":
        lines += [*wrapped(_forms(kept["rows"])), "", *_explained(kept["rows"])]
    return lines


def made(kept: Mapping) -> str:
    """Return when, where and with what a benchmark was run."""
    about = kept["made"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    return (
        f"{kept['created'][:10]}, {about['cpu']}, {text.plural(about['cores'], 'core')}, "
        f"{about['simd']}; commit {about['commit']}; {versions}."
    )


def paired(rows: Iterable[Row]) -> list[Row]:
    """Return one row for both precisions of a network."""
    groups: dict[tuple, dict[str, Row]] = {}
    for row in rows:
        key = row["network"], row["batch"], row["threads"]
        groups.setdefault(key, {})[row["precision"]] = row
    found = []
    for (network, batch, threads), by_precision in groups.items():
        both = [by_precision[name] for name in PRECISIONS if name in by_precision]
        cells = {"network": network, "batch": batch, "threads": threads}
        for name, of in (
            ("ensync", lambda row: figures(row["ensync_ms"])),
            ("torch", lambda row: figures(row["torch_ms"]) if "torch_ms" in row else text.DASH),
            ("ratio", lambda row: times(row["ratio"]) if "ratio" in row else text.DASH),
            ("floor", lambda row: figures(floor(row))),
        ):
            cells[name] = " / ".join(map(of, both))
        found.append(cells)
    return found


def floor(row: Row) -> float:
    """Return the milliseconds that a step takes at least, by plain arithmetic and by bytes."""
    return max(row["arithmetic_ms"], row["bytes_ms"])


def _forms(rows: Sequence[Row]) -> str:
    """Return of how many steps PyTorch's fastest form was a compiled one."""
    forms = [str(row["torch_form"]) for row in rows if "torch_form" in row]
    compiled = sum("compiled" in form for form in forms)
    return f"In {compiled} of {len(forms)} steps PyTorch is compiled (torch.compile), else eager."


def _explained(rows: Sequence[Row]) -> list[str]:
    """Return how many steps are fast enough, and how near their floors the others are."""
    compared = [row for row in rows if "ratio" in row]
    below = sorted((row for row in compared if row["ratio"] < ENOUGH), key=lambda r: r["ratio"])
    said = (
        f"{len(compared) - len(below)} of {len(compared)} steps are at least {ENOUGH:g} times as "
        f"fast as PyTorch's, {sum(row['ratio'] < 1 for row in compared)} slower than it."
    )
    if not below:
        return [*wrapped(said), ""]
    said += (
        " Those below that, with the part of a step that its floor takes, and of PyTorch's; where "
        "both are near it there is little to gain but by other arithmetic:"
    )
    cells = [
        [
            *(str(row[key]) for key in ("network", "batch", "threads", "precision")),
            times(row["ratio"]),
            "arithmetic" if row["arithmetic_ms"] > row["bytes_ms"] else "bytes",
            *(text.percent(floor(row) / row[side], 0) for side in ("ensync_ms", "torch_ms")),
        ]
        for row in below
    ]
    heads = ["network", "batch", "threads", "precision", "times", "floor by", "ours", "PyTorch's"]
    return [*wrapped(said), "", *narrow(Table("below", "", heads, cells, left=1)), ""]
