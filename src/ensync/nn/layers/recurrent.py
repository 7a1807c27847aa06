"""Recurrent layers over the rows of an image: a state goes from row to row, from the top down.

The rows are the steps of a sequence, and a row's pixels and channels its features. Gates lie side
by side in the columns of the weights, in PyTorch's order (torch.nn.GRU and LSTM), and as there the
sums over features and over the state have a bias each. The first state is zero.
"""

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np

from ensync.kernels.dense import matmul
from ensync.kernels.elementwise.activations import IDENTITY
from ensync.nn.layers.base import Layer, Parameter, Shape, Step, Views, started
from ensync.nn.layers.images import image
from ensync.nn.memory import Workspace, empty


@dataclass(frozen=True)
class Trace:
    """What a pass keeps, `(steps, rows, values)`.

    sequence: the features. gates: their activated sums. states: one more than steps, the first one
    zero. memory: as many, what a kind keeps besides. slopes, state_slopes: the gradients of the
    sums over features and over states.
    """

    sequence: np.ndarray
    gates: np.ndarray
    states: np.ndarray
    memory: np.ndarray
    slopes: np.ndarray
    state_slopes: np.ndarray

    def of_rows(self, rows: int) -> "Trace":
        """Return the front of each array, for fewer rows."""
        return Trace(*(_front(array, rows) for array in vars(self).values()))


def _front(array: np.ndarray, rows: int) -> np.ndarray:
    steps, _, values = array.shape
    return array.reshape(-1)[: steps * rows * values].reshape(steps, rows, values)


def _flat(array: np.ndarray) -> np.ndarray:
    """Return an array `(steps, rows, values)` as `(steps * rows, values)`."""
    return array.reshape(array.shape[0] * array.shape[1], array.shape[2])


def _logistic(values: np.ndarray) -> None:
    """Replace x by 1 / (1 + exp(-x)) = (1 + tanh(x / 2)) / 2, which no x overflows."""
    values *= 0.5
    np.tanh(values, out=values)
    values += 1.0
    values *= 0.5


class Recurrent(Layer):
    """A layer with `weights` of features `(features, gates * units)` and `state_weights` `(units,
    gates * units)`, and the biases `bias` and `state_bias` of both.

    outputs = the state behind the last row, `(units,)`; with all_states that behind each row, as an
    image one pixel wide, `(height, 1, units)`.
    """

    name: str
    gates: int
    has_one_slope = False  # whether the gradients of both sums are the same

    def __init__(
        self, units: int, all_states: bool = False, initializer: str | None = None
    ) -> None:
        self.units, self.all_states, self.initializer = units, all_states, initializer

    def build(self, shape: Shape) -> Shape:
        height, width, channels = self.image = image(shape, self)
        self.steps, self.features, self.columns = height, width * channels, self.gates * self.units
        parameters = []
        for before, inputs in (("", self.features), ("state_", self.units)):
            fans = inputs, self.columns
            weights = Parameter(f"{before}weights", (inputs, self.columns), *fans, before="tanh")
            parameters += [weights, Parameter(f"{before}bias", (self.columns,), *fans, "bias")]
        weights, bias, state_weights, state_bias = parameters
        ordered = [weights, state_weights, bias, state_bias]  # PyTorch's order
        self.parameters = started(ordered, self.initializer)
        return (height, 1, self.units) if self.all_states else (self.units,)

    def bind(self, values: Views, gradients: Views) -> None:
        self.weights, self.bias = values["weights"], values["bias"]
        self.state_weights, self.state_bias = values["state_weights"], values["state_bias"]
        self.gradients = gradients

    def allocate(self, rows: int, dtype: np.dtype, workspace: Workspace, first: bool) -> None:
        steps, units, columns, self.workspace = self.steps, self.units, self.columns, workspace
        slopes = empty((steps, rows, columns), dtype)
        self.buffers = Trace(
            empty((steps, rows, self.features), dtype),
            empty((steps, rows, columns), dtype),
            empty((steps + 1, rows, units), dtype),
            empty((steps + 1, rows, units), dtype),
            slopes,
            slopes if self.has_one_slope else empty((steps, rows, columns), dtype),
        )
        self.sums = empty((rows, columns), dtype)
        self.slope, self.back, self.carried = (empty((rows, units), dtype) for _ in range(3))
        self.outputs = empty((rows if self.all_states else 0, steps, 1, units), dtype)
        self.inputs_gradient = None if first else empty((rows, *self.image), dtype)
        for inputs in (self.features, units):
            workspace.reserve(matmul.packing_size(steps * rows, inputs, columns), dtype)
            workspace.reserve(matmul.packing_size(rows, inputs, columns), dtype)

    def forward(self, inputs: np.ndarray, step: Step) -> np.ndarray:
        rows, scratch = len(inputs), self.workspace.of(self.weights.dtype)
        self.trace = trace = self.buffers.of_rows(rows)
        trace.sequence[...] = self._by_rows(inputs).swapaxes(0, 1)
        trace.states[0], trace.memory[0] = 0, 0
        sequence, gates, sums = _flat(trace.sequence), _flat(trace.gates), self.sums[:rows]
        matmul.dense_forward(sequence, self.weights, self.bias, IDENTITY, gates, scratch)
        for at in range(self.steps):
            matmul.dense_forward(
                trace.states[at], self.state_weights, self.state_bias, IDENTITY, sums, scratch
            )
            self.advance(at, sums)
        last: np.ndarray = trace.states[-1]
        if not self.all_states:
            return last
        outputs = self.outputs[:rows]
        outputs[:, :, 0] = trace.states[1:].swapaxes(0, 1)
        return outputs

    def backward(self, gradient: np.ndarray, step: Step) -> np.ndarray | None:
        rows, trace = len(gradient), self.trace
        scratch, given = self.workspace.of(self.weights.dtype), self.gradients
        slope, back, carried = (a[:rows] for a in (self.slope, self.back, self.carried))
        slope[...], carried[...] = 0 if self.all_states else gradient, 0
        for at in reversed(range(self.steps)):
            if self.all_states:
                slope += gradient[:, at, 0]
            self.retreat(at, slope, carried)
            matmul.dense_input_gradient(trace.state_slopes[at], self.state_weights, back, scratch)
            slope += back
        sequence, slopes = _flat(trace.sequence), _flat(trace.slopes)
        matmul.dense_weight_gradient(sequence, slopes, given["weights"], given["bias"], scratch)
        states, slopes_of = _flat(trace.states[:-1]), _flat(trace.state_slopes)
        own = given["state_weights"], given["state_bias"]
        matmul.dense_weight_gradient(states, slopes_of, *own, scratch)
        if self.inputs_gradient is None:
            return None
        out = self.inputs_gradient[:rows]
        matmul.dense_input_gradient(slopes, self.weights, sequence, scratch)
        self._by_rows(out)[...] = trace.sequence.swapaxes(0, 1)
        return out

    def _by_rows(self, images: np.ndarray) -> np.ndarray:
        """Return images `(rows, height, width, channels)` as `(rows, steps, features)`."""
        return images.reshape(len(images), self.steps, self.features)

    @abstractmethod
    def advance(self, at: int, sums: np.ndarray) -> None:
        """Write the gates and the state behind step `at`, given the sums over the state before it,
        `(rows, gates * units)`.
        """

    @abstractmethod
    def retreat(self, at: int, slope: np.ndarray, carried: np.ndarray) -> None:
        """Write the slopes of step `at`, given the gradient of the state behind it, `(rows,
        units)`; leave in its place what of it reaches the state before without the weights.

        carried: of the same shape, a kind's own, from the step behind to the one before; first 0.
        """

    def operations(self, shape: Shape) -> int:
        return self.steps * self.columns * (self.features + self.units)

    def describe(self) -> str:
        return f"{self.name} {self.units}" + ", all states" * self.all_states


