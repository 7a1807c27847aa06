"""The named networks: settings in, layers out."""

from collections.abc import Callable

import numpy as np

from ensync.nn.layers import Dense, Dropout, Layer, Shape, Softmax
from ensync.nn.network import Loss, Network
from ensync.settings import Job
from ensync.settings import Network as Settings


def dense_layers(widths: list[int], classes: int, hidden: str, output: str, dropout: float) -> list[Layer]:
    """A dense network: hidden layers of these widths, each followed by dropout where asked, then the output layer."""
    layers: list[Layer] = []
    for width in widths:
        layers.append(Dense(width, hidden))
        if dropout:
            layers.append(Dropout(dropout, len(layers)))
    layers.append(Dense(classes, "identity" if output == "softmax" else output))
    return [*layers, Softmax()] if output == "softmax" else layers


def mlp(settings: Settings, classes: int, output: str | None) -> list[Layer]:
    """A multi-layer perceptron of any depth."""
    return dense_layers(settings.hidden if settings.hidden is not None else [128], classes, settings.activation or "relu", output or "identity", settings.dropout)


def oregon_mlp(settings: Settings, classes: int, output: str | None) -> list[Layer]:
    """Two hidden layers, tanh everywhere, the output too (the source's C program)."""
    return dense_layers(settings.hidden or [100, 100], classes, settings.activation or "tanh", output or "tanh", settings.dropout)


def roy_mlp(settings: Settings, classes: int, output: str | None) -> list[Layer]:
    """One hidden layer, logistic everywhere (the source's program)."""
    return dense_layers(settings.hidden or [100], classes, settings.activation or "logistic", output or "logistic", settings.dropout)


NETWORKS: dict[str, Callable[[Settings, int, str | None], list[Layer]]] = {"mlp": mlp, "oregon-mlp": oregon_mlp, "roy-mlp": roy_mlp}


def build(job: Job, shape: Shape, classes: int, rows: int) -> Network:
    """Return the job's network for images of this shape, with buffers for `rows` samples; its parameters are still zero."""
    t = job.training
    loss = Loss(t.loss, t.label_smoothing, *t.targets)
    layers = NETWORKS[job.network.name](job.network, classes, _output(job))
    return Network(layers, shape, loss, rows, np.dtype(t.precision), job.network.initializer)


def _output(job: Job) -> str | None:
    """The output layer's own activation; under cross-entropy the softmax belongs to the loss."""
    if job.training.loss == "cross_entropy":
        return "identity"
    return None if job.network.output_activation == "auto" else job.network.output_activation
