"""How one network is spread over ranks, as a section of a job file. The layers that do it are in
nn.split.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ensync.core.config.layers import Positive, Section
from ensync.core.config.optimizers import OPTIMIZERS

if TYPE_CHECKING:
    from ensync.core.config.schema import Job


class Parallel(Section):
    """How one network is spread over ranks (model parallelism)."""

    model: Positive = Field(
        1,
        description="ranks that hold one network together, each so many of the filters of every "
        "convolution and of the units of every dense layer. They see the same images, and pass "
        "on what a layer reads of the others; grouped convolutions read their own part (the two "
        "towers of Krizhevsky et al. 2012). All ranks / model of them train as if each were one "
        "rank. A run may be resumed with another number; 1: each rank holds whole networks",
    )
    convolutions: Literal["model", "data"] = Field(
        "model",
        description="model: their filters are split, too; data: each of these ranks has all layers "
        "before the first flatten or dense layer, for its part of the images, and only the dense "
        "layers are split (Krizhevsky 2014, arXiv 1404.5997)",
    )


def obstacles(job: "Job") -> Iterator[tuple[str, str, str]]:
    """Yield what cannot be had of a network that several ranks hold: what was given, why it
    cannot, and what to do.
    """
    if job.training.deterministic:
        yield (
            "training.deterministic = true",
            "its sums over channels are added in parts, so that the bits depend on the number of "
            "parts",
            "leave training.deterministic out",
        )
    if job.communication != type(job.communication)():
        yield (
            "settings of [communication]",
            "ranks with parts of one network exchange values in every step, in all digits",
            "leave [communication] out",
        )
    if job.optimizer.clip_norm:
        yield (
            f"optimizer.clip_norm = {job.optimizer.clip_norm}",
            "the norm is that of all parts",
            "set optimizer.clip_norm = 0",
        )
    for each in job.optimizer.of_groups:
        if not OPTIMIZERS[each.name].elementwise:
            yield (
                f"the optimiser '{each.name}'",
                "it needs whole arrays of parameters, of which a rank has a part",
                "choose one that treats each parameter by itself, such as 'momentum' or 'adam'",
            )
    if job.network.has("exits"):
        yield (
            "a layer of kind 'exit'",
            "its head has whole values, and a loss of its own",
            "leave the exits out",
        )
    if job.network.weights:
        yield (
            f"network.weights = {job.network.weights!r}",
            "its arrays are whole",
            "leave network.weights out",
        )
