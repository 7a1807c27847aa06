"""A classifier in two levels: which group of classes, and which class of the group."""

from collections.abc import Sequence

import numpy as np

from ensync.core.errors import EnsyncError
from ensync.nn.layers.base import Layer, Shape, Step
from ensync.nn.layers.composite import Composite
from ensync.nn.memory import Workspace, empty
from ensync.nn.sequential import Sequential


class CoarseToFine(Composite):
    """outputs = the logarithms of the classes' probabilities, p(j) = sum over groups k with class j
    of B(k) F_k(j), B the softmax of a coarse head and F_k that of group k's own head (HD-CNN, Yan
    et al. 2015, equation 2).

    coarse: layers with an output for each group; fine: of each group, with one for each of its
    classes. groups: the classes of each; a class may be in several.
    """

    def __init__(
        self,
        coarse: Sequence[Layer],
        fine: Sequence[Sequence[Layer]],
        groups: Sequence[Sequence[int]],
    ) -> None:
        self.layers = [Sequential(coarse), *map(Sequential, fine)]
        self.groups = [np.array(group, np.int64) for group in groups]

    def build(self, shape: Shape) -> Shape:
        self.image, self.shapes = shape, [layer.build(shape) for layer in self.layers]
        self.declare()
        classes = np.unique(np.concatenate(self.groups))
        if not np.array_equal(classes, np.arange(len(classes))):
            raise EnsyncError(
                f"groups of the classes {', '.join(map(str, classes))}",
                f"every class from 0 to {classes[-1]} in a group",
                "add those that are missing",
            )
        self.classes = len(classes)
        return (self.classes,)

    def allocate(self, rows: int, dtype: np.dtype, workspace: Workspace, first: bool) -> None:
        for layer in self.layers:
            layer.allocate(rows, dtype, workspace, first)
        self.outputs = empty((rows, self.classes), dtype)
        self.inputs_gradient = None if first else empty((rows, *self.image), dtype)

    def forward(self, inputs: np.ndarray, step: Step) -> np.ndarray:
        self.logs = [_log_softmax(layer.forward(inputs, step)) for layer in self.layers]
        coarse, *fine = self.logs
        outputs = self.outputs[: len(inputs)]
        outputs[...] = -np.inf
        self.joint = []  # log B(k) F_k(j) of each group
        for number, (group, own) in enumerate(zip(self.groups, fine, strict=True)):
            self.joint.append(own + coarse[:, number : number + 1])
            outputs[:, group] = np.logaddexp(outputs[:, group], self.joint[-1])
        return outputs

    def backward(self, gradient: np.ndarray, step: Step) -> np.ndarray | None:
        rows, (coarse, *fine) = len(gradient), self.logs
        outputs, to_coarse = self.outputs[:rows], np.empty_like(coarse)
        slopes = [to_coarse]
        for number, (group, own, joint) in enumerate(
            zip(self.groups, fine, self.joint, strict=True)
        ):
            slope = gradient[:, group] * np.exp(joint - outputs[:, group])
            to_coarse[:, number] = slope.sum(axis=1)
            slopes.append(_through_softmax(own, slope))
        slopes[0] = _through_softmax(coarse, to_coarse)
        out = None if self.inputs_gradient is None else self.inputs_gradient[:rows]
        for number, (layer, slope) in enumerate(zip(self.layers, slopes, strict=True)):
            inner = layer.backward(slope, step)
            if out is not None:
                np.add(out, inner, out=out) if number else np.copyto(out, inner)
        return out

    def describe(self) -> str:
        return f"{len(self.groups)} groups of classes"

    def inside(self) -> list[tuple[str, Layer, Shape]]:
        names = ["coarse: ", *(f"classes {', '.join(map(str, group))}: " for group in self.groups)]
        found = super().inside()
        return [(name, layer, shape) for name, (_, layer, shape) in zip(names, found, strict=True)]


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    """Return the logarithms of the softmax of each row."""
    shifted = logits - logits.max(axis=1, keepdims=True, initial=-np.inf)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def _through_softmax(logs: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """Return the gradient of the logits, given that of the logarithms of their softmax."""
    return np.ascontiguousarray(slope - np.exp(logs) * slope.sum(axis=1, keepdims=True))
