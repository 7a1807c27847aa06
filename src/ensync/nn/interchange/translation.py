"""The layers of a network as operations."""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ensync.core.errors import EnsyncError
from ensync.nn.interchange.operations import (
    Activate,
    Add,
    Concatenate,
    Convolve,
    Drop,
    Flatten,
    Frame,
    GlobalMean,
    Linear,
    NormalizeBatch,
    NormalizeGroups,
    NormalizeResponse,
    Operation,
    Pool,
    Recur,
    Scale,
    Subsample,
    Tensor,
)
from ensync.nn.layers.activations import Softmax
from ensync.nn.layers.base import Layer, Shape
from ensync.nn.layers.branches import Parallel, Residual
from ensync.nn.layers.convolution import Convolution, DepthwiseConvolution
from ensync.nn.layers.dense import Dense
from ensync.nn.layers.dropout import Dropout
from ensync.nn.layers.flatten import Flatten as FlattenLayer
from ensync.nn.layers.group_normalization import GroupNormalization
from ensync.nn.layers.images import Padding, Size, Window, extent
from ensync.nn.layers.normalization import BatchNormalization
from ensync.nn.layers.pooling import AveragePooling, GlobalAveragePooling, MaxPooling, Subsampling
from ensync.nn.layers.recurrent import GRU, LSTM, Recurrent
from ensync.nn.layers.response import LocalResponseNormalization
from ensync.nn.layers.scaling import Scaling
from ensync.nn.layers.separable import SeparableBlock, SeparableConvolution
from ensync.nn.network import Network
from ensync.nn.sequential import Sequential

FILTERS = (3, 2, 0, 1)  # from (height, width, inputs, outputs) to PyTorch's order
PIXELS = (2, 0, 1)  # from (height, width, channels)


class Values(NamedTuple):
    """What flows from a layer to the next: its shape, Ensync's; and of a row that is a flattened
    image in PyTorch's order, channels first, that image's shape.
    """

    shape: Shape
    image: Shape | None = None


class Translation:
    """Layers into operations.

    channels_first: whether a flattened image lies in PyTorch's order, so that the arrays behind it
    are put in that order; else in Ensync's, channels last.
    """

    def __init__(self, channels_first: bool) -> None:
        self.channels_first = channels_first

    def network(self, network: Network) -> list[Operation]:
        """Return the operations of a network, whose arrays are views of its parameters and
        statistics.

        Errors: EnsyncError for a layer that has no such form, by its name.
        """
        operations, _ = self.row(network.layers, network.shapes, Values(network.shape))
        return operations

    def row(
        self, layers: Sequence[Layer], shapes: Sequence[Shape], given: Values
    ) -> tuple[list[Operation], Values]:
        """Return the operations of layers one after the other, with the shapes of their outputs,
        and what comes out.
        """
        found: list[Operation] = []
        for layer, shape in zip(layers, shapes, strict=True):
            form = FORMS.get(type(layer))
            if form is None:
                raise EnsyncError(
                    f"the layer '{layer.describe()}', which has no form in other programs",
                    "layers of " + ", ".join(kind.__name__ for kind in FORMS),
                    "train a network without it",
                )
            operations, image = form(self, layer, given)
            found += operations
            given = Values(shape, image)
        return found, given

    def flattened(self, shape: Shape) -> Shape | None:
        """Return the image behind a row where its order matters: in one channel, or one pixel,
        both orders are the same.
        """
        matters = len(shape) == 3 and shape[2] > 1 and shape[0] * shape[1] > 1
        return shape if self.channels_first and matters else None


Form = Callable[[Translation, Any, Values], tuple[list[Operation], Shape | None]]


def _filters(view: np.ndarray, cut: Shape) -> Tensor:
    """Filters of (height, width, inputs, outputs) as PyTorch's."""
    height, width, inputs, outputs = cut
    return Tensor(view, cut, FILTERS, (outputs, inputs, height, width))


def _vector(view: np.ndarray, image: Shape | None = None, fixed: bool = False) -> Tensor:
    """An array (n,), of which each element belongs to a channel or to a value of a flat image."""
    if image is None:
        return Tensor(view, view.shape, (0,), view.shape, fixed)
    return Tensor(view, image, PIXELS, view.shape, fixed)


def _activation(name: str, given: Shape) -> list[Operation]:
    return [] if name == "identity" else [Activate(given, name)]


