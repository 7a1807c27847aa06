"""The losses, each described once. They are computed in nn.network."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LossSpec:
    """A loss, and what settings, help and refusals know of it.

    settings: those of [training] that it has. of_logits: whether it takes the softmax of the
    outputs itself; else it compares them with targets.
    """

    help: str
    settings: tuple[str, ...] = ("targets",)
    of_logits: bool = False


LOSSES = {
    "cross_entropy": LossSpec(
        "of the softmax of the outputs", ("label_smoothing",), of_logits=True
    ),
    "mean_squared_error": LossSpec("mean over the outputs"),
    "half_squared_error": LossSpec("half their sum (textbook programs)"),
}
