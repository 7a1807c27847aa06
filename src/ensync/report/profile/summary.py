"""The table of where the time of a step goes."""

from collections.abc import Mapping, Sequence

import numpy as np

from ensync.core.timeline import Kind
from ensync.report import text
from ensync.report.profile.phases import PHASES, WAIT, Step
from ensync.report.results import LayerTime, PhaseTime, StepProfile

HEADS = ("", "ms a step", "share", "least", "most")
SLOWEST = 3  # layers that the table names


def summary(
    steps: Sequence[Step], seen: int, left_out: int, clock_error: float, layers: Sequence[str]
) -> StepProfile | None:
    """Return the means over the recorded steps of all ranks; None where there are none.

    seen: the most steps that a rank did; layers: their names.
    """
    if not steps:
        return None
    of_ranks = {
        rank: _means([step for step in steps if step.rank == rank])
        for rank in sorted({step.rank for step in steps})
    }
    phases = [
        _phase(name, {rank: each[name] for rank, each in of_ranks.items()}) for name in PHASES
    ]
    return StepProfile(
        ranks=len(of_ranks),
        steps=seen,
        recorded=max(sum(step.count for step in steps if step.rank == rank) for rank in of_ranks),
        left_out=left_out,
        first=min(step.first for step in steps) + 1,
        last=max(step.first + step.count for step in steps),
        seconds=sum(phase.seconds for phase in phases),
        clock_error=clock_error,
        phases=phases,
        layers=_layers(steps, layers),
    )


def _means(steps: Sequence[Step]) -> dict[str, float]:
    """Return the mean seconds by phase, of one step."""
    count, found = sum(step.count for step in steps), [step.phases() for step in steps]
    return {name: sum(each[name] for each in found) / count for name in PHASES}


def _phase(name: str, of_ranks: Mapping[int, float]) -> PhaseTime:
    least, most = min(of_ranks, key=of_ranks.__getitem__), max(of_ranks, key=of_ranks.__getitem__)
    return PhaseTime(
        name=name,
        seconds=float(np.mean(list(of_ranks.values()))),
        least=of_ranks[least],
        least_rank=least,
        most=of_ranks[most],
        most_rank=most,
    )


def _layers(steps: Sequence[Step], names: Sequence[str]) -> list[LayerTime]:
    """Return the mean seconds of each layer over all steps of all ranks that have it; none where
    steps are not recorded by layers.
    """
    seconds, counts = np.zeros((2, len(names))), np.zeros(len(names))
    for step in steps:
        own_layers = list(step.layers())
        for layer, kind, own in own_layers:
            seconds[int(kind == Kind.BACKWARD), layer] += own
        counts[list({layer for layer, _, _ in own_layers})] += step.count
    if not seconds.any():
        return []
    seconds /= np.maximum(counts, 1)
    return [
        LayerTime(name=name, forward=float(there), backward=float(back))
        for name, there, back in zip(names, *seconds, strict=True)
    ]


def waits_of_stages(steps: Sequence[Step], stages: int) -> list[float]:
    """Return the share of its steps for which each stage waits for others, the replicas of a
    network, whose ranks are neighbours, taken together.
    """
    found = []
    for stage in range(stages):
        own = [step for step in steps if step.rank % stages == stage]
        waited = sum(step.phases()[WAIT] for step in own)
        found.append(waited / max(sum(step.seconds for step in own), 1e-9))
    return found


def profile_lines(profile: StepProfile) -> list[str]:
    """Return the table as lines of plain text, and what a reader must know of it."""
    return [
        f"Where the time of a step goes: {basis(profile)}",
        "",
        *text.table(list(HEADS), profile_cells(profile)),
        *(f"  {line}" for line in remarks(profile)),
    ]


def basis(profile: StepProfile) -> str:
    """Return on which steps the figures rest."""
    ranks = f" on each of {profile.ranks} ranks" if profile.ranks > 1 else ""
    return (
        f"the mean of {profile.recorded:,} of {text.plural(profile.steps, 'step')}{ranks}, from "
        f"step {profile.first:,} to {profile.last:,}"
    )


def profile_cells(profile: StepProfile) -> list[list[str]]:
    """Return the rows of the table, the whole last; least and most name the rank where there are
    several.
    """
    several = profile.ranks > 1
    rows = []
    for phase in profile.phases:
        least, most = (
            f"{_ms(value)} (rank {rank})" if several else text.DASH
            for value, rank in ((phase.least, phase.least_rank), (phase.most, phase.most_rank))
        )
        share = text.percent(phase.seconds / profile.seconds if profile.seconds else None, 1)
        rows.append([phase.name, _ms(phase.seconds), share, least, most])
    return [*rows, ["a step", _ms(profile.seconds), text.percent(1.0, 1), text.DASH, text.DASH]]


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.3f}"


def remarks(profile: StepProfile) -> list[str]:
    """Return what a reader must know of the figures: slowest layers, errors, what is left out."""
    slow = sorted(profile.layers, key=lambda each: each.forward + each.backward, reverse=True)
    named = [f"{each.name} {_ms(each.forward + each.backward)} ms" for each in slow[:SLOWEST]]
    said = [f"slowest layers, both ways: {'; '.join(named)}"] * bool(named)
    if not named:
        said.append("layers: not apart, since one kernel does a whole step of one sample")
    if pipeline := profile.pipeline:
        waits = ", ".join(text.percent(wait, 1) for wait in pipeline.waits)
        said.append(
            f"stages 0 to {len(pipeline.waits) - 1} wait for {waits} of a step; equally fast ones "
            f"with {text.plural(pipeline.micro_batches, 'micro-batch', 'micro-batches')} a batch "
            f"for {text.percent(pipeline.bubble, 1)}"
        )
    said.append("validation, checkpoints and waits between epochs are no steps, and not in it")
    if profile.clock_error:
        said.append(
            f"clocks of the nodes agree to {1e3 * profile.clock_error:.3f} ms, as do the waits"
        )
    if profile.left_out:
        said.append(f"{text.plural(profile.left_out, 'record')} of steps were not whole: left out")
    return said