def _frame(shape: Shape, size: Size, stride: int, padding: Padding) -> Frame:
    taps = Window(size, stride, padding).taps
    (top, bottom), (left, right) = (
        _sides(n, each, stride, padding) for n, each in zip(shape[:2], taps, strict=True)
    )
    return Frame(taps, stride, top, left, bottom, right)


def _sides(length: int, size: int, stride: int, padding: Padding) -> tuple[int, int]:
    """Return what is put before and behind an axis."""
    outputs, before = extent(length, size, stride, padding)
    if padding == "same":
        return before, max(0, (outputs - 1) * stride + size - length) - before
    return before, before


def _no_order(layer: Layer, given: Values) -> None:
    """Refuse a layer on a flattened image that takes neighbouring values together."""
    if given.image is not None:
        raise EnsyncError(
            f"the layer '{layer.describe()}' on a flattened image, whose values PyTorch has in "
            "another order",
            "a dense layer, a batch normalisation or single values there",
            "put it before the flatten layer, or export with --format onnx, which has Ensync's "
            "order",
        )


def _dense(of: Translation, layer: Dense, given: Values) -> tuple[list[Operation], None]:
    shape, image = given
    flat: list[Operation] = []
    if len(shape) > 1:
        flat, image, shape = [Flatten(shape)], of.flattened(shape), (prod(shape),)
    cut = (*(image or (1, 1, *shape)), layer.units)
    weight = Tensor(layer.weights, cut, FILTERS, (layer.units, *shape))
    bias = _vector(layer.bias) if layer.use_bias else None
    units = (layer.units,)
    return [
        *flat,
        Linear(shape, weight, bias),
        *_activation(layer.activation.name, units),
    ], None


def _convolution(
    of: Translation, layer: Convolution, given: Values
) -> tuple[list[Operation], None]:
    window, weights = layer.window, layer.weights
    made = Convolve(
        given.shape,
        _frame(given.shape, window.size, window.stride, window.padding),
        layer.groups,
        _filters(weights, weights.shape),
        _vector(layer.bias) if layer.use_bias else None,
    )
    return [made, *_activation(layer.activation.name, layer.form.outputs)], None


def _depthwise_of(given: Shape, filters: np.ndarray, frame: Frame) -> Operation:
    """Filters (height, width, channels), one for each channel."""
    height, width, channels = filters.shape
    cut = (height, width, channels, 1)
    weight = Tensor(filters, cut, (2, 3, 0, 1), (channels, 1, height, width))
    return Convolve(given, frame, channels, weight, None)


def _depthwise(
    of: Translation, layer: DepthwiseConvolution, given: Values
) -> tuple[list[Operation], None]:
    frame = _frame(given.shape, layer.size, layer.stride, layer.padding)
    return [_depthwise_of(given.shape, layer.weights, frame)], None


def _pooling(of: Translation, layer: MaxPooling, given: Values) -> tuple[list[Operation], None]:
    frame = _frame(given.shape, layer.size, layer.stride, layer.padding)
    return [Pool(given.shape, frame, type(layer) is MaxPooling)], None


def _global_mean(
    of: Translation, layer: GlobalAveragePooling, given: Values
) -> tuple[list[Operation], None]:
    return [GlobalMean(given.shape)], None


def _subsampling(
    of: Translation, layer: Subsampling, given: Values
) -> tuple[list[Operation], None]:
    return [Subsample(given.shape, layer.channels, layer.stride)], None


def _flatten(
    of: Translation, layer: FlattenLayer, given: Values
) -> tuple[list[Operation], Shape | None]:
    if len(given.shape) == 1:
        return [], given.image
    return [Flatten(given.shape)], of.flattened(given.shape)


def _batch_of(layer: BatchNormalization, given: Values) -> list[Operation]:
    gamma, image = layer.gamma, given.image
    made = NormalizeBatch(
        given.shape,
        _vector(gamma, image, fixed=not layer.scale),
        _vector(layer.beta, image),
        _vector(layer.moving_mean, image),
        _vector(layer.moving_variance, image),
        layer.epsilon,
        1 - layer.momentum,
    )
    return [made, *_activation(layer.activation, given.shape)]


def _batch_normalization(
    of: Translation, layer: BatchNormalization, given: Values
) -> tuple[list[Operation], Shape | None]:
    return _batch_of(layer, given), given.image


