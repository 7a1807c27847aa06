"""The layers that a job file may list under [[network.layers]]: each kind with its settings,
declared once.
"""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(ge=0, lt=1)]
Activation = Literal["relu", "gelu", "tanh", "logistic", "identity"]
Fused = Literal["relu", "gelu", "identity"]  # those that normalisations and sums take on the way
INITIALIZERS = (
    "glorot_uniform",
    "glorot_normal",
    "he_uniform",
    "he_normal",
    "pytorch",
    "dirac",
    "unit_variance",
    "normal_0_01",
    "uniform_0_1",
    "uniform_pm_half",
)
WHITENING = "whitening"  # filters that the training images fix
if TYPE_CHECKING:
    InitializerName = str
    FilterInitializerName = str
else:
    InitializerName = Literal[("auto", *INITIALIZERS)]
    FilterInitializerName = Literal[("auto", *INITIALIZERS, WHITENING)]
Padding = Literal["same", "valid"] | Annotated[int, Field(ge=0)]
Size = Positive | Annotated[list[Positive], Field(min_length=2, max_length=2)]

EXACT = "gelu: x (1 + erf(x / sqrt 2)) / 2, the exact form"
ACTIVATION = f"taken of the sum; {EXACT}"
INITIALIZER = "of the weights, as network.initializer; left out: that one"
PADDING = (
    "same: ceil(size / stride) outputs, as in Keras; valid: none; a number: so many zeros "
    "on every side"
)


class Section(BaseModel):
    """A table of the job file: unknown keys, wrong types and values that are not finite are
    refused.
    """

    model_config = ConfigDict(
        extra="forbid", strict=False, allow_inf_nan=False, validate_default=True
    )


class LayerSection(Section):
    """The settings of a listed layer.

    kind: its name. batch_normalization: whether it takes statistics over the batch. exits: whether
    images may leave there.
    """

    kind: str
    exits: ClassVar[bool] = False
    batch_normalization: ClassVar[bool] = False


class DenseLayer(LayerSection):
    """Every output is a weighted sum of all inputs, plus a bias; an image counts as one row of
    values.
    """

    kind: Literal["dense"]
    units: Positive | None = Field(
        None, description="outputs; left out: one for each class, in the last layer"
    )
    activation: Activation = Field("identity", description=ACTIVATION)
    use_bias: bool = Field(True, description="whether a bias is added")
    initializer: InitializerName | None = Field(None, description=INITIALIZER)


class ConvolutionLayer(LayerSection):
    """Filters slide over an image."""

    kind: Literal["convolution"]
    filters: Positive = Field(description="channels of the outputs")
    size: Size = Field(
        3, description="height and width of a filter; two numbers: its height, then its width"
    )
    stride: Positive = Field(1, description="pixels from one window to the next")
    padding: Padding = Field("same", description=PADDING)
    groups: Positive = Field(1, description="parts of the channels, convolved separately")
    activation: Activation = Field("identity", description=ACTIVATION)
    use_bias: bool = Field(
        True, description="whether a bias is added; before a batch normalisation it has no effect"
    )
    initializer: FilterInitializerName | None = Field(
        None,
        description=f"{INITIALIZER}; whitening, of the first layer: filters that whiten the "
        "patches of the first 5,000 training images, and their negatives",
    )


class DepthwiseLayer(LayerSection):
    """One filter per channel, without bias."""

    kind: Literal["depthwise"]
    size: Positive = Field(3, description="height and width of a filter")
    stride: Positive = Field(1, description="pixels from one window to the next")
    padding: Padding = Field("same", description=PADDING)


class SeparableLayer(LayerSection):
    """A depthwise convolution, then a 1x1 convolution with bias."""

    kind: Literal["separable"]
    filters: Positive = Field(description="channels of the outputs")
    size: Positive = Field(3, description="height and width of a filter")
    stride: Positive = Field(1, description="pixels from one window to the next")
    padding: Padding = Field("same", description=PADDING)
    activation: Activation = Field("identity", description=ACTIVATION)


class PoolingLayer(LayerSection):
    """One value of each window and channel."""

    size: Positive = Field(2, description="height and width of a window")
    stride: Positive | None = Field(
        None,
        description="pixels from one window to the next; left out: the size; less: windows overlap",
    )
    padding: Padding = Field("valid", description=f"{PADDING}, at most half the size")


class MaxPoolingLayer(PoolingLayer):
    """The maximum of each window."""

    kind: Literal["max_pooling"]


class AveragePoolingLayer(PoolingLayer):
    """The mean of each window."""

    kind: Literal["average_pooling"]


class GlobalAveragePoolingLayer(LayerSection):
    """The mean of each channel over the image."""

    kind: Literal["global_average_pooling"]


class FlattenLayer(LayerSection):
    """The image as one row of values."""

    kind: Literal["flatten"]


class BatchNormalizationLayer(LayerSection):
    """Each channel with mean 0 and variance 1 over the batch, then scaled and shifted."""

    batch_normalization: ClassVar[bool] = True
    kind: Literal["batch_normalization"]
    activation: Fused = Field("identity", description=f"taken of the normalised values; {EXACT}")
    momentum: Rate = Field(
        0.99,
        description="share of the moving statistics kept at each step (Keras 0.99; PyTorch's 0.1 "
        "is 0.9 here)",
    )
    epsilon: Annotated[float, Field(gt=0)] = Field(
        1e-3, description="added to the variance (Keras 1e-3, PyTorch 1e-5)"
    )
    unbiased: bool = Field(
        False,
        description="whether the moving variance divides by n - 1, as PyTorch's, and not by n",
    )
    scale: bool = Field(
        True, description="whether the scale is trained; false: it is 1, and the shift is trained"
    )


