"""What a calibration leads to: rows, limits, and what is not known, as scale.json has it."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict

from ensync.core.config.communication import ALL, Communication
from ensync.core.scaling.advice import limit_of
from ensync.core.scaling.noise import NoiseScale
from ensync.core.scaling.prediction import Calibration, Contestant, Model, Prediction
from ensync.report.scale_results import (
    ScaleLimit,
    ScaleNoise,
    ScaleRow,
    ScaleShape,
    StepParts,
)
from ensync.report.text import plural

EVERY = (4, 16, 64, 256)  # steps between meetings of local SGD
USUAL = 16  # of these, where the job has none of its own


def contestants(given: Communication) -> list[Contestant]:
    """Return what is predicted of a job with such a section [communication]."""
    steps = given.every if isinstance(given.every, int) else 1
    found = [
        Contestant("synchronous"),
        *(Contestant("local SGD", each) for each in sorted({*EVERY, steps} - {1})),
    ]
    if given.partners != ALL:
        found.append(Contestant("gossip", steps))
    elif given.compresses:
        for each in sorted({1, steps}):
            name = "local SGD" if each > 1 else "synchronous"
            found.append(Contestant(name, each, given.compression))
    return [*found, Contestant("apart")]


def row_of(found: Prediction) -> ScaleRow:
    """Return a prediction as scale.json has it."""
    every = found.contestant.every
    return ScaleRow(
        strategy=found.contestant.strategy,
        label=found.contestant.label,
        every=None if math.isinf(every) else every,
        ranks=found.ranks,
        nodes=found.nodes,
        threads=found.threads,
        rows=found.rows,
        step_seconds=found.step,
        samples_per_second=found.samples,
        efficiency=found.efficiency,
        epoch_seconds=found.epoch,
        epoch_bytes=found.bytes,
        bound=found.parts.largest,
        parts=StepParts(**asdict(found.parts)),
    )


def limits(predictions: Sequence[Prediction], every: int | str) -> list[ScaleLimit]:
    """Return how far more ranks pay, together and with meetings; every: the job's own
    communication.every.
    """
    steps = every if isinstance(every, int) and every > 1 else USUAL
    found = []
    for each in (Contestant("synchronous"), Contestant("local SGD", steps)):
        mine = sorted(
            (one for one in predictions if one.contestant == each), key=lambda one: one.ranks
        )
        if len(mine) > 1:
            limit = limit_of(mine)
            found.append(ScaleLimit(label=each.label, most=mine[-1].ranks, **vars(limit)))
    return found


def shapes(model: Model, cores: int) -> list[ScaleShape]:
    """Return synchronous training on so many cores, in the shapes that can be predicted, the
    fastest first.
    """
    return [
        ScaleShape(
            cores=cores,
            ranks=each.ranks,
            threads=each.threads,
            step_seconds=each.step,
            epoch_seconds=each.epoch,
        )
        for each in model.shapes(cores)
    ]


def simplified(given: Communication, calibration: Calibration) -> list[str]:
    """Return which settings of a job's section [communication] a prediction leaves out."""
    sizes = calibration.sizes
    buckets = sizes.itemsize * sizes.parameters > 2e6 * given.bucket_megabytes
    not_measured = calibration.wires.between is not None and calibration.overlap is None
    left_out = {
        "communication.growth (meetings become rarer)": given.growth > 0,
        "communication.start (gradients are summed first)": bool(given.start),
        "communication.start_accuracy (as before it)": given.start_accuracy > 0,
        "communication.shares = 'speed' (parts are taken for equal)": given.by_speed,
        "communication.overlap (of sums and the backward pass, which ranks on nodes of their own "
        "would measure)": bool(given.overlap) and buckets and not_measured,
        "communication.compression_start (all sums are compressed)": given.whole_before > 0,
    }
    names = [name for name, is_so in left_out.items() if is_so]
    return [f"Not in the prediction: {', '.join(names)}."] if names else []


def unknown(calibration: Calibration, ranks: Iterable[int]) -> list[str]:
    """Return what was not measured and not given, where that is needed for so many ranks."""
    wires, most, sentences = calibration.wires, max(ranks), []
    here = calibration.ranks_on_node
    if most > here and wires.between is None:
        sentences.append(
            f"More than {plural(here, 'rank')} that train together are not predicted, since no "
            "link between nodes was measured: start it on two nodes, or give --latency and "
            "--bandwidth."
        )
    if here > 1 and wires.node is None:
        sentences.append(
            "Sums of ranks that share a node were not measured: start it on as many ranks of a "
            "node as you want to know of."
        )
    return sentences


def default_ranks(calibration_ranks: int, is_linked: bool) -> tuple[int, ...]:
    """Return the ranks that are predicted where none are asked for: powers of two up to 1,024, or
    those at hand where no link between nodes is known.
    """
    most = 1024 if is_linked else calibration_ranks
    powers = {1 << place for place in range(11) if 1 << place <= most}
    return tuple(sorted(powers | {calibration_ranks}))


def noise_of(found: NoiseScale | None) -> ScaleNoise | None:
    """Return a noise scale as scale.json has it."""
    if found is None:
        return None
    known = found.is_known
    return ScaleNoise(
        scale=found.scale if known else None,
        low=found.low,
        high=found.high if known else None,
        steps=found.steps,
        parts=found.parts,
        rows=found.rows,
    )
