"""What a run says of itself before it starts: versions, places, data, network, and what would be
better.
"""

import math
import os

import numpy as np

from ensync.core.config.communication import ALL, Communication
from ensync.kernels.simd.bf16_gain import bf16_gain
from ensync.mpi.world import mpi_description
from ensync.nn.layers.base import walk
from ensync.nn.layers.normalization import BatchNormalization
from ensync.nn.network import Network
from ensync.nn.split.stages import StageParts
from ensync.report import tables
from ensync.report.console import Console
from ensync.report.text import percent, plural
from ensync.runs.launch import Prepared, versions
from ensync.runs.members import micro_batches_of
from ensync.runs.session import Session
from ensync.strategies.compression import described
from ensync.strategies.gossip import is_butterfly
from ensync.strategies.strategy import Strategy
from ensync.training.runners import OneSampleRunner
from ensync.training.trainer import Trainer

LOOKED_AT = 64  # members whose rows are looked at for a warning
SHOWN = 32  # ranks whose processes are listed
WORTH = 1.2  # speed of bf16 over float32, below which its lesser accuracy is for nothing


def show_place(console: Console, place: Prepared) -> None:
    """Say where the run runs and on which data."""
    loaders, where = place.loaders, place.topology
    console.lines(
        tables.pairs(
            {
                "versions": ", ".join(f"{name} {version}" for name, version in versions().items()),
                "MPI": mpi_description(),
                "running on": tables.places(where.size, place.threads, where.node_names),
                "processes": _processes(place.processes),
                "dataset": f"{loaders.dataset.path}: {len(loaders.train):,} train, "
                f"{len(loaders.validation):,} validation, {len(loaders.test):,} test, "
                + " x ".join(map(str, loaders.dataset.shape))
                + (f", streamed, {loaders.checks}" if loaders.streamed else ""),
                "kernels": f"compiled or loaded in {place.compile_seconds:.1f} s",
            }
        )
    )


def show_run(console: Console, place: Prepared, session: Session) -> None:
    """Say what is trained by whom on which rows, and what would be better."""
    job, trainer = session.job, next(iter(session.trainers.values()))
    console.lines(
        [
            *tables.pairs(
                {
                    "network": _network(job.network.name, trainer.network),
                    **_stages(trainer),
                    "shards": _shards(place, session),
                    "strategy": f"{job.training.strategy}, batch {trainer.batch:,}, "
                    f"{_length(trainer)}, {job.optimizer.name} "
                    f"{job.optimizer.learning_rate:g}{_meetings(session)}{_compression(session)}",
                }
            ),
            "",
        ]
    )
    _advise(console, place, session)
    _warn_of_classes(console, place, session)


def _meetings(session: Session) -> str:
    """Return when the ranks of a network meet, "" where they are never apart."""
    c = session.job.communication
    if c.is_served:
        return f", gradients of networks up to {plural(c.max_staleness, 'step')} old ({c.server})"
    if not c.is_local or session.comm.size <= session.mesh.members:
        return ""
    first = f" after {plural(c.start, 'common step')}" * (c.start > 0)
    if c.start_accuracy:
        first = f", apart from a training accuracy of {c.start_accuracy:g} on" + (
            f" or after {plural(c.start, 'step')}" * (c.start > 0)
        )
    return f", replicas {_how(c, session.mesh.data.size)}{first}"


def _how(c: Communication, ranks: int) -> str:
    """Return when replicas of so many ranks meet, whom, and what they do."""
    if isinstance(c.every, str):
        return "never meet"
    steps = plural(c.every, "step") if c.every > 1 else "step"
    if c.partners != ALL:
        shape = "butterfly" if is_butterfly(c.partners, ranks) else "ring"
        return f"average every {steps} with one partner of a {shape}"
    grown = f", rarer at learning rates below {c.growth / math.sqrt(c.every):.3g}"
    outer = f", outer rate {c.outer_learning_rate:g} and momentum {c.outer_momentum:g}"
    return f"meet every {steps}{grown * (c.growth > 0)}{outer * c.is_outer}"


def _compression(session: Session) -> str:
    """Return how sums are compressed, "" where every digit is sent."""
    c = session.job.communication
    if not c.compresses:
        return ""
    if session.comm.size <= session.mesh.members:
        return f", no {c.compression} compression: a network has one rank, which sends nothing"
    return f", sums compressed by {described(c)}"


def _length(trainer: Trainer) -> str:
    """Return "20 epochs", or "900 steps (2.5 epochs)" where the job counts them."""
    training, length = trainer.job.training, trainer.plan.length
    if not training.max_steps:
        return plural(training.epochs, "epoch")
    epochs = f"{float(length):.4g} epoch{'s' * (length != 1)}"
    return f"{plural(training.max_steps, 'step')} ({epochs})"


def _warn_of_classes(console: Console, place: Prepared, session: Session) -> None:
    """Say on rank 0 which members of an ensemble never see some of the classes."""
    if session.comm.rank or not (
        found := lacking(session.context.strategy, place.loaders.train.labels, session.mesh.members)
    ):
        return
    listed = ", ".join(
        f"member {member} of {plural(count, 'class', 'classes')}"
        for member, count in list(found.items())[:5]
    )
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    console.warn(
        f"{len(found)} of {session.mesh.members} members have no training image of some classes: "
        f"{listed}{more}; "
        "take fewer members, or ensemble.data = 'full'"
    )


