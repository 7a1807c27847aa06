"""The named networks of core.config.network, and the network of a job."""

from collections.abc import Callable

import numpy as np

from ensync.core.config.inputs import input_shape
from ensync.core.config.losses import LOSSES
from ensync.core.config.network import NETWORKS, NetworkSettings, NetworkSpec
from ensync.core.config.schema import Job
from ensync.core.errors import EnsyncError
from ensync.kernels.simd.host import bf16_missing
from ensync.nn.early import Early
from ensync.nn.layers.activations import Softmax
from ensync.nn.layers.base import Layer, Shape
from ensync.nn.layers.coarse_to_fine import CoarseToFine
from ensync.nn.layers.dense import Dense
from ensync.nn.layers.exit import Exit
from ensync.nn.layers.scaling import Scaling
from ensync.nn.layers.table import build_layers
from ensync.nn.loss import Loss
from ensync.nn.memory import Workspace
from ensync.nn.models import convolutional, mlp
from ensync.nn.network import Network, NetworkOptions
from ensync.nn.sequential import Sequential
from ensync.nn.split.exchange import Holding, Links
from ensync.nn.split.parts import parts_of
from ensync.nn.split.pipeline import Plan, StageNetwork
from ensync.nn.split.placement import split

BUILDERS: dict[str, Callable[[NetworkSettings, Shape, int], list[Layer]]] = {
    "mlp": mlp.mlp,
    "oregon-mlp": mlp.oregon_mlp,
    "roy-mlp": mlp.roy_mlp,
    "parashar-cnn": convolutional.parashar_cnn,
    "minixception": convolutional.minixception,
    "minixception-plain": convolutional.minixception_plain,
    "alexnet": convolutional.alexnet,
    "lenet": convolutional.lenet,
    "resnet": convolutional.resnet,
    "vgg": convolutional.vgg,
    "airbench": convolutional.airbench,
}


def build(
    job: Job,
    shape: Shape,
    classes: int,
    rows: int,
    workspace: Workspace | None = None,
    exchange: Holding | None = None,
) -> Network:
    """Return the job's network for images of this shape, or the part of them that it asks for, with
    buffers for `rows` samples; its parameters are still zero.

    workspace: scratch to share with networks that never compute at the same time. exchange: with
    the other ranks that hold a part of the network each; then this rank's part is built, or its
    stage. Collective over them.
    """
    t, settings, shape = job.training, job.network, input_shape(job, shape)
    if t.precision == "bf16" and bf16_missing():
        raise EnsyncError(
            f"training.precision = 'bf16', but {bf16_missing()}",
            "a CPU that multiplies bf16 numbers (AMD Zen 4 and later, "
            "Intel Cooper Lake and since Sapphire Rapids)",
            "set training.precision = 'float32'",
        )
    initializer = settings.initializer
    if settings.layers is not None:
        layers = build_layers(settings.layers, classes)
    else:
        layers = BUILDERS[settings.name](settings, shape, classes)
        if initializer == "auto":
            initializer = NETWORKS[settings.name].initializer
    for head in [layers, *(layer.layers for layer in layers if isinstance(layer, Exit))]:
        _finish(head, job)
    options = NetworkOptions(
        np.dtype(t.dtype),
        t.precision == "bf16",
        initializer,
        settings.batch_norm == "local" or job.communication.is_local or job.communication.is_served,
    )
    loss = Loss(t.loss, t.label_smoothing, *t.targets)
    if exchange is None:
        network = Network(layers, shape, loss, rows, options, workspace)
    elif isinstance(exchange, Links):
        plan = Plan(layers, job.parallel.micro_batches, exchange)
        network = StageNetwork(plan, shape, loss, rows, options, workspace)
    else:
        whole = Sequential(layers)
        whole.build(shape)
        part = split(layers, shape, exchange, job.parallel.convolutions == "data")
        network = Network(part, shape, loss, rows, options, workspace)
        network.parts = parts_of(whole, network.body, exchange)
    if network.classes != classes:
        raise EnsyncError(
            f"a network with {network.classes} outputs for {classes} classes",
            "one output for each class",
            "leave the units of the last dense layer out",
        )
    if network.exits:
        network.early = Early(job.evaluation.exit_threshold, job.evaluation.exit_confidence)
    return network


def _finish(layers: list[Layer], job: Job) -> None:
    """Give the last layer its start, its factor and its activation: none under cross-entropy, whose
    softmax belongs to the loss, else the job's or the network's own.
    """
    last = layers[-1]
    if isinstance(last, CoarseToFine) and job.training.loss == "cross_entropy":
        for head in last.layers:
            assert isinstance(head, Sequential)
            _finish(head.layers, job)
        return
    if not isinstance(last, Dense):
        raise EnsyncError(
            f"a network that ends in '{last.describe()}'",
            "a dense layer with one output for each class",
            "append a layer of kind 'dense', or scale its outputs by network.output_scale"
            if isinstance(last, Scaling)
            else "append a layer of kind 'dense'",
        )
    settings = job.network
    given, logits = settings.output_activation, LOSSES[job.training.loss].of_logits
    activation = last.activation.name if given == "auto" else given
    is_softmax = given == "softmax" and not logits
    layers[-1] = Dense(
        last.units,
        "identity" if logits or is_softmax else activation,
        last.use_bias,
        settings.output_initializer or last.initializer,
    )
    spec = NETWORKS.get(settings.name, NetworkSpec())
    scale = settings.output_scale or spec.output_scale
    if scale != 1:
        layers.append(Scaling(scale))
    if is_softmax:
        layers.append(Softmax())
