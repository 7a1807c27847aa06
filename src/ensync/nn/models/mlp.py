"""The named multi-layer perceptrons: settings in, layers out."""

from ensync.core.config.network import NetworkSettings
from ensync.nn.layers.base import Layer, Shape
from ensync.nn.layers.dense import Dense
from ensync.nn.models.common import activation, dropout, hidden, rates


def perceptron(settings: NetworkSettings, classes: int, output: str) -> list[Layer]:
    """A dense network: hidden layers, each followed by dropout where asked, then the output
    layer.
    """
    layers: list[Layer] = []
    widths = hidden(settings)
    for width, rate in zip(widths, rates(settings, len(widths)), strict=True):
        layers += [Dense(width, activation(settings)), *dropout(rate)]
    return [*layers, Dense(classes, output)]


def mlp(settings: NetworkSettings, shape: Shape, classes: int) -> list[Layer]:
    """A multi-layer perceptron of any depth."""
    return perceptron(settings, classes, "identity")


def oregon_mlp(settings: NetworkSettings, shape: Shape, classes: int) -> list[Layer]:
    """Two hidden layers, tanh everywhere, the output too (the source's C program)."""
    return perceptron(settings, classes, "tanh")


def roy_mlp(settings: NetworkSettings, shape: Shape, classes: int) -> list[Layer]:
    """One hidden layer, logistic everywhere (the source's program)."""
    return perceptron(settings, classes, "logistic")
