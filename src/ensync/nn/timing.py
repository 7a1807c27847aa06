"""The layers of a network one after the other, each with a note of its time."""

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

import numpy as np

from ensync.core.timeline import Kind, Timeline
from ensync.nn.layers.base import Layer, Step


def forward(
    layers: Sequence[Layer], inputs: np.ndarray, step: Step, timeline: Timeline
) -> np.ndarray:
    """Return the outputs of the last layer, as Sequential does."""
    start = perf_counter()
    for number, layer in enumerate(layers):
        inputs = layer.forward(inputs, step)
        end = perf_counter()
        timeline.add(Kind.FORWARD, start, end, number)
        start = end
    return inputs


def backward(
    layers: Sequence[Layer],
    gradient: np.ndarray,
    step: Step,
    timeline: Timeline,
    after_layer: Callable[[int], None] | None = None,
) -> np.ndarray | Any:
    """Return the gradient of the first layer's inputs, as Sequential does; after_layer: see
    Step.
    """
    start = perf_counter()
    for number in range(len(layers) - 1, -1, -1):
        gradient = layers[number].backward(gradient, step)
        end = perf_counter()
        timeline.add(Kind.BACKWARD, start, end, number)
        if after_layer is not None:
            after_layer(number)
            end = perf_counter()
        start = end
    return gradient
