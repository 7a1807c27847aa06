"""A prediction as tables and sentences, the same on the console and on the page."""

from __future__ import annotations

from collections.abc import Sequence

from ensync.core.scaling.noise import soonest
from ensync.core.scaling.steps import LONGEST
from ensync.report import text
from ensync.report.scale_results import (
    CheckRow,
    ScaleLimit,
    ScaleNoise,
    ScaleResult,
    ScaleRow,
)

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
TOGETHER_HEADS = ("ranks", "batch", "samples each", "step, ms", "time", "samples", "efficiency")
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


def data_of(result: ScaleResult) -> str:
    """Return "fashion-mnist with mlp"."""
    data, network = result.dataset, result.job.get("network", {}).get("name")
    return " with ".join(str(each) for each in (data.name or data.path, network) if each)


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


def together_cells(result: ScaleResult) -> list[list[str]]:
    """Return the cells of the table of ranks that train one network, in the order of
    TOGETHER_HEADS.
    """
    rows = result.together
    steps = text.column([1e3 * row.step for row in rows])
    return [
        [
            *(f"{row.ranks:,}", f"{row.batch:,}", f"{row.rows:,}", step, f"{row.time:.3f}"),
            *(text.times(row.samples), text.percent(row.efficiency, 0)),
        ]
        for row, step in zip(rows, steps, strict=True)
    ]


def noise_words(noise: ScaleNoise) -> str:
    """Return the noise scale in a sentence."""
    where = f"in {text.plural(noise.steps, 'step')} at the start of a training"
    if noise.scale is None or noise.high is None:
        return (
            f"The gradient noise scale is not known yet: {where} the gradient could not be told "
            "from noise; give more --noise-steps."
        )
    return (
        f"The gradient noise scale is {text.count(round(noise.scale))} samples (95 % interval "
        f"{text.count(round(noise.low))} to {text.count(round(noise.high))}) {where}; it grows as "
        "the loss falls, so that later larger batches pay."
    )


def together_sentences(result: ScaleResult) -> list[str]:
    """Return how many ranks should train one network together, and what of the rest."""
    if result.noise is None:
        return []
    sentences = [noise_words(result.noise)]
    if result.together:
        best, most = soonest(result.together), max(row.ranks for row in result.together)
        members = most // best.ranks
        rest = (
            f"; of {most:,} ranks make {members:,} members with {text.plural(best.ranks, 'rank')} "
            "each"
            if members > 1
            else ""
        )
        sentences.append(
            f"The same loss comes soonest with {text.plural(best.ranks, 'rank')} together and a "
            f"batch of {best.batch:,}, in {text.number(best.time, 3)} of the time of one rank with "
            f"the job's batch, where the learning rate suits the batch{rest}."
        )
    return sentences


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
    if result.together:
        lines += ["", "to the same loss, with the best batch for so many ranks that train together"]
        lines += text.table(TOGETHER_HEADS, together_cells(result), left=())
    lines += ["", *verdict(result)]
    return lines


def verdict(result: ScaleResult) -> list[str]:
    """Return what follows from a prediction, in sentences."""
    batch = result.calibration.sizes.batch
    sentences = [limit_sentence(each, batch) for each in result.limits]
    sentences += [shape_sentence(result), *together_sentences(result)]
    sentences += [*result.unknown, interruption_sentence(result)]
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
    more = any((row.measured_bytes or 0) > 1.02 * row.predicted_bytes for row in rows)
    return [
        *text.table(CHECK_HEADS, check_cells(rows), left=(0, 1)),
        "",
        f"The prediction is off by {100 * abs(worst.error):.1f} % at most ({worst.run}); error: "
        "predicted less measured, as a share of measured.",
        *["Counted are checkpoints, too, for which replicas sum their optimisers' states."] * more,
    ]
