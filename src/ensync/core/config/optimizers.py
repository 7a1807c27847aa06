"""The optimisers, each described once. The updates are in nn.optimizers."""

from dataclasses import dataclass

KERAS_EPSILON = 1e-7  # of Adam


@dataclass(frozen=True, slots=True)
class OptimizerSpec:
    """An optimiser, and all that settings, help, refusals and checkpoints know of it.

    settings: those of [optimizer] that it has beside learning_rate, weight_decay and clip_norm.
    slots: its state, as names of vectors like the parameters. elementwise: whether a parameter is
    updated by its own gradient alone; else it needs all gradients, and the layout of the
    parameters. epsilon: where a job gives none, of an optimiser that has it; epsilon_of: what it
    is added to. decoupled: whether weight decay is always taken off the weights.
    """

    help: str
    settings: tuple[str, ...] = ()
    slots: tuple[str, ...] = ()
    elementwise: bool = True
    epsilon: float = 0.0
    epsilon_of: str = ""
    decoupled: bool = False


_ADAM = ("preset", "beta1", "beta2", "epsilon")
_MOMENTUM = ("momentum", "decoupled")
_ROOT = "the root of the second moment"

OPTIMIZERS = {
    "sgd": OptimizerSpec("PyTorch's SGD", ("decoupled",)),
    "momentum": OptimizerSpec("SGD with momentum", _MOMENTUM, ("velocity",)),
    "nesterov": OptimizerSpec("SGD with Nesterov's momentum", _MOMENTUM, ("velocity",)),
    "adam": OptimizerSpec(
        "Kingma and Ba 2015", _ADAM, ("first", "second"), epsilon=1e-8, epsilon_of=_ROOT
    ),
    "adamw": OptimizerSpec(
        "Adam with decoupled weight decay (Loshchilov and Hutter 2019)",
        _ADAM,
        ("first", "second"),
        epsilon=1e-8,
        epsilon_of=_ROOT,
        decoupled=True,
    ),
    "lars": OptimizerSpec(
        "momentum with a learning rate for each layer (You, Gitman and Ginsburg 2017), for large "
        "batches; biases and other parameters of one dimension keep the common rate",
        ("momentum", "trust_coefficient", "epsilon"),
        ("velocity",),
        elementwise=False,
        epsilon=1e-8,
        epsilon_of="the norm of the gradient",
    ),
}


def epsilon_help() -> str:
    """Return the help of optimizer.epsilon: what it is added to, and each optimiser's own."""
    alike: dict[tuple[str, float], list[str]] = {}
    for name, spec in OPTIMIZERS.items():
        if "epsilon" in spec.settings:
            alike.setdefault((spec.epsilon_of, spec.epsilon), []).append(name)
    parts = (
        f"{', '.join(names)}: added to {what}, {value:g}" for (what, value), names in alike.items()
    )
    return "; ".join(parts) + f"; preset = 'keras': {KERAS_EPSILON:g}"


def decay_help() -> str:
    """Return the help of optimizer.weight_decay."""
    names = ", ".join(name for name, spec in OPTIMIZERS.items() if spec.decoupled)
    return f"times a weight, added to its gradient ({names}, and decoupled: taken off the weights)"