def _group_normalization(
    of: Translation, layer: GroupNormalization, given: Values
) -> tuple[list[Operation], None]:
    _no_order(layer, given)
    gamma, beta = _vector(layer.gamma), _vector(layer.beta)
    made = NormalizeGroups(given.shape, gamma, beta, layer.groups, layer.epsilon)
    return [made, *_activation(layer.activation, given.shape)], None


def _response(
    of: Translation, layer: LocalResponseNormalization, given: Values
) -> tuple[list[Operation], None]:
    _no_order(layer, given)
    made = NormalizeResponse(given.shape, layer.k, layer.n, layer.alpha, layer.beta, layer.groups)
    return [made], None


def _scaling(
    of: Translation, layer: Scaling, given: Values
) -> tuple[list[Operation], Shape | None]:
    return [Scale(given.shape, layer.factor)], given.image


def _dropout(
    of: Translation, layer: Dropout, given: Values
) -> tuple[list[Operation], Shape | None]:
    return [Drop(given.shape, layer.rate)], given.image


def _softmax(of: Translation, layer: Softmax, given: Values) -> tuple[list[Operation], None]:
    return [Activate(given.shape, "softmax")], None


def _recurrent(of: Translation, layer: Recurrent, given: Values) -> tuple[list[Operation], None]:
    weights = [
        Tensor(view, view.shape, (1, 0), view.shape[::-1])
        for view in (layer.weights, layer.state_weights)
    ]
    biases = [_vector(layer.bias), _vector(layer.state_bias)]
    return [Recur(given.shape, layer.name, layer.all_states, *weights, *biases)], None


def _sequential(
    of: Translation, layer: Sequential, given: Values
) -> tuple[list[Operation], Shape | None]:
    operations, end = of.row(layer.layers, layer.shapes, given)
    return operations, end.image


def _residual(
    of: Translation, layer: Residual, given: Values
) -> tuple[list[Operation], Shape | None]:
    count = len(layer.before.layers) + 1
    main, end = of.row(layer.layers[:count], layer.shapes[:count], given)
    shortcut, around = of.row(layer.layers[count:], layer.shapes[count:], given)
    if end.image != around.image:
        _no_order(layer, Values(layer.shape, end.image or around.image))
    activation = _activation(layer.activation.name, layer.shape)
    return [Add(given.shape, main, shortcut), *activation], end.image


def _parallel(of: Translation, layer: Parallel, given: Values) -> tuple[list[Operation], None]:
    ways = [of.row([branch], [shape], given) for branch, shape in zip(layer.layers, layer.shapes)]
    for _, end in ways:
        _no_order(layer, end)
    return [Concatenate(given.shape, [operations for operations, _ in ways])], None


def _separable_block(
    of: Translation, layer: SeparableBlock, given: Values
) -> tuple[list[Operation], None]:
    found: list[Operation] = []
    for unit in layer.units:
        inner = unit.image
        outputs = (*inner[:2], unit.filters)
        cut = (1, 1, inner[2], unit.filters)
        found += [
            _depthwise_of(inner, unit.depthwise, _frame(inner, unit.size, 1, "same")),
            Convolve(
                inner,
                Frame((1, 1), 1, 0, 0, 0, 0),
                1,
                _filters(unit.weights, cut),
                _vector(unit.bias),
            ),
            *_batch_of(unit.norm, Values(outputs)),
        ]
    return ([Add(given.shape, found, [])] if layer.residual else found), None


FORMS: dict[type[Layer], Form] = {
    Dense: _dense,
    Convolution: _convolution,
    DepthwiseConvolution: _depthwise,
    SeparableConvolution: _sequential,
    SeparableBlock: _separable_block,
    MaxPooling: _pooling,
    AveragePooling: _pooling,
    GlobalAveragePooling: _global_mean,
    Subsampling: _subsampling,
    FlattenLayer: _flatten,
    BatchNormalization: _batch_normalization,
    GroupNormalization: _group_normalization,
    LocalResponseNormalization: _response,
    Scaling: _scaling,
    Dropout: _dropout,
    GRU: _recurrent,
    LSTM: _recurrent,
    Softmax: _softmax,
    Residual: _residual,
    Parallel: _parallel,
    Sequential: _sequential,
}