class GroupNormalizationLayer(LayerSection):
    """Each group of channels of a sample with mean 0 and variance 1, then each channel scaled and
    shifted; it needs no other samples (Wu and He 2018).
    """

    kind: Literal["group_norm"]
    groups: Positive = Field(
        description="groups of neighbouring channels; 1: layer normalisation, as many as "
        "channels: instance normalisation"
    )
    activation: Fused = Field("identity", description=f"taken of the normalised values; {EXACT}")
    epsilon: Annotated[float, Field(gt=0)] = Field(1e-5, description="added to the variance")


class LocalResponseNormalizationLayer(LayerSection):
    """Each value divided by (k + alpha * sum of squares over n neighbouring channels) ** beta
    (Krizhevsky et al. 2012).
    """

    kind: Literal["local_response_normalization"]
    k: float = Field(2.0, description="added to the sum of squares")
    n: Positive = Field(5, description="channels in the sum")
    alpha: float = Field(1e-4, description="factor of the sum of squares")
    beta: float = Field(0.75, description="exponent")
    groups: Positive = Field(
        1,
        description="blocks of channels, beyond whose edges no sum goes, as in each of the two "
        "towers of the paper",
    )


class ScalingLayer(LayerSection):
    """Every value times a number."""

    kind: Literal["scaling"]
    factor: float = Field(description="that number")


class DropoutLayer(LayerSection):
    """A share of the values set to zero while training."""

    kind: Literal["dropout"]
    rate: Rate = Field(description="that share")


class RecurrentLayer(LayerSection):
    """A state goes from row to row of an image, whose pixels it takes in."""

    units: Positive = Field(description="values of the state")
    all_states: bool = Field(
        False,
        description="whether the outputs are the states behind all rows, an image one pixel wide, "
        "and not the last one alone",
    )
    initializer: InitializerName | None = Field(None, description=INITIALIZER)


class GRULayer(RecurrentLayer):
    """Gated recurrent units over the rows of an image, from the top down, as torch.nn.GRU."""

    kind: Literal["gru"]


class LSTMLayer(RecurrentLayer):
    """Long short-term memory over the rows of an image, from the top down, as torch.nn.LSTM."""

    kind: Literal["lstm"]


class ResidualLayer(LayerSection):
    """The sum of the outputs of some layers, and of the inputs or of a shortcut's outputs."""

    kind: Literal["residual"]
    layers: "list[LayerSettings]" = Field(
        min_length=1, description="whose outputs are one part of the sum"
    )
    shortcut: "list[LayerSettings]" = Field(
        [],
        description="whose outputs, of the same shape, are the other part; left out: the inputs "
        "themselves",
    )
    activation: Fused = Field("identity", description=ACTIVATION)


class ExitLayer(LayerSection):
    """A head of its own on the values here, by which images that it is sure of may leave early
    (BranchyNet); the values go on as they are.
    """

    exits: ClassVar[bool] = True
    kind: Literal["exit"]
    layers: "list[LayerSettings]" = Field(
        min_length=1,
        description="of the head; the last is a dense one with an output for each class",
    )
    weight: Annotated[float, Field(gt=0)] = Field(
        1.0,
        description="of its loss in the loss that is trained, the sum of those of all exits and "
        "of the last layer, whose weight is 1",
    )


class CoarseToFineLayer(LayerSection):
    """The last layer: a coarse head says which group of classes, and a fine head of each group
    which class of it; the outputs are the logarithms of the classes' probabilities (HD-CNN).
    """

    kind: Literal["coarse_to_fine"]
    groups: Annotated[
        list[Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]],
        Field(min_length=1),
    ] = Field(
        description="the classes of each group, counted from 0; a class may be in several. `ensync "
        "evaluate RUN --groups N` finds them from what a trained run takes for what"
    )
    coarse: "list[LayerSettings]" = Field(
        [], description="before the dense layer with an output for each group"
    )
    fine: "list[LayerSettings]" = Field(
        [],
        description="of each group its own, before its dense layer with an output for each of its "
        "classes",
    )


class ParallelLayer(LayerSection):
    """The outputs of several branches on the same inputs, concatenated along the channels."""

    kind: Literal["parallel"]
    branches: "list[list[LayerSettings]]" = Field(
        min_length=1, description="a list of layers for each branch"
    )


LayerSettings = Annotated[
    DenseLayer
    | ConvolutionLayer
    | DepthwiseLayer
    | SeparableLayer
    | MaxPoolingLayer
    | AveragePoolingLayer
    | GlobalAveragePoolingLayer
    | FlattenLayer
    | BatchNormalizationLayer
    | GroupNormalizationLayer
    | LocalResponseNormalizationLayer
    | ScalingLayer
    | DropoutLayer
    | GRULayer
    | LSTMLayer
    | ResidualLayer
    | ExitLayer
    | CoarseToFineLayer
    | ParallelLayer,
    Field(discriminator="kind"),
]

for _nested in (ResidualLayer, ExitLayer, CoarseToFineLayer, ParallelLayer):
    _nested.model_rebuild()

KINDS: dict[str, type[LayerSection]] = {
    get_args(kind.model_fields["kind"].annotation)[0]: kind
    for kind in get_args(get_args(LayerSettings)[0])
}
