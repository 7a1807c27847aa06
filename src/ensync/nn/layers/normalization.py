"""Batch normalisation."""

from collections.abc import Callable
from typing import TypedDict

import numpy as np

from ensync.kernels.elementwise import normalization
from ensync.kernels.elementwise.activations import ACTIVATIONS, IDENTITY, RELU
from ensync.nn.layers.base import Layer, Parameter, Shape, Step
from ensync.nn.memory import Workspace, empty, zeros


class Options(TypedDict, total=False):
    """Settings of a batch normalisation other than its activation."""

    momentum: float
    epsilon: float
    unbiased: bool
    scale: bool


class BatchNormalization(Layer):
    """outputs = activation(gamma * (inputs - mean) / sqrt(variance + epsilon) + beta), per channel
    (Ioffe and Szegedy 2015).

    While training, mean and variance are the batch's: of this rank, or of all ranks where the step
    has an `allreduce`; then every rank has to run forward and backward, an empty local batch too.
    Otherwise they are the moving ones. momentum: of the moving statistics, Keras' meaning;
    unbiased: whether the moving variance is divided by count - 1, as PyTorch does. scale: whether
    there is a gamma; without it, it is 1.
    """

    reads_bf16 = writes_bf16 = True
    may_keep_gradient = True

    def __init__(
        self,
        activation: str = "identity",
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        unbiased: bool = False,
        scale: bool = True,
    ) -> None:
        self.scale = scale
        self.activation, self.code = activation, ACTIVATIONS[activation]
        self.momentum, self.epsilon, self.unbiased = momentum, epsilon, unbiased

    def build(self, shape: Shape) -> Shape:
        self.shape, c = shape, shape[-1]
        gamma, beta = Parameter("gamma", (c,), start="ones"), Parameter("beta", (c,), start="zeros")
        self.parameters = (*[gamma] * self.scale, beta)
        self.statistics = (
            Parameter("moving_mean", (c,), start="zeros"),
            Parameter("moving_variance", (c,), start="ones"),
        )
        return shape

    def bind(self, values: dict[str, np.ndarray], gradients: dict[str, np.ndarray]) -> None:
        self.beta, self.moving_mean, self.moving_variance = (
            values[name] for name in ("beta", "moving_mean", "moving_variance")
        )
        one, nowhere = np.ones_like(self.beta), np.zeros_like(self.beta)
        self.gamma, self.beta_gradient = values.get("gamma", one), gradients["beta"]
        self.gamma_gradient = gradients.get("gamma", nowhere)

    def allocate(self, rows: int, dtype: np.dtype, workspace: Workspace, first: bool) -> None:
        self.workspace = workspace
        given, kept = self.stored(dtype)
        self.outputs = empty((rows, *self.shape), kept)
        self.inputs_gradient = (
            empty((rows, *self.shape), given) if self.keep_gradient or given != kept else None
        )
        c = self.shape[-1]
        self.affine, self.spare = (
            zeros((3, c), dtype),
            np.zeros(c, dtype),
        )  # center, scale and shift
        self.no_skip, self.coefficients = np.zeros((0, c), dtype), np.zeros((2, c), dtype)
        self.mean, self.variance, self.sums = np.zeros(c), np.zeros(c), np.zeros((2, c))
        self.reduced = np.zeros(2 * c + 1)
        workspace.reserve(normalization.blocks(rows * int(np.prod(self.shape[:-1]))) * 3 * c, dtype)

    @property
    def relu(self) -> bool:
        """Whether a ReLU follows."""
        return self.code == RELU

    @property
    def fuses_addition(self) -> bool:  # type: ignore[override]
        """Where no activation comes before the addition."""
        return self.code == IDENTITY

    def forward(self, inputs: np.ndarray, step: Step) -> np.ndarray:
        return self._forward(inputs, self.no_skip, self.code, step)

    def forward_add(
        self, inputs: np.ndarray, added: np.ndarray, relu: bool, step: Step, out: np.ndarray
    ) -> np.ndarray:
        if not self.fuses_addition:
            return super().forward_add(inputs, added, relu, step, out)
        code = RELU if relu else IDENTITY
        return self._forward(inputs, added.reshape(-1, self.shape[-1]), code, step)

    def _forward(self, inputs: np.ndarray, added: np.ndarray, code: int, step: Step) -> np.ndarray:
        c = self.shape[-1]
        self.values, current = inputs.reshape(-1, c), self.outputs[: len(inputs)]
        if step.training:
            normalization.channel_sums(self.values, self._partial(), self.sums)
        self.use_sums(len(self.values), step)
        normalization.normalize(self.values, self.affine, added, code, current.reshape(-1, c))
        return current

    def backward(self, gradient: np.ndarray, step: Step) -> np.ndarray | None:
        c, out = (
            self.shape[-1],
            gradient if self.inputs_gradient is None else self.inputs_gradient[: len(gradient)],
        )
        given = gradient.reshape(-1, c)
        normalization.channel_gradient_sums(
            given, self.values, self.affine, self.code, self._partial(), self.sums
        )
        self.use_gradient_sums(step)
        normalization.normalize_backward(
            given, self.values, self.affine, self.code, self.coefficients, out.reshape(-1, c)
        )
        return out

    def _partial(self) -> np.ndarray:
        blocks, c = normalization.blocks(len(self.values)), self.shape[-1]
        return self.workspace.of(self.affine.dtype)[: blocks * 3 * c].reshape(blocks, 3, c)

    def use_sums(self, rows: int, step: Step) -> None:
        """Set center, scale and shift: while training from `sums` over so many local rows, which
        also update the moving statistics, otherwise from the moving statistics.
        """
        if step.training:
            self._use_batch(self._sums_over_ranks(rows, step), step)
            return
        self.mean[:], self.variance[:] = self.moving_mean, self.moving_variance
        self.affine[:] = (
            self.moving_mean,
            self.gamma / np.sqrt(self.variance + self.epsilon),
            self.beta,
        )

    def use_gradient_sums(self, step: Step) -> None:
        """Set the parameters' gradients from this rank's gradient `sums`, and the coefficients from
        those of all.

        They add up because `allreduce` gives all ranks the same bits, and with them the same
        center.
        """
        self._gradients(self.count, self.gamma_gradient, self.beta_gradient)
        if step.allreduce is not None:
            self._over_ranks(0, step.allreduce)
            self._gradients(self.count, self.spare, self.spare)

    def _sums_over_ranks(self, count: int, step: Step) -> int:
        """Make `sums` over `count` local rows those over the rows of all ranks, where the step
        is synchronised, and return the number of these.
        """
        if step.allreduce is None:
            return count
        self.sums[:] = normalization.about_zero(self.sums, count)
        count = self._over_ranks(count, step.allreduce)
        self.sums[:] = normalization.about_mean(self.sums, count)
        return count

    def _over_ranks(self, count: int, allreduce: Callable[[np.ndarray], None]) -> int:
        """Add the sums and the count over the ranks."""
        self.reduced[:-1], self.reduced[-1] = self.sums.ravel(), count
        allreduce(self.reduced)
        self.sums[:] = self.reduced[:-1].reshape(self.sums.shape)
        return int(self.reduced[-1])

    def _use_batch(self, count: int, step: Step) -> None:
        """Normalise by the batch's statistics and let the moving ones follow."""
        self.count = max(1, count)
        normalization.batch_coefficients(
            self.sums,
            self.count,
            self.gamma,
            self.beta,
            self.epsilon,
            self.affine,
            self.mean,
            self.variance,
        )
        if count:
            correction = count / max(1, count - 1) if self.unbiased else 1.0
            share = 1 - self.momentum if step.share is None else step.share
            self.moving_mean += share * (self.mean - self.moving_mean)
            self.moving_variance += share * (correction * self.variance - self.moving_variance)

    def _gradients(self, count: int, gamma_gradient: np.ndarray, beta_gradient: np.ndarray) -> None:
        normalization.gradient_coefficients(
            self.sums,
            count,
            self.epsilon,
            self.mean,
            self.variance,
            self.affine,
            gamma_gradient,
            beta_gradient,
            self.coefficients,
        )

    def operations(self, shape: Shape) -> int:
        return int(np.prod(shape))

    def describe(self) -> str:
        return "Batch normalization" + f", {self.activation}" * bool(self.code)
