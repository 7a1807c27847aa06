"""Images as rows."""

import numpy as np

from ensync.nn.layers.base import Layer, Shape, Step


class Flatten(Layer):
    """outputs = the inputs as one row per sample."""

    def build(self, shape: Shape) -> Shape:
        return (int(np.prod(shape)),)

    def forward(self, inputs: np.ndarray, step: Step) -> np.ndarray:
        self.shape = inputs.shape[1:]
        return inputs.reshape(len(inputs), int(np.prod(self.shape)))

    def backward(self, gradient: np.ndarray, step: Step) -> np.ndarray | None:
        return gradient.reshape(len(gradient), *self.shape)
