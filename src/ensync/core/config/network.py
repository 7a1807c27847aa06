"""The named networks, each described once, and the settings of a network. The layers are built in
nn.models.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from ensync.core.config.layers import (
    EXACT,
    Activation,
    CoarseToFineLayer,
    ExitLayer,
    InitializerName,
    LayerSection,
    LayerSettings,
    ParallelLayer,
    Positive,
    Rate,
    ResidualLayer,
    Section,
)


@dataclass(frozen=True)
class NetworkSpec:
    """A named network, and all that settings, refusals and help know of it.

    The fields from `hidden` to `shortcut` are settings: the value where a job gives none, or None
    where the network does not have the setting. dropout: one rate for all places, or one for each;
    depths: what may be set.
    """

    note: str = ""
    hidden: tuple[int, ...] | None = None
    activation: Activation | None = None
    dropout: float | tuple[float, ...] | None = None
    dropout_after: str = ""
    filters: tuple[int, ...] | None = None
    width: float | None = None
    depth: int | None = None
    depths: str = ""
    shortcut: str | None = None
    output_scale: float = 1.0
    initializer: str = "auto"  # of the source: Keras' or PyTorch's default, or the paper's
    convolutional: bool = False
    batch_normalization: bool = False
    exits: bool = False  # whether images may leave before its end

    @property
    def is_perceptron(self) -> bool:
        """Whether all its layers are dense."""
        return self.hidden is not None and not self.convolutional


def _perceptron(note: str, activation: Activation, *hidden: int) -> NetworkSpec:
    return NetworkSpec(
        note,
        hidden=hidden,
        activation=activation,
        dropout=0.0,
        dropout_after="each hidden layer",
    )


NETWORKS = {
    "mlp": _perceptron("", "relu", 128),
    "oregon-mlp": _perceptron("784-h1-h2-10, tanh", "tanh", 100, 100),
    "roy-mlp": _perceptron("784-h-10, logistic", "logistic", 100),
    "parashar-cnn": NetworkSpec(
        hidden=(2048, 512),
        dropout=(0.25, 0.25, 0.25, 0.5),
        dropout_after="each pooling and the first dense layer",
        initializer="glorot_uniform",
        convolutional=True,
        batch_normalization=True,
    ),
    "minixception": NetworkSpec(
        hidden=(64,),
        initializer="glorot_uniform",
        convolutional=True,
        batch_normalization=True,
    ),
    "minixception-plain": NetworkSpec(
        initializer="pytorch", convolutional=True, batch_normalization=True
    ),
    "alexnet": NetworkSpec(
        hidden=(4096, 4096),
        dropout=0.5,
        dropout_after="each hidden dense layer",
        width=1.0,
        convolutional=True,
    ),
    "lenet": NetworkSpec(
        hidden=(120, 84), activation="tanh", initializer="glorot_uniform", convolutional=True
    ),
    "resnet": NetworkSpec(
        depth=20,
        depths="6 n + 2",
        shortcut="identity",
        initializer="he_normal",
        convolutional=True,
        batch_normalization=True,
    ),
    "vgg": NetworkSpec(
        depth=16,
        depths="11, 13, 16 or 19",
        initializer="he_normal",
        convolutional=True,
        batch_normalization=True,
    ),
    "airbench": NetworkSpec(
        filters=(64, 256, 256),
        depth=8,
        depths="2 n + 2, or 3 n + 2 with residual sums, in n blocks",
        output_scale=1 / 9,
        initializer="dirac",
        convolutional=True,
        batch_normalization=True,
    ),
}
OWN_SETTINGS = ("hidden", "activation", "dropout", "filters", "width", "depth", "shortcut")

if TYPE_CHECKING:
    NetworkName = str
else:
    NetworkName = Literal[(*NETWORKS, "layers")]


def networks_with(setting: str) -> list[str]:
    """Return the names of the networks that have a setting or a property."""
    values = {name: getattr(spec, setting) for name, spec in NETWORKS.items()}
    return [name for name, value in values.items() if value is not None and value is not False]


def _names() -> str:
    dense, images = (
        [
            f"{name} ({spec.note})" if spec.note else name
            for name, spec in NETWORKS.items()
            if spec.convolutional == convolutional
        ]
        for convolutional in (False, True)
    )
    return (
        f"{', '.join(dense)}, convolutional: {', '.join(images)}; layers: those under "
        "[[network.layers]]"
    )


def _defaults(setting: str, separator: str, show: Callable[[NetworkSpec], str]) -> str:
    """Return the networks that have a setting, those of one default together: "a, b: 1, c: 2"."""
    found: dict[str, list[str]] = {}
    for name in networks_with(setting):
        found.setdefault(show(NETWORKS[name]), []).append(name)
    return separator.join(f"{', '.join(names)}: {value}" for value, names in found.items())


def _rates(spec: NetworkSpec) -> str:
    rates = spec.dropout if isinstance(spec.dropout, float) else list(spec.dropout or ())
    return f"{rates or 0}, after {spec.dropout_after}"


def _listed(layers: Sequence[Any]) -> Iterator[LayerSection]:
    """Yield the settings of listed layers, and of those within them."""
    for layer in layers:
        yield layer
        if isinstance(layer, ResidualLayer):
            yield from _listed([*layer.layers, *layer.shortcut])
        elif isinstance(layer, CoarseToFineLayer):
            yield from _listed([*layer.coarse, *layer.fine])
        elif isinstance(layer, ExitLayer):
            yield from _listed(layer.layers)
        elif isinstance(layer, ParallelLayer):
            yield from _listed([inner for branch in layer.branches for inner in branch])


class NetworkSettings(Section):
    """Which network: a name of the zoo and its settings, or a list of layers."""

    name: NetworkName = Field("mlp", description=_names())
    hidden: list[Positive] | None = Field(
        None,
        description="widths of the dense layers before the last, [] for none; "
        + _defaults("hidden", ", ", lambda spec: str(list(spec.hidden or ()))),
    )
    activation: Activation | None = Field(
        None,
        description=f"of the hidden layers; {EXACT}; "
        + _defaults("activation", ", ", lambda spec: str(spec.activation)),
    )
    output_activation: Literal["auto", "softmax", Activation] = Field(
        "auto",
        description="auto: softmax with cross_entropy, what the named network has otherwise, "
        "identity for mlp",
    )
    initializer: InitializerName = Field(
        "auto",
        description="of the weights; auto: as the network's source, else he_normal before relu "
        "and gelu and glorot_uniform elsewhere; "
        "biases start at zero (pytorch, dirac, uniform_*: drawn as well); dirac: as pytorch, but "
        "the first filters of a convolution hand on a channel each",
    )
    dropout: Rate | list[Rate] | None = Field(
        None,
        description="share of outputs set to zero while training, one for all places or a list; "
        + _defaults("dropout", "; ", _rates),
    )
    filters: Annotated[list[Positive], Field(min_length=1)] | None = Field(
        None,
        description="of the convolutions of each block; "
        + _defaults("filters", ", ", lambda spec: str(list(spec.filters or ()))),
    )
    width: Annotated[float, Field(gt=0)] = Field(
        1.0, description="alexnet: factor on the number of its filters and dense units"
    )
    depth: Positive | None = Field(
        None,
        description="layers with weights; "
        + _defaults("depth", "; ", lambda spec: f"{spec.depths} ({spec.depth})"),
    )
    shortcut: Literal["identity", "projection"] = Field(
        "identity",
        description="resnet, where a block changes the shape: every second pixel and channels of "
        "zeros, or a 1x1 convolution",
    )
    output_initializer: InitializerName | None = Field(
        None, description="of the weights of the last dense layer; left out: as all others"
    )
    output_scale: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="factor on the outputs of the last dense layer, before a softmax; "
        + ", ".join(
            f"{name}: 1/{1 / spec.output_scale:.0f}"
            for name, spec in NETWORKS.items()
            if spec.output_scale != 1
        )
        + ", others: 1",
    )
    weights: str = Field(
        "",
        description="a file .safetensors or .pt to start from, in place of drawn weights: arrays "
        "by the names that `ensync export` gives them, all of the network's and no others; "
        "`ensync import FILE JOB.toml` checks it. All members of an ensemble start from it. "
        "[[optimizer.groups]] with epochs = 0 leaves parameters as they are",
    )
    new_output: bool = Field(
        False,
        description="the last dense layer starts anew, as for other classes than those of "
        "network.weights",
    )
    batch_norm: Literal["synchronised", "local"] = Field(
        "synchronised",
        description="statistics of a batch over all ranks of the network, or of each rank's "
        "rows, with fewer messages",
    )
    layers: list[LayerSettings] | None = Field(
        None,
        description="[[network.layers]], each with a kind and that kind's settings, when no name "
        "is given",
    )

    @model_validator(mode="before")
    @classmethod
    def _layers_are_a_name(cls, values: Any) -> Any:
        """Take a list of layers for the network where no other is named."""
        if isinstance(values, dict) and "layers" in values and "name" not in values:
            return {**values, "name": "layers"}
        return values

    @model_validator(mode="after")
    def _used(self) -> "NetworkSettings":
        """Refuse settings that the named network does not have."""
        if (self.name == "layers") != bool(self.layers):
            raise ValueError(
                f"network.name = '{self.name}' {'with' if self.layers else 'without'} "
                "[[network.layers]]"
                "|either the name of a network or a list of layers|remove one of the two"
            )
        listed = self.layers or []
        if sum(each.exits for each in _listed(listed)) > sum(each.exits for each in listed):
            raise ValueError(
                "a layer of kind 'exit' within another layer"
                "|exits between the layers of [[network.layers]]|move it out of there"
            )
        for setting in OWN_SETTINGS:
            given, default = getattr(self, setting), type(self).model_fields[setting].default
            if given != default and self.name not in networks_with(setting):
                raise ValueError(
                    f"network.{setting} = {given!r} with network.name = '{self.name}'"
                    f"|a network that has this setting: {', '.join(networks_with(setting))}|remove "
                    "it or choose another network"
                )
        return self

    def has(self, trait: str) -> bool:
        """Whether the network, or one of its listed layers, has what `NetworkSpec` and
        `LayerSection` call so.
        """
        if self.layers is not None:
            return any(getattr(layer, trait) for layer in _listed(self.layers))
        return bool(getattr(NETWORKS[self.name], trait))
