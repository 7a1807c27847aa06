"""The optimisers, each described once, and the settings of one, with its groups of parameters. The
updates are in nn.optimizers.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from ensync.core.config.layers import Rate, Section
from ensync.core.config.tables import having, only

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


if TYPE_CHECKING:
    OptimizerName = str
else:
    OptimizerName = Literal[tuple(OPTIMIZERS)]
Pattern = Annotated[str, Field(min_length=1)]


class Group(Section):
    """Parameters with settings of their own; what a group leaves out is as in [optimizer]."""

    parameters: Pattern | Annotated[list[Pattern], Field(min_length=1)] = Field(
        description="names, such as '3.weights': the number of a layer, counted as by `ensync "
        "describe`, and its array; * stands for any text, and a list is for several patterns. "
        "Each must match, and a parameter may be in one group only"
    )
    name: OptimizerName | None = Field(
        None, description="another optimiser, with all its other settings from [optimizer]"
    )
    learning_rate: Annotated[float, Field(gt=0)] | None = Field(
        None, description="before the schedule's factor"
    )
    factor: Annotated[float, Field(gt=0)] | None = Field(
        None, description="on optimizer.learning_rate, in place of a rate of its own"
    )
    momentum: Rate | None = Field(None, description="as optimizer.momentum")
    weight_decay: Annotated[float, Field(ge=0)] | None = Field(
        None, description="as optimizer.weight_decay"
    )
    epochs: Annotated[float, Field(ge=0)] | None = Field(
        None,
        description="the group is trained for so many epochs, also parts of one, and then left as "
        "it is; 0: from the start (frozen). Moving statistics of batch normalisation are no "
        "parameters, and follow the images all the same",
    )
    anneal: bool = Field(
        False, description="the whole schedule runs within the epochs of the group"
    )

    @property
    def patterns(self) -> list[str]:
        """The patterns of `parameters`."""
        return [self.parameters] if isinstance(self.parameters, str) else self.parameters


class Optimizer(Section):
    """How a gradient becomes a step."""

    name: OptimizerName = Field(
        "adam",
        description="; ".join(f"{name}: {spec.help}" for name, spec in OPTIMIZERS.items()),
    )
    preset: Literal["pytorch", "keras"] = Field(
        "pytorch",
        description=f"{only(OPTIMIZERS, 'preset')}: keras adds epsilon before the second moment's "
        "correction of its start, and its default is 1e-7",
    )
    learning_rate: Annotated[float, Field(gt=0)] = Field(
        1e-3, description="before the schedule's factor"
    )
    momentum: Rate = Field(
        0.9, description=f"{only(OPTIMIZERS, 'momentum')}: share of the velocity kept"
    )
    beta1: Rate = Field(0.9, description=f"{only(OPTIMIZERS, 'beta1')}: decay of the first moment")
    beta2: Rate = Field(
        0.999, description=f"{only(OPTIMIZERS, 'beta2')}: decay of the second moment"
    )
    alpha: Rate = Field(
        0.99, description=f"{only(OPTIMIZERS, 'alpha')}: decay of the mean of squares"
    )
    epsilon: Annotated[float, Field(gt=0)] | None = Field(None, description=epsilon_help())
    trust_coefficient: Annotated[float, Field(gt=0)] = Field(
        1e-3,
        description=f"{only(OPTIMIZERS, 'trust_coefficient')}: step of a layer relative to "
        "the norm of its weights, at a learning rate of 1",
    )
    newton_schulz: Annotated[int, Field(ge=1, le=100)] = Field(
        5,
        description=f"{only(OPTIMIZERS, 'newton_schulz')}: steps of Newton and Schulz's iteration",
    )
    rescale: bool = Field(
        False,
        description=f"{only(OPTIMIZERS, 'rescale')}: before each step every matrix gets the norm "
        "of an orthogonal one, the root of its outputs",
    )
    weight_decay: Annotated[float, Field(ge=0)] = Field(0.0, description=decay_help())
    decoupled: bool = Field(
        False,
        description=f"{only(OPTIMIZERS, 'decoupled')}: weights shrink by weight_decay times the "
        "learning rate before each step, beside the momentum",
    )
    clip_norm: Annotated[float, Field(ge=0)] = Field(
        0.0, description="longest gradient; a longer one keeps its direction; 0: any"
    )
    groups: list[Group] = Field(
        [], description="[[optimizer.groups]]: parameters with settings of their own"
    )

    @property
    def of_groups(self) -> list["Optimizer"]:
        """The settings of the parameters in no group, then of each group."""
        return [self, *map(self.of_group, self.groups)]

    def of_group(self, group: Group) -> "Optimizer":
        """Return the settings of a group."""
        own = ("name", "learning_rate", "momentum", "weight_decay")
        given = {key: value for key in own if (value := getattr(group, key)) is not None}
        if group.factor is not None:
            given["learning_rate"] = self.learning_rate * group.factor
        return self.model_copy(update=given | {"groups": []})

    @model_validator(mode="after")
    def _groups_differ(self) -> "Optimizer":
        """Refuse settings of a group without effect, or against each other."""
        for number, group in enumerate(self.groups, 1):
            if refusal := _refused(group, self.of_group(group)):
                raise ValueError(f"optimizer.groups {number} {refusal}")
        return self


def _refused(group: Group, settings: Optimizer) -> str:
    """Return what is wrong with a group, in three parts divided by "|", or ""."""
    having_momentum = having(OPTIMIZERS, "momentum")
    own = (value for key, value in group if key != "parameters")
    if all(value is None or value is False for value in own):
        return "has no settings of its own|at least one beside parameters|give one, or remove it"
    if group.learning_rate is not None and group.factor is not None:
        return "has a learning_rate and a factor|one of the two|remove the other"
    if group.momentum is not None and settings.name not in having_momentum:
        return (
            f"has momentum = {group.momentum} with the optimiser '{settings.name}'|one that has "
            f"it: {', '.join(having_momentum)}|remove it, or give the group such a name"
        )
    if group.anneal and not group.epochs:
        return "has anneal without epochs|epochs above 0|give them, or remove anneal"
    return ""
