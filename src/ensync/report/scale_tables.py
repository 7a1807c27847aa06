"""A prediction as tables and sentences, the same on the console and on the page."""

from __future__ import annotations

from collections.abc import Sequence

from ensync.core.scaling.steps import LONGEST
from ensync.report import text
from ensync.report.scale_results import CheckRow, ScaleLimit, ScaleResult, ScaleRow

BOUNDS = {  # the largest part of a step
    "shared": "arithmetic",
    "small": "small share",
    "update": "update",
    "waiting": "slowest rank",
    "node": "node memory",
    "latency": "latency",
    "bandwidth": "bandwidth",
}
REASONS = {
    "rows": "since a batch of {batch:,} has no samples for more",
    "small": "since the local batch becomes too small: each of its samples costs more",
    "update": "since each rank updates all parameters",
    "waiting": "since all wait for the slowest",
    "node": "since sums in the memory of a node take longer",
    "latency": "because of the latency of messages",
    "bandwidth": "because of the bandwidth of the link",
}
HEADS = (
    "ranks",
    "nodes",
    "threads",
    "samples each",
    "step, ms",
    "samples/s",
    "efficiency",
    "epoch, s",
    "sent an epoch",
    "most of it",
)
NOTICED = 0.02  # share of interrupted steps that is told
CHECK_HEADS = (
    "run",
    "strategy",
    "ranks",
    "nodes",
    "predicted, ms",
    "measured, ms",
    "error",
    "sent, predicted",
    "counted",
)


def rows_of(result: ScaleResult, label: str) -> list[ScaleRow]:
    """Return the predictions of a strategy."""
    return [row for row in result.rows if row.label == label]


def labels_of(result: ScaleResult) -> list[str]:
    """Return the strategies in their order."""
    return list(dict.fromkeys(row.label for row in result.rows))


def scale_cells(rows: Sequence[ScaleRow]) -> list[list[str]]:
    """Return the cells of one strategy's table, in the order of HEADS."""
    steps = text.column([1e3 * row.step_seconds for row in rows])
    epochs = text.column([row.epoch_seconds for row in rows])
    return [
        [
            *(f"{row.ranks:,}", f"{row.nodes:,}", str(row.threads), f"{row.rows:,}", step),
            *(text.count(row.samples_per_second), text.percent(row.efficiency, 0), epoch),
            *(text.size(row.epoch_bytes), BOUNDS[row.bound]),
        ]
        for row, step, epoch in zip(rows, steps, epochs, strict=True)
    ]


def epoch_table(result: ScaleResult) -> tuple[list[str], list[list[str]]]:
    """Return heads and cells of the seconds of an epoch by ranks and strategy."""
    labels, ranks = labels_of(result), sorted({row.ranks for row in result.rows})
    known = {(row.label, row.ranks): row.epoch_seconds for row in result.rows}
    columns = [text.column([known.get((label, count)) for count in ranks]) for label in labels]
    cells = [[f"{count:,}", *of] for count, *of in zip(ranks, *columns, strict=True)]
    return ["ranks", *labels], cells


def limit_sentence(limit: ScaleLimit, batch: int) -> str:
    """Return in a sentence how far more ranks of a strategy pay."""
    first = f"{limit.label[:1].upper()}{limit.label[1:]} is fastest on "
    first += text.plural(limit.fastest, "rank")
    if limit.reason:
        first += f"; more are slower, {REASONS[limit.reason].format(batch=batch)}"
    elif limit.fastest == limit.most:
        first += ", the most that were asked for"
    if limit.worthwhile < limit.fastest:
        first += (
            f"; beyond {text.plural(limit.worthwhile, 'rank')} each does less than half of what it "
            "does alone"
        )
    return first + "."


def shape_sentence(result: ScaleResult) -> str:
    """Return which ranks x threads are best on the cores, "" where there is nothing to choose."""
    if len(result.shapes) < 2:
        return ""
    best, *others = result.shapes
    shown = ", ".join(
        f"{each.ranks} x {each.threads} take {each.step_seconds / best.step_seconds:.2f} times "
        "as long"
        for each in others
    )
    return (
        f"On {text.plural(best.cores, 'core')} {text.plural(best.ranks, 'rank')} x "
        f"{text.plural(best.threads, 'thread')} are fastest; {shown}."
    )


def link_lines(result: ScaleResult) -> list[str]:
    """Return what was measured of the links, or given."""
    wires, lines = result.calibration.wires, []
    if wires.node is not None:
        byte = wires.node.byte
        speed = f", {text.size(1 / byte)}/s" if byte > 0 else ""
        lines.append(
            f"in a node's memory: {1e6 * wires.node.fixed:.1f} us for a sum{speed} "
            f"({text.plural(wires.node.ranks, 'rank')})"
        )
    for name, network in (("within a node", wires.inside), ("between nodes", wires.between)):
        if network is None:
            continue
        speed = f", {text.size(1 / network.link.byte)}/s" if network.link.byte > 0 else ""
        how = "measured" if network.sums else "given"
        lines.append(f"MPI {name}: {1e6 * network.link.latency:.1f} us a message{speed}, {how}")
    return lines


def scale_lines(result: ScaleResult) -> list[str]:
    """Return the prediction as tables, and what follows from it."""
    labels, sizes = labels_of(result), result.calibration.sizes
    lines = [*link_lines(result), ""]
    for label in labels[:1]:
        lines += [f"{label}, a batch of {sizes.batch:,}"]
        lines += text.table(HEADS, scale_cells(rows_of(result, label)), left=(9,))
    if len(labels) > 1:
        heads, cells = epoch_table(result)
        lines += ["", "seconds of an epoch", *text.table(heads, cells, left=())]
    lines += ["", *verdict(result)]
    return lines


def verdict(result: ScaleResult) -> list[str]:
    """Return what follows from a prediction, in sentences."""
    batch = result.calibration.sizes.batch
    sentences = [limit_sentence(each, batch) for each in result.limits]
    sentences += [shape_sentence(result), *result.unknown, interruption_sentence(result)]
    return [sentence for sentence in sentences if sentence]


def interruption_sentence(result: ScaleResult) -> str:
    """Return which share of the timed steps was interrupted, "" where hardly any was."""
    points = result.calibration.steps
    share = sum(point.interrupted for point in points) / len(points)
    if share < NOTICED:
        return ""
    return (
        f"{text.percent(share, 0)} of the timed steps took more than {LONGEST:g} times as long as "
        "usual, since other programs run here; these are left out."
    )


def check_cells(rows: Sequence[CheckRow]) -> list[list[str]]:
    """Return the cells of the table of errors, in the order of CHECK_HEADS."""
    predicted = text.column([1e3 * row.predicted for row in rows])
    measured = text.column([1e3 * row.measured for row in rows])
    return [
        [
            *(row.run, row.label, str(row.ranks), str(row.nodes), here, there),
            *(f"{100 * row.error:+.1f} %", text.size(row.predicted_bytes)),
            text.size(row.measured_bytes),
        ]
        for row, here, there in zip(rows, predicted, measured, strict=True)
    ]


def check_lines(rows: Sequence[CheckRow]) -> list[str]:
    """Return the table of errors, and the worst in a sentence."""
    worst = max(rows, key=lambda row: abs(row.error))
    return [
        *text.table(CHECK_HEADS, check_cells(rows), left=(0, 1)),
        "",
        f"The prediction is off by {100 * abs(worst.error):.1f} % at most ({worst.run}); error: "
        "predicted less measured, as a share of measured.",
    ]
