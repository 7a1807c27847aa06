"""The named networks: settings in, layers out."""

from collections.abc import Callable

import numpy as np

from ensync.core.config.schema import Job
from ensync.core.config.schema import Network as Settings
from ensync.core.errors import EnsyncError
from ensync.kernels.simd import bf16_missing
from ensync.nn import convolutional_zoo as images
from ensync.nn.composing import layers_of
from ensync.nn.layers import Dense, Layer, Shape, Softmax
from ensync.nn.network import Loss, Network


def perceptron(
    settings: Settings, classes: int, widths: list[int], hidden: str, output: str
) -> list[Layer]:
    """A dense network: hidden layers of these widths, each followed by dropout where asked, then
    the output layer.
    """
    layers: list[Layer] = []
    for width, rate in zip(widths, images.rates(settings, [0.0] * len(widths)), strict=True):
        layers += [Dense(width, settings.activation or hidden), *images.dropout(rate)]
    return [*layers, Dense(classes, output)]


def mlp(settings: Settings, shape: Shape, classes: int) -> list[Layer]:
    """A multi-layer perceptron of any depth."""
    return perceptron(settings, classes, images.hidden(settings, 128), "relu", "identity")


def oregon_mlp(settings: Settings, shape: Shape, classes: int) -> list[Layer]:
    """Two hidden layers, tanh everywhere, the output too (the source's C program)."""
    return perceptron(settings, classes, images.hidden(settings, 100, 100), "tanh", "tanh")


def roy_mlp(settings: Settings, shape: Shape, classes: int) -> list[Layer]:
    """One hidden layer, logistic everywhere (the source's program)."""
    return perceptron(settings, classes, images.hidden(settings, 100), "logistic", "logistic")


def listed(settings: Settings, shape: Shape, classes: int) -> list[Layer]:
    """The layers of the job file."""
    return layers_of(settings, classes)


NETWORKS: dict[str, Callable[[Settings, Shape, int], list[Layer]]] = {
    "mlp": mlp,
    "oregon-mlp": oregon_mlp,
    "roy-mlp": roy_mlp,
    "parashar-cnn": images.parashar_cnn,
    "minixception": images.minixception,
    "minixception-plain": images.minixception_plain,
    "alexnet": images.alexnet,
    "lenet": images.lenet,
    "resnet": images.resnet,
    "vgg": images.vgg,
    "layers": listed,
}
INITIALIZERS = {  # of the sources: Keras' and PyTorch's defaults, the papers'
    "parashar-cnn": "glorot_uniform",
    "minixception": "glorot_uniform",
    "minixception-plain": "pytorch",
    "lenet": "glorot_uniform",
    "resnet": "he_normal",
    "vgg": "he_normal",
}


def build(job: Job, shape: Shape, classes: int, rows: int) -> Network:
    """Return the job's network for images of this shape, with buffers for `rows` samples; its
    parameters are still zero.
    """
    t, settings = job.training, job.network
    if t.precision == "bf16" and bf16_missing():
        raise EnsyncError(
            f"training.precision = 'bf16', but {bf16_missing()}",
            "a CPU that multiplies bf16 numbers (AMD Zen 4 and later, "
            "Intel Cooper Lake and since Sapphire Rapids)",
            "set training.precision = 'float32'",
        )
    layers = NETWORKS[settings.name](settings, shape, classes)
    _finish(layers, job)
    initializer = (
        INITIALIZERS.get(settings.name, "auto")
        if settings.initializer == "auto"
        else settings.initializer
    )
    network = Network(
        layers,
        shape,
        Loss(t.loss, t.label_smoothing, *t.targets),
        rows,
        np.dtype(t.dtype),
        initializer,
        settings.batch_norm == "local",
        t.precision == "bf16",
    )
    if network.classes != classes:
        raise EnsyncError(
            f"a network with {network.classes} outputs for {classes} classes",
            "one output for each class",
            "leave the units of the last dense layer out",
        )
    return network


def _finish(layers: list[Layer], job: Job) -> None:
    """Give the last layer its activation: none under cross-entropy, whose softmax belongs to the
    loss, else the job's or the network's own.
    """
    last = layers[-1]
    if not isinstance(last, Dense):
        raise EnsyncError(
            f"a network that ends in '{last.describe()}'",
            "a dense layer with one output for each class",
            "append a layer of kind 'dense'",
        )
    given = job.network.output_activation
    if job.training.loss == "cross_entropy":
        layers[-1] = Dense(last.units)
    elif given != "auto":
        layers[-1:] = (
            [Dense(last.units), Softmax()] if given == "softmax" else [Dense(last.units, given)]
        )