def lacking(strategy: Strategy, labels: np.ndarray, members: int) -> dict[int, int]:
    """Return {member: number of classes of which it has no training row}, where the data is meant
    to be spread evenly.

    Of many members only the first LOOKED_AT are looked at.
    """
    if members < 2 or strategy.ensemble.data not in ("shards", "bootstrap"):
        return {}
    there, rows_of = np.bincount(labels) > 0, strategy.rows
    found = {
        m: int(there.sum() - (np.bincount(labels[rows_of(labels, members, m)]) > 0).sum())
        for m in range(min(members, LOOKED_AT))
    }
    return {member: count for member, count in found.items() if count}


def _processes(numbers: list[int]) -> str:
    shown = ", ".join(f"rank {rank}: {number}" for rank, number in enumerate(numbers[:SHOWN]))
    return shown + (f", and {len(numbers) - SHOWN} more" if len(numbers) > SHOWN else "")


def _network(name: str, network: Network) -> str:
    layers = [x for x in network.layers if x.parameters]
    shapes = network.parts.shapes if network.parts else network.shapes
    widths = [
        network.shape,
        *(s for x, s in zip(network.layers, shapes, strict=True) if x.parameters),
    ]
    chain = (
        "-".join(str(int(np.prod(s))) for s in widths)
        if all(len(s) == 1 for s in widths[1:])
        else " x ".join(map(str, network.shape))
    )
    counted = f"{len(network.parameters):,} parameters"
    if isinstance(network.parts, StageParts):
        all_of = network.parts.parameters.size
        return f"{name}: {all_of:,} parameters on {network.parts.ranks} ranks, in stages"
    if network.parts:
        counted = (
            f"{network.parts.parameters.size:,} parameters, of which each of "
            f"{network.parts.ranks} ranks holds {len(network.parameters):,}"
        )
    return f"{name} {chain}: {plural(len(layers), 'layer')} with parameters, {counted}"


def _stages(trainer: Trainer) -> dict[str, str]:
    """Return a line for each stage of a network, and one for how a batch goes through them."""
    parts, parallel = trainer.network.parts, trainer.job.parallel
    if not isinstance(parts, StageParts):
        return {}
    count = micro_batches_of(trainer)
    return {
        **{f"stage {number}": str(stage) for number, stage in enumerate(parts.stages)},
        "pipeline": f"{plural(count, 'micro-batch', 'micro-batches')} a batch, so that a stage "
        f"waits for {percent(parallel.bubble(count), 1)} of a step at least (the bubble)",
    }


def _shards(place: Prepared, session: Session) -> str:
    job, trainer = session.job, next(iter(session.trainers.values()))
    if session.mesh.members > 1:
        return (
            f"{len(trainer.rows):,} of {len(place.loaders.train):,} training rows for each of "
            f"{session.mesh.members} members ({job.ensemble.data})"
        )
    size, parts = (
        session.mesh.data.size,
        f"{job.training.virtual_shards} virtual shards, dealt out to "
        if job.training.deterministic
        else "",
    )
    return (
        f"each batch of {trainer.batch:,} cut {'into' if parts else 'among'} {parts}{size} "
        f"{'rank' if job.parallel.ranks == 1 else 'replica'}{'s' * (size > 1)}"
        + ", by their speeds once these are known"
        * bool(trainer.shares)
    )


def _advise(console: Console, place: Prepared, session: Session) -> None:
    job, where, trainer = session.job, place.topology, next(iter(session.trainers.values()))
    cores, size = os.cpu_count() or 1, session.mesh.data.size
    if where.ranks_on_node * place.threads > cores:
        fewer = max(1, cores // where.ranks_on_node)
        console.warn(
            f"{where.ranks_on_node} ranks x {plural(place.threads, 'thread')} share "
            f"{plural(cores, 'core')} of this node; start fewer ranks"
            + (f" or give --set training.threads={fewer}" if fewer < place.threads else "")
        )
    if job.training.batch != "full" and job.training.batch > len(trainer.rows):
        console.advise(
            f"training.batch = {job.training.batch:,} is more than the {len(trainer.rows):,} "
            "training rows, so each step takes all of them"
        )
    if trainer.batch < size:
        console.advise(
            f"a batch of {trainer.batch} leaves {size - trainer.batch} of {size} ranks without a "
            "sample in each step; "
            f"give --set training.batch={size} or more, or train an ensemble"
        )
    if job.training.precision == "bf16" and OneSampleRunner.supports_but_bf16(
        trainer, trainer.batch
    ):
        console.advise(
            "steps of one sample have a kernel of their own, which does not know bf16; "
            "training.precision = 'float32' is many times as fast"
        )
    elif job.training.precision == "bf16" and (gain := bf16_gain()) < WORTH:
        console.advise(
            f"products of bf16 run at {gain:.1f} times the speed of float32's on this CPU; "
            "training.precision = 'float32' is as fast, and more exact"
        )
    if (kept := start_kept(trainer)) > 0.05:
        console.advise(
            f"after the {trainer.starts[-1]:,} steps of this run the moving statistics of batch "
            f"normalisation still keep {kept:.0%} of their start, "
            "so that validation and test fall far behind training, as with Keras and PyTorch; "
            "train for more steps, by more epochs or smaller batches"
        )


def start_kept(trainer: Trainer) -> float:
    """Return the share of their start (means of 0, variances of 1) that the moving statistics of
    batch normalisation keep to the end of the run.
    """
    momenta = [
        layer.momentum
        for layer in walk(trainer.network.layers)
        if isinstance(layer, BatchNormalization)
    ]
    slices = -(-trainer.batch // trainer.job.slice_of(trainer.batch))
    return max(momenta) ** (trainer.starts[-1] * slices) if momenta else 0.0
