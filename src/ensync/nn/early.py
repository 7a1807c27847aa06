"""Networks with exits, in a test: images leave where an answer is confident, and only the others go
on (BranchyNet, Teerapittayanon et al. 2016).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ensync.nn.layers.base import Layer, Shape, Step
from ensync.nn.layers.exit import Exit


def confidences(logits: np.ndarray, measure: str) -> np.ndarray:
    """Return how confident answers `(rows, classes)` are, float64 `(rows,)` from 0 to 1: the
    largest probability, or by measure = "entropy" 1 - entropy / ln(classes).
    """
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    shares = np.exp(logs)
    if measure == "probability":
        return np.asarray(shares.max(axis=1))
    return np.asarray(1 + (shares * logs).sum(axis=1) / np.log(max(2, logits.shape[1])))


@dataclass(frozen=True)
class Early:
    """When images leave: at the first exit whose answer has at least this confidence by this
    measure. threshold: None: never.
    """

    threshold: float | None
    measure: str

    def forward(
        self, layers: Sequence[Layer], images: np.ndarray, outputs: np.ndarray
    ) -> np.ndarray:
        """Return `outputs` `(rows, classes)`, filled with the logits of each image `(rows, *shape)`
        where it leaves; a layer computes only the images that have come to it.
        """
        threshold = np.inf if self.threshold is None else self.threshold
        staying, values = np.arange(len(images)), images
        for layer in layers:
            if isinstance(layer, Exit) and len(staying):
                logits = layer.answer(values, Step())
                leaving = confidences(logits, self.measure) >= threshold
                outputs[staying[leaving]] = logits[leaving]
                staying, values = staying[~leaving], values[~leaving]
            if not len(staying):
                return outputs
            values = layer.forward(values, Step())
        outputs[staying] = values
        return outputs


def answers(layers: Sequence[Layer], images: np.ndarray) -> list[np.ndarray]:
    """Return copies of the logits `(rows, classes)` of each exit, and of the end, for images
    `(rows, *shape)`.
    """
    found, values = [], images
    for layer in layers:
        if isinstance(layer, Exit):
            found.append(layer.answer(values, Step()).copy())
        values = layer.forward(values, Step())
    return [*found, values.copy()]


def work_until(layers: Sequence[Layer], shapes: Sequence[Shape]) -> list[int]:
    """Return the multiply-adds of an image that leaves at each exit, and at the end: those of the
    layers and heads that it has come through. shapes: of the layers' outputs.
    """
    found, total = [], 0
    for layer, shape in zip(layers, shapes, strict=True):
        total += layer.operations(shape)
        if isinstance(layer, Exit):
            found.append(total)
    return [*found, total]
