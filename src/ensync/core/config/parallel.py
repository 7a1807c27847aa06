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

Obstacle = tuple[str, str, str]  # what was given, why it cannot be had, and what to do


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
    stages: Positive = Field(
        1,
        description="ranks that hold one network together, each some layers one after the other, "
        "with about as much arithmetic as every other rank (a pipeline). A batch goes through "
        "them in parallel.micro_batches. All ranks / stages of them train as if each were one "
        "rank. A run may be resumed with another number; 1: each rank holds whole networks",
    )
    micro_batches: Positive = Field(
        1,
        description="parts of a batch that go through the stages one behind the other, forward "
        "and back in turn (Narayanan et al. 2021, arXiv 2104.04473). Of a step, a stage waits for "
        "the share (stages - 1) / (micro_batches + stages - 1) at least. Gradients are those of "
        "the whole batch; batch normalisation takes each part by itself, as of training.slice",
    )

    @property
    def ranks(self) -> int:
        """Ranks that hold one network together."""
        return self.model * self.stages

    @property
    def setting(self) -> str:
        """The setting that says how many these are."""
        return "parallel.stages" if self.stages > 1 else "parallel.model"

    def at_once(self, batch: int) -> int:
        """Return how many samples of a batch go through the layers of a rank at once."""
        return -(-batch // self.micro_batches) if self.stages > 1 else batch

    def bubble(self, parts: int) -> float:
        """Return the least share of a step for which a stage waits, where a batch has so many
        parts and stages are equally fast (Huang et al. 2019, arXiv 1811.06965).
        """
        return (self.stages - 1) / (parts + self.stages - 1)


def obstacles(job: "Job") -> Iterator[Obstacle]:
    """Yield what cannot be had of a network that several ranks hold."""
    yield from _of_stages(job) if job.parallel.stages > 1 else _of_parts(job)
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


def _of_parts(job: "Job") -> Iterator[Obstacle]:
    """Yield what cannot be had where each layer is split."""
    if job.training.deterministic:
        yield (
            "training.deterministic = true",
            "its sums over channels are added in parts, so that the bits depend on the number of "
            "parts",
            "leave training.deterministic out",
        )
    for each in job.optimizer.of_groups:
        if not OPTIMIZERS[each.name].elementwise:
            yield (
                f"the optimiser '{each.name}'",
                "it needs whole arrays of parameters, of which a rank has a part",
                "choose one that treats each parameter by itself, such as 'momentum' or 'adam'",
            )


def _of_stages(job: "Job") -> Iterator[Obstacle]:
    """Yield what cannot be had of a pipeline."""
    if job.parallel.model > 1:
        yield (
            f"parallel.model = {job.parallel.model}",
            "a rank holds either parts of all layers or all of some layers",
            "set parallel.model = 1",
        )
    if job.training.deterministic:
        yield (
            "training.deterministic = true",
            "gradients are added up over micro-batches, so that the bits depend on their number",
            "leave training.deterministic out",
        )
    if job.optimizer.groups:
        yield (
            "[[optimizer.groups]]",
            "its patterns are for the names of all parameters, of which a stage has some",
            "leave the groups out",
        )


def uneven(job: "Job") -> str:
    """Return why the micro-batches of a job cannot be, in three parts, or "" where they can."""
    batch, parts = job.training.batch, job.parallel.micro_batches
    if job.parallel.stages == 1 or batch == "full" or batch % parts == 0:
        return ""
    fewer = max(n for n in range(1, min(parts, batch) + 1) if batch % n == 0)
    return (
        f"parallel.micro_batches = {parts} with training.batch = {batch}"
        "|a number that divides the batch, whose parts are equal"
        f"|set parallel.micro_batches = {fewer}, or change the batch"
    )
