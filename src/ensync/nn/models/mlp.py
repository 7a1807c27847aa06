"""The named multi-layer perceptrons: settings in, layers out."""

from ensync.core.config.schema import NetworkSettings
from ensync.nn.layers.base import Layer, Shape
from ensync.nn.layers.dense import Dense
from ensync.nn.models.common import dropout, hidden, rates


def perceptron(
    settings: NetworkSettings, classes: int, widths: list[int], activation: str, output: str
) -> list[Layer]:
    """A dense network: hidden layers of these widths, each followed by dropout where asked, then
    the output layer.
    """
    layers: list[Layer] = []
    for width, rate in zip(widths, rates(settings, [0.0] * len(widths)), strict=True):
        layers += [Dense(width, settings.activation or activation), *dropout(rate)]
    return [*layers, Dense(classes, output)]


def mlp(settings: NetworkSettings, shape: Shape, classes: int) -> list[Layer]:
    """A multi-layer perceptron of any depth."""
    return perceptron(settings, classes, hidden(settings, 128), "relu", "identity")


def oregon_mlp(settings: NetworkSettings, shape: Shape, classes: int) -> list[Layer]:
    """Two hidden layers, tanh everywhere, the output too (the source's C program)."""
    return perceptron(settings, classes, hidden(settings, 100, 100), "tanh", "tanh")


def roy_mlp(settings: NetworkSettings, shape: Shape, classes: int) -> list[Layer]:
    """One hidden layer, logistic everywhere (the source's program)."""
    return perceptron(settings, classes, hidden(settings, 100), "logistic", "logistic")
