"""The optimisers, each described once. The updates are in nn.optimizers."""

from dataclasses import dataclass

KERAS_EPSILON = 1e-7  # of Adam
TAKEN_OFF = "taken off the weights"  # in proportion to the learning rate


@dataclass(frozen=True, slots=True)
class OptimizerSpec:
    """An optimiser, and all that settings, help, refusals and checkpoints know of it.

    settings: those of [optimizer] that it has beside learning_rate, weight_decay and clip_norm.
    slots: its state, as names of vectors like the parameters. elementwise: whether a parameter is
    updated by its own gradient alone; else it needs all gradients, and the layout of the
    parameters. epsilon: where a job gives none, of an optimiser that has it; epsilon_of: what it
    is added to. decay: what is done with weight_decay times the weights.
    """

    help: str
    settings: tuple[str, ...] = ()
    slots: tuple[str, ...] = ()
    elementwise: bool = True
    epsilon: float = 0.0
    epsilon_of: str = ""
    decay: str = "added to the gradient"


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
        decay=TAKEN_OFF,
    ),
    "rmsprop": OptimizerSpec(
        "PyTorch's RMSprop, without momentum",
        ("alpha", "epsilon"),
        ("square",),
        epsilon=1e-8,
        epsilon_of=_ROOT,
    ),
    "adagrad": OptimizerSpec(
        "Duchi, Hazan and Singer 2011",
        ("epsilon",),
        ("square",),
        epsilon=1e-10,
        epsilon_of="the root of the sum of squares",
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
    "lamb": OptimizerSpec(
        "Adam with a learning rate for each layer (You et al. 2020), for large batches; parameters "
        "of one dimension as in lars",
        ("beta1", "beta2", "epsilon"),
        ("first", "second"),
        elementwise=False,
        epsilon=1e-6,
        epsilon_of=_ROOT,
        decay="added to the step",
    ),
    "muon": OptimizerSpec(
        "Nesterov's momentum, of which every matrix of weights or filters is brought near an "
        "orthogonal one (Jordan 2024); parameters of one dimension as in nesterov",
        ("momentum", "newton_schulz", "rescale"),
        ("velocity",),
        elementwise=False,
        decay=TAKEN_OFF,
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
    alike: dict[str, list[str]] = {}
    for name, spec in OPTIMIZERS.items():
        alike.setdefault(spec.decay, []).append(name)
    usual, *others = [f"{what} ({', '.join(names)})" for what, names in alike.items()]
    return f"times the weights, {usual}; {'; '.join(others)}"
