"""How the kinds of layers that a job file may list are built."""

from collections.abc import Callable, Sequence
from typing import Any

from ensync.core.config.layers import (
    CoarseToFineLayer,
    ConvolutionLayer,
    DenseLayer,
    ExitLayer,
    LayerSection,
    ParallelLayer,
    ResidualLayer,
)
from ensync.nn.layers.base import Layer
from ensync.nn.layers.branches import Parallel, Residual
from ensync.nn.layers.coarse_to_fine import CoarseToFine
from ensync.nn.layers.convolution import Convolution, DepthwiseConvolution
from ensync.nn.layers.dense import Dense
from ensync.nn.layers.dropout import Dropout
from ensync.nn.layers.exit import Exit
from ensync.nn.layers.flatten import Flatten
from ensync.nn.layers.group_normalization import GroupNormalization
from ensync.nn.layers.images import Window
from ensync.nn.layers.normalization import BatchNormalization
from ensync.nn.layers.pooling import AveragePooling, GlobalAveragePooling, MaxPooling
from ensync.nn.layers.recurrent import GRU, LSTM
from ensync.nn.layers.response import LocalResponseNormalization
from ensync.nn.layers.scaling import Scaling
from ensync.nn.layers.separable import SeparableConvolution
from ensync.nn.sequential import Sequential

Builder = Callable[[Any, int], Layer]  # from the settings of a kind and the number of classes


def plain(layer: type[Layer]) -> Builder:
    """Return the builder of a kind whose settings are the arguments of its class."""

    def build(settings: LayerSection, classes: int) -> Layer:
        arguments = dict(settings)
        del arguments["kind"]
        return layer(**arguments)

    return build


def dense(settings: DenseLayer, classes: int) -> Layer:
    """A layer without units has one for each class."""
    rest = settings.activation, settings.use_bias, settings.initializer
    return Dense(settings.units or classes, *rest)


def convolution(settings: ConvolutionLayer, classes: int) -> Layer:
    """A layer of which size, stride and padding are the window."""
    size = settings.size if isinstance(settings.size, int) else (settings.size[0], settings.size[1])
    window = Window(size, settings.stride, settings.padding)
    rest = settings.groups, settings.activation, settings.use_bias, settings.initializer
    return Convolution(settings.filters, window, *rest)


def residual(settings: ResidualLayer, classes: int) -> Layer:
    """The layers of both ways."""
    main, shortcut = (build_layers(way, classes) for way in (settings.layers, settings.shortcut))
    return Residual(main, settings.activation, shortcut)


def exit_(settings: ExitLayer, classes: int) -> Layer:
    """The layers of the head."""
    return Exit(build_layers(settings.layers, classes), settings.weight)


def coarse_to_fine(settings: CoarseToFineLayer, classes: int) -> Layer:
    """The layers of the coarse head and of each fine one, and a dense one behind them."""
    groups = settings.groups
    coarse = [*build_layers(settings.coarse, classes), Dense(len(groups))]
    fine = [[*build_layers(settings.fine, classes), Dense(len(group))] for group in groups]
    return CoarseToFine(coarse, fine, groups)


def parallel(settings: ParallelLayer, classes: int) -> Layer:
    """The layers of each branch."""
    return Parallel([Sequential(build_layers(branch, classes)) for branch in settings.branches])


LAYERS: dict[str, Builder] = {  # of each kind of core.config.layers.KINDS
    "dense": dense,
    "convolution": convolution,
    "depthwise": plain(DepthwiseConvolution),
    "separable": plain(SeparableConvolution),
    "max_pooling": plain(MaxPooling),
    "average_pooling": plain(AveragePooling),
    "global_average_pooling": plain(GlobalAveragePooling),
    "flatten": plain(Flatten),
    "batch_normalization": plain(BatchNormalization),
    "group_norm": plain(GroupNormalization),
    "local_response_normalization": plain(LocalResponseNormalization),
    "scaling": plain(Scaling),
    "dropout": plain(Dropout),
    "gru": plain(GRU),
    "lstm": plain(LSTM),
    "residual": residual,
    "exit": exit_,
    "coarse_to_fine": coarse_to_fine,
    "parallel": parallel,
}


def build_layers(listed: Sequence[LayerSection], classes: int) -> list[Layer]:
    """Return the layers of a list of settings."""
    return [LAYERS[settings.kind](settings, classes) for settings in listed]