class GRU(Recurrent):
    """Gated recurrent units (Cho et al. 2014), as PyTorch and cuDNN compute them:

        r = logistic(x W_r + b_r + h U_r + c_r)
        z = logistic(x W_z + b_z + h U_z + c_z)
        n = tanh(x W_n + b_n + r (h U_n + c_n))
        h' = (1 - z) n + z h

    with the gates in the order r, z, n. memory: h U_n + c_n of each step.
    """

    name, gates = "GRU", 3

    def advance(self, at: int, sums: np.ndarray) -> None:
        trace, units = self.trace, self.units
        reset, update, candidate = np.split(trace.gates[at], 3, axis=1)
        both, after = trace.gates[at, :, : 2 * units], trace.states[at + 1]
        both += sums[:, : 2 * units]
        _logistic(both)
        trace.memory[at] = sums[:, 2 * units :]
        candidate += reset * trace.memory[at]
        np.tanh(candidate, out=candidate)
        np.subtract(trace.states[at], candidate, out=after)
        after *= update
        after += candidate

    def retreat(self, at: int, slope: np.ndarray, carried: np.ndarray) -> None:
        trace, units = self.trace, self.units
        reset, update, candidate = np.split(trace.gates[at], 3, axis=1)
        slopes, state_slopes = trace.slopes[at], trace.state_slopes[at]
        of_candidate = slope * (1 - update) * (1 - candidate * candidate)
        slopes[:, :units] = of_candidate * trace.memory[at] * reset * (1 - reset)
        slopes[:, units : 2 * units] = (
            slope * (trace.states[at] - candidate) * update * (1 - update)
        )
        slopes[:, 2 * units :] = of_candidate
        state_slopes[...] = slopes
        state_slopes[:, 2 * units :] *= reset
        slope *= update


class LSTM(Recurrent):
    """Long short-term memory (Hochreiter and Schmidhuber 1997; with a forget gate, Gers et al.
    2000):

        i, f, o = logistic(x W + b + h U + c), of each gate its own
        g = tanh(x W_g + b_g + h U_g + c_g)
        m' = f m + i g
        h' = o tanh(m')

    with the gates in the order i, f, g, o. memory: the cells m. carried: the gradient of m'.
    """

    name, gates, has_one_slope = "LSTM", 4, True

    def advance(self, at: int, sums: np.ndarray) -> None:
        trace, units = self.trace, self.units
        trace.gates[at] += sums
        taken, kept, candidate, shown = np.split(trace.gates[at], 4, axis=1)
        _logistic(trace.gates[at, :, : 2 * units])
        np.tanh(candidate, out=candidate)
        _logistic(shown)
        cell = trace.memory[at + 1]
        np.multiply(kept, trace.memory[at], out=cell)
        cell += taken * candidate
        np.multiply(shown, np.tanh(cell), out=trace.states[at + 1])

    def retreat(self, at: int, slope: np.ndarray, carried: np.ndarray) -> None:
        trace = self.trace
        taken, kept, candidate, shown = np.split(trace.gates[at], 4, axis=1)
        cell = np.tanh(trace.memory[at + 1])
        carried += slope * shown * (1 - cell * cell)
        of_taken, of_kept, of_candidate, of_shown = np.split(trace.slopes[at], 4, axis=1)
        of_taken[...] = carried * candidate * taken * (1 - taken)
        of_kept[...] = carried * trace.memory[at] * kept * (1 - kept)
        of_candidate[...] = carried * taken * (1 - candidate * candidate)
        of_shown[...] = slope * cell * shown * (1 - shown)
        carried *= kept
        slope[...] = 0
