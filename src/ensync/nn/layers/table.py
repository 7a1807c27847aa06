"""The kinds of layers that a job file may list, and layers from such a list."""

from collections.abc import Sequence

from ensync.core.config.layers import DenseLayer, ParallelLayer, ResidualLayer, Section
from ensync.core.config.schema import NetworkSettings
from ensync.core.errors import EnsyncError
from ensync.nn.layers.base import Layer
from ensync.nn.layers.branches import Parallel, Residual
from ensync.nn.layers.convolution import Convolution, DepthwiseConvolution
from ensync.nn.layers.dense import Dense
from ensync.nn.layers.dropout import Dropout
from ensync.nn.layers.flatten import Flatten
from ensync.nn.layers.normalization import BatchNormalization
from ensync.nn.layers.pooling import AveragePooling, GlobalAveragePooling, MaxPooling
from ensync.nn.layers.response import LocalResponseNormalization
from ensync.nn.layers.separable import SeparableConvolution
from ensync.nn.sequential import Sequential

CLASSES: dict[str, type[Layer]] = {  # kinds whose settings are the arguments of their class
    "convolution": Convolution,
    "depthwise": DepthwiseConvolution,
    "separable": SeparableConvolution,
    "max_pooling": MaxPooling,
    "average_pooling": AveragePooling,
    "global_average_pooling": GlobalAveragePooling,
    "flatten": Flatten,
    "batch_normalization": BatchNormalization,
    "dropout": Dropout,
    "local_response_normalization": LocalResponseNormalization,
}


def layers_of(settings: NetworkSettings, classes: int) -> list[Layer]:
    """Return the layers under [[network.layers]]; a dense layer without units has one for each
    class.
    """
    return compose(settings.layers or [], classes)


def compose(listed: Sequence[Section], classes: int) -> list[Layer]:
    """Return the layers of a list, those of residual and parallel branches within them."""
    return [_layer(settings, classes) for settings in listed]


def _layer(settings: Section, classes: int) -> Layer:
    if isinstance(settings, DenseLayer):
        return Dense(settings.units or classes, settings.activation)
    if isinstance(settings, ResidualLayer):
        main = compose(settings.layers, classes)
        if not main or not isinstance(main[-1], BatchNormalization) or main[-1].relu:
            raise EnsyncError(
                "a residual layer that does not end in a batch normalisation",
                "a batch_normalization without activation as the last of its layers, "
                "which adds the inputs in passing",
                "append one, and give the activation to the residual layer",
            )
        return Residual(main, settings.activation, compose(settings.shortcut, classes))
    if isinstance(settings, ParallelLayer):
        return Parallel([Sequential(compose(branch, classes)) for branch in settings.branches])
    values = dict(settings)
    return CLASSES[values.pop("kind")](**values)
