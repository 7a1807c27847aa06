"""Operations as nodes of an ONNX graph.

Operators of opset 17 (https://onnx.ai/onnx/operators), which runtimes since 2022 have.
"""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ensync.core.errors import EnsyncError
from ensync.nn.interchange.modules import ways
from ensync.nn.interchange.operations import (
    Activate,
    Add,
    Concatenate,
    Convolve,
    Drop,
    Flatten,
    Frame,
    GlobalMean,
    Linear,
    NormalizeBatch,
    NormalizeGroups,
    NormalizeResponse,
    Operation,
    Pool,
    Recur,
    Scale,
    Subsample,
    Tensor,
)

if TYPE_CHECKING:
    from onnx import NodeProto, TensorProto

OPSET, IR_VERSION = 17, 8  # which belong together
LAST = np.iinfo(np.int64).max  # the end of an axis


class Graph:
    """Nodes and constants as they are collected. A value is the name of a node's output."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, TensorProto] = {}
        self.bytes = 0  # of the constants

    def node(self, operator: str, *inputs: str, **attributes: object) -> str:
        """Append a node and return its output."""
        return self.output(f"{operator.lower()}_{len(self.nodes)}", operator, *inputs, **attributes)

    def output(self, name: str, operator: str, *inputs: str, **attributes: object) -> str:
        """Append a node whose output has this name, and return the name."""
        from onnx import helper

        outputs = [name, *[f"{name}_places"] * (operator == "TopK")]
        self.nodes.append(helper.make_node(operator, inputs, outputs, name=name, **attributes))
        return name

    def constant(self, name: str, values: np.ndarray) -> str:
        """Return the constant of a name, which is made where it is new; floats become float32."""
        from onnx import numpy_helper

        if name not in self.constants:
            kept = values.astype(np.float32) if values.dtype.kind == "f" else values
            self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(kept), name)
            self.bytes += kept.nbytes
        return name

    def number(self, value: float) -> str:
        """Return a float32 constant."""
        return self.constant(f"number_{value!r}", np.array(value, np.float64))

    def whole(self, *values: int) -> str:
        """Return an int64 vector."""
        return self.constant(f"whole_{'_'.join(map(str, values))}", np.array(values, np.int64))

    def operations(self, made: Sequence[Operation], value: str, prefix: str) -> str:
        """Append operations, whose constants have names that begin with `prefix`, and return what
        comes out of them.
        """
        for number, operation in enumerate(made):
            value = FORMS[type(operation)](self, operation, value, f"{prefix}{number}.")
        return value

    def ways(self, operation: Operation, value: str, prefix: str) -> list[str]:
        """Append the ways inside an operation on the same value."""
        inner = ways(operation)
        return [self.operations(made, value, f"{prefix}{name}.") for name, made in inner]

    def arrays(self, operation: Operation, prefix: str) -> list[str]:
        """Return the arrays of an operation, in the order of its fields."""
        tensors = operation.tensors.items()
        return [self.constant(prefix + name, tensor.read()) for name, tensor in tensors]


Form = Callable[[Graph, Any, str, str], str]


def _window(frame: Frame) -> dict[str, object]:
    return {
        "kernel_shape": list(frame.size),
        "strides": [frame.stride] * 2,
        "pads": [frame.top, frame.left, frame.bottom, frame.right],
    }


def _flatten(graph: Graph, of: Flatten, value: str, prefix: str) -> str:
    return graph.node("Flatten", graph.node("Transpose", value, perm=[0, 2, 3, 1]), axis=1)


def _linear(graph: Graph, of: Linear, value: str, prefix: str) -> str:
    return graph.node("Gemm", value, *graph.arrays(of, prefix), transB=1)


def _convolve(graph: Graph, of: Convolve, value: str, prefix: str) -> str:
    arrays = graph.arrays(of, prefix)
    return graph.node("Conv", value, *arrays, group=of.groups, **_window(of.frame))


def _pool(graph: Graph, of: Pool, value: str, prefix: str) -> str:
    return graph.node("MaxPool" if of.of_maxima else "AveragePool", value, **_window(of.frame))


def _global_mean(graph: Graph, of: GlobalMean, value: str, prefix: str) -> str:
    return graph.node("Flatten", graph.node("GlobalAveragePool", value), axis=1)


def _subsample(graph: Graph, of: Subsample, value: str, prefix: str) -> str:
    ends = [graph.whole(0, 0), graph.whole(LAST, LAST), graph.whole(2, 3)]
    taken = graph.node("Slice", value, *ends, graph.whole(of.stride, of.stride))
    behind = of.channels - of.given[-1]
    return graph.node("Pad", taken, graph.whole(0, 0, 0, 0, 0, behind, 0, 0))


def _normalize_batch(graph: Graph, of: NormalizeBatch, value: str, prefix: str) -> str:
    arrays = graph.arrays(of, prefix)
    return graph.node("BatchNormalization", value, *arrays, epsilon=of.epsilon)


def _normalize_groups(graph: Graph, of: NormalizeGroups, value: str, prefix: str) -> str:
    """As instance normalisation of groups in the place of channels, which runtimes have."""
    channels, groups = of.given[-1], of.groups
    gathered = graph.whole(0, groups, math.prod(of.given) // groups)
    one, none = np.ones(groups), np.zeros(groups)
    plain = graph.node(
        "InstanceNormalization",
        graph.node("Reshape", value, gathered),
        graph.constant(f"ones_{groups}", one),
        graph.constant(f"zeros_{groups}", none),
        epsilon=of.epsilon,
    )
    behind = of.given[:-1]
    restored = graph.node("Reshape", plain, graph.whole(0, channels, *behind))
    weight, bias = (
        graph.constant(prefix + name, tensor.read().reshape(channels, *[1] * len(behind)))
        for name, tensor in of.tensors.items()
    )
    return graph.node("Add", graph.node("Mul", restored, weight), bias)


def _normalize_response(graph: Graph, of: NormalizeResponse, value: str, prefix: str) -> str:
    of.check_groups("ONNX")
    if of.n % 2 == 0:
        raise EnsyncError(
            f"a local response normalisation over n = {of.n} channels, which ONNX has with one "
            "channel more on the other side",
            "an odd n",
            "export with --format safetensors, or train a network with an odd n",
        )
    channels = of.given[-1]
    image = len(of.given) == 3
    if not image:
        value = graph.node("Reshape", value, graph.whole(0, channels, 1, 1))
    # ONNX divides alpha by n
    settings = {"size": of.n, "alpha": of.alpha * of.n, "beta": of.beta, "bias": of.k}
    found = graph.node("LRN", value, **settings)
    return found if image else graph.node("Flatten", found, axis=1)


def _recur(graph: Graph, of: Recur, value: str, prefix: str) -> str:
    """ONNX has the gates in another order, and a first axis for the direction."""
    order = {"GRU": [1, 0, 2], "LSTM": [0, 3, 1, 2]}[of.kind]

    def reordered(tensor: Tensor) -> np.ndarray:
        gates = tensor.read().reshape(len(order), of.units, *tensor.shape[1:])
        return gates[order].reshape(1, *tensor.shape)

    biases = np.concatenate([reordered(of.bias_ih_l0), reordered(of.bias_hh_l0)], axis=1)
    arrays = [
        graph.constant(f"{prefix}weight_ih", reordered(of.weight_ih_l0)),
        graph.constant(f"{prefix}weight_hh", reordered(of.weight_hh_l0)),
        graph.constant(f"{prefix}bias", biases),
    ]
    rows = graph.node("Transpose", value, perm=[2, 0, 3, 1])
    sequence = graph.node("Reshape", rows, graph.whole(0, 0, -1))
    settings = {"linear_before_reset": 1} if of.kind == "GRU" else {}
    states = graph.node(of.kind, sequence, *arrays, hidden_size=of.units, **settings)
    if of.all_states:
        return graph.node("Transpose", states, perm=[2, 3, 0, 1])
    last = graph.node("Gather", states, graph.whole(-1), axis=0)
    return graph.node("Squeeze", last, graph.whole(0, 1))


def _scale(graph: Graph, of: Scale, value: str, prefix: str) -> str:
    return graph.node("Mul", value, graph.number(of.factor))


def _activate(graph: Graph, of: Activate, value: str, prefix: str) -> str:
    plain = {"relu": "Relu", "tanh": "Tanh", "logistic": "Sigmoid"}
    if of.name in plain:
        return graph.node(plain[of.name], value)
    if of.name == "softmax":
        return graph.node("Softmax", value, axis=1)
    # gelu: x (1 + erf(x / sqrt 2)) / 2
    error = graph.node("Erf", graph.node("Mul", value, graph.number(math.sqrt(0.5))))
    half = graph.node("Mul", value, graph.number(0.5))
    return graph.node("Mul", half, graph.node("Add", error, graph.number(1.0)))


def _drop(graph: Graph, of: Drop, value: str, prefix: str) -> str:
    return value


def _add(graph: Graph, of: Add, value: str, prefix: str) -> str:
    return graph.node("Add", *graph.ways(of, value, prefix))


def _concatenate(graph: Graph, of: Concatenate, value: str, prefix: str) -> str:
    return graph.node("Concat", *graph.ways(of, value, prefix), axis=1)


FORMS: dict[type[Operation], Form] = {
    Flatten: _flatten,
    Linear: _linear,
    Convolve: _convolve,
    Pool: _pool,
    GlobalMean: _global_mean,
    Subsample: _subsample,
    NormalizeBatch: _normalize_batch,
    NormalizeGroups: _normalize_groups,
    NormalizeResponse: _normalize_response,
    Recur: _recur,
    Scale: _scale,
    Activate: _activate,
    Drop: _drop,
    Add: _add,
    Concatenate: _concatenate,
}
