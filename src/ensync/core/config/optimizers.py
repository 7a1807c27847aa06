"""The optimisers, each described once. The updates are in nn.optimizers."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OptimizerSpec:
    """An optimiser, and all that settings, help, refusals and checkpoints know of it.

    settings: those of [optimizer] that it has beside learning_rate, weight_decay and clip_norm.
    slots: its state, as names of vectors like the parameters. elementwise: whether a parameter is
    updated by its own gradient alone; else it needs all gradients, and the layout of the
    parameters.
    """

    help: str
    settings: tuple[str, ...] = ()
    slots: tuple[str, ...] = ()
    elementwise: bool = True


_ADAM = ("preset", "beta1", "beta2", "epsilon")

OPTIMIZERS = {
    "sgd": OptimizerSpec("PyTorch's SGD"),
    "momentum": OptimizerSpec("SGD with momentum", ("momentum",), ("velocity",)),
    "nesterov": OptimizerSpec("SGD with Nesterov's momentum", ("momentum",), ("velocity",)),
    "adam": OptimizerSpec("Kingma and Ba 2015", _ADAM, ("first", "second")),
    "adamw": OptimizerSpec(
        "Adam with decoupled weight decay (Loshchilov and Hutter 2019)",
        _ADAM,
        ("first", "second"),
    ),
    "lars": OptimizerSpec(
        "momentum with a learning rate for each layer (You, Gitman and Ginsburg 2017), for large "
        "batches; biases and other parameters of one dimension keep the common rate",
        ("momentum", "trust_coefficient", "epsilon"),
        ("velocity",),
        elementwise=False,
    ),
}
