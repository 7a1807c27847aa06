"""Convolution of images (n, h, w, c), channels last, with filters (kh, kw, c / groups, k): one
entrance to four ways.

    outputs[i, y, x, o] = f(bias[o] + sum over ky, kx, c of inputs[i, y * stride + ky - top, x *
    stride + kx - left, c] * weights[ky, kx, c, o])

In bf16 all but groups of few channels go by matrix tiles where the processor has them. Else 1x1
filters at stride 1 are a matrix product, of bf16 numbers too, 3x3 filters at stride 1 with enough
channels (in each group) go by Winograd, all others directly. With groups, output channel o sees
only the c / groups input channels of its own group. Images, outputs and their gradients may be bf16
(uint16) where `Convolution.takes_bf16`; filters and biases are float32 then.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numba
import numpy as np
from numba import njit, prange

from ensync.kernels.convolution import direct, grouped, strided, tiled, tiled_gradient, winograd
from ensync.kernels.convolution.grouped import Groups
from ensync.kernels.dense import matmul
from ensync.kernels.elementwise.activations import (
    GELU,
    IDENTITY,
    RELU,
    activate,
    activation_gradient,
)
from ensync.kernels.elementwise.gelu import passed
from ensync.kernels.elementwise.normalization import CHUNK, floor_of
from ensync.kernels.flags import Flag
from ensync.kernels.options import KERNEL
from ensync.kernels.simd.host import AMX
from ensync.kernels.simd.intrinsics import lanes, pointer
from ensync.kernels.simd.memory import clear
from ensync.kernels.simd.operands import BF16
from ensync.kernels.simd.vectors import load, store

BLOCK = 256  # rows of one partial sum of a bias gradient
# Of a group's inputs and outputs, from which Winograd's transforms pay for themselves, and to lay
# out groups by themselves.
WIDE_CHANNELS = 16


def sums_size(rows: int, c: int) -> int:
    """Return the elements of scratch that `close_activation` needs for gradients of so many rows
    of c channels.
    """
    return -(-rows // BLOCK) * c


@dataclass(frozen=True)
class Convolution:
    """The sizes of a convolution: image (h, w, c), filter (kh, kw), outputs (oh, ow, k), stride,
    padding (top, left) and groups.

    bf16: None, or True for products of numbers rounded to bf16 where that is faster, with float32
    sums.
    """

    image: tuple[int, int, int]
    filter: tuple[int, int]
    outputs: tuple[int, int, int]
    stride: int = 1
    padding: tuple[int, int] = (0, 0)
    groups: int = 1
    bf16: bool | None = None

    @property
    def weights_shape(self) -> tuple[int, int, int, int]:
        """(kh, kw, c / groups, k)."""
        return (*self.filter, self.image[2] // self.groups, self.outputs[2])

    @property
    def is_tiled(self) -> bool:
        """Whether products are in bf16 by the processor's matrix tiles."""
        return bool(self.bf16) and AMX and (self.groups == 1 or self._has_wide_groups)

    @property
    def _has_wide_groups(self) -> bool:
        """Whether a group has channels enough to be laid out by itself."""
        return min(self.image[2], self.outputs[2]) // self.groups >= WIDE_CHANNELS

    @property
    def is_product(self) -> bool:
        """Whether every output pixel depends on one input pixel, the same one for all filters, and
        the three passes are those of a dense layer.
        """
        return (
            not self.is_tiled
            and self.filter == (1, 1)
            and self.stride == 1
            and self.groups == 1
            and self.padding == (0, 0)
        )

    @property
    def is_winograd(self) -> bool:
        """Whether Winograd's algorithm applies and is faster."""
        fits = self.filter == (3, 3) and self.stride == 1 and max(self.padding) <= 2
        fits = fits and not self.is_tiled
        return fits and self._has_wide_groups

    @property
    def is_grouped(self) -> bool:
        """Whether each group is convolved by itself."""
        return self.groups > 1 and (self.is_tiled or self.is_winograd)

    @cached_property
    def of_group(self) -> "Convolution":
        """The convolution of one group."""
        (h, w, c), (oh, ow, k), count = self.image, self.outputs, self.groups
        return replace(self, image=(h, w, c // count), outputs=(oh, ow, k // count), groups=1)

    @property
    def all_groups(self) -> Groups:
        """The sizes of all groups."""
        (h, w, c), (oh, ow, k), count = self.image, self.outputs, self.groups
        return Groups(count, self.filter, c // count, k // count, h * w, oh * ow)

    @property
    def winograd_bf16(self) -> bool | None:
        """Whether Winograd's products are in bf16, which wants whole vectors of channels."""
        return (
            self.bf16
            if all(
                channels // self.groups % 16 == 0 for channels in (self.image[2], self.outputs[2])
            )
            else None
        )

    @property
    def direct_bf16(self) -> Flag | None:
        """The flag of a direct convolution's products: in bf16 where a sum has neighbours. On
        processors with matrix tiles vectors of bf16 are slower than those of float32.
        """
        has_pairs = self.groups == 1 or min(self.image[2], self.outputs[2]) > self.groups
        return BF16 if self.bf16 and has_pairs and not AMX else None

    def pixels_together(self, itemsize: int) -> int:
        """How many neighbouring outputs a direct convolution computes as one."""
        return direct.pixels_together(
            self.outputs, self.filter[1], self.stride, self.groups, itemsize
        )

    @property
    def takes_bf16(self) -> bool:
        """Whether the arrays of images may be bf16."""
        by_vectors = self.is_product or (self.is_winograd and self.winograd_bf16)
        return self.is_tiled or bool(self.bf16 and by_vectors)

    def scratch_size(self, rows: int, dtype: np.dtype) -> int:
        """Elements of the scratch that the kernels below need for up to `rows` images, on up to
        all threads of this process.
        """
        itemsize, pixels = np.dtype(dtype).itemsize, self.outputs[0] * self.outputs[1]
        sums = sums_size(rows * pixels, self.outputs[2])
        if self.is_grouped:
            laid_out = self.all_groups.scratch_size(rows)
            return max(sums, laid_out + self.of_group.scratch_size(rows, dtype))
        if self.is_product:
            return max(
                sums, matmul.packing_size(rows * pixels, self.image[2], self.outputs[2], self.bf16)
            )
        threads = numba.config.NUMBA_NUM_THREADS
        spread = (
            sum(strided.sizes(self.image, self.weights_shape, self.stride, rows))
            if self.stride > 1
            else 0
        )
        if self.is_tiled:
            form = self.image, self.filter, self.outputs, self.stride, self.padding
            gradient = tiled_gradient.scratch_size(*form, rows)
            return max(sums, spread + tiled.scratch_size(*form), gradient)
        if self.is_winograd:
            arrays = (rows, *self.image), (rows, *self.outputs)
            return max(sums, winograd.scratch_size(*arrays, threads, itemsize))
        packed = direct.packed_size(self.weights_shape, self.groups, itemsize)
        weights = direct.sums_size(self.weights_shape, self.groups, itemsize)
        form = self.stride, self.pixels_together(itemsize)
        frame = direct.frame_size(self.image, self.filter, self.outputs, form, self.direct_bf16)
        return max(sums, spread + max(packed, weights) + threads * frame)


def forward(
    form: Convolution,
    inputs: np.ndarray,
    weights: np.ndarray,
    bias: np.ndarray,
    code: int,
    scratch: np.ndarray,
    outputs: np.ndarray,
) -> None:
    """Write f(convolution + bias), f the activation `code`, of inputs (n, h, w, c) to outputs (n,
    oh, ow, k).

    weights (kh, kw, c / groups, k), bias (k), scratch of form.scratch_size(n, dtype) elements;
    C-contiguous, of one type (but see above). n may be 0.
    """
    floor = weights.dtype.type(0 if code == RELU else -np.inf)
    if len(inputs) == 0:
        return
    if form.is_grouped:
        grouped.convolve(
            form.all_groups,
            lambda x, filters, some, rest, y: forward(
                form.of_group, x, filters, some, code, rest, y
            ),
            inputs,
            weights,
            bias,
            False,
            scratch,
            outputs,
        )
        return
    if form.is_product:
        c, k = weights.shape[2:]
        matmul.dense_forward(
            inputs.reshape(-1, c),
            weights[0, 0],
            bias,
            code,
            outputs.reshape(-1, k),
            scratch,
            form.bf16,
        )
        return
    if form.is_tiled:
        tiled.convolve(
            inputs, weights, bias, form.stride, form.padding, floor, False, scratch, outputs
        )
    elif form.is_winograd:
        winograd.convolve(
            inputs,
            weights,
            bias,
            form.padding,
            floor,
            False,
            scratch,
            outputs,
            form.winograd_bf16,
        )
    else:
        together = form.pixels_together(weights.itemsize)
        direct.pack_filters(weights, form.groups, together, False, scratch, form.direct_bf16)
        filters = direct.packed_size(form.weights_shape, form.groups, weights.itemsize)
        direct.correlate(
            inputs,
            filters,
            form.filter,
            direct.repeated(bias, together),
            (form.stride, form.padding, form.groups, together),
            floor,
            scratch,
            outputs,
            form.direct_bf16,
        )
    if code not in (IDENTITY, RELU):
        activate(code, outputs.reshape(len(outputs), -1))


def input_gradient(
    form: Convolution,
    gradient: np.ndarray,
    weights: np.ndarray,
    zero_bias: np.ndarray,
    scratch: np.ndarray,
    out: np.ndarray,
) -> None:
    """Write the gradient of the inputs to out (n, h, w, c), given that of the outputs without
    activation (n, oh, ow, k).

    zero_bias: (c) zeros. The scratch is used anew.
    """
    if len(gradient) == 0:
        return
    if form.is_grouped:
        grouped.convolve(
            form.all_groups,
            lambda g, filters, zeros, rest, x: input_gradient(
                form.of_group, g, filters, zeros, rest, x
            ),
            gradient,
            weights,
            zero_bias,
            True,
            scratch,
            out,
        )
        return
    if form.is_product:
        c, k = weights.shape[2:]
        matmul.dense_input_gradient(
            gradient.reshape(-1, k), weights[0, 0], out.reshape(-1, c), scratch, form.bf16
        )
        return
    padding = (form.filter[0] - 1 - form.padding[0], form.filter[1] - 1 - form.padding[1])
    floor = weights.dtype.type(-np.inf)
    if form.is_winograd:
        winograd.convolve(
            gradient,
            weights,
            zero_bias,
            padding,
            floor,
            True,
            scratch,
            out,
            form.winograd_bf16,
        )
        return

    def convolve(
        slope: np.ndarray,
        filters: np.ndarray,
        border: tuple[int, int],
        rest: np.ndarray,
        result: np.ndarray,
    ) -> None:
        if form.is_tiled:
            tiled.convolve(slope, filters, zero_bias, 1, border, floor, True, rest, result)
            return
        taps, itemsize = filters.shape[:2], filters.itemsize
        together = direct.pixels_together(result.shape, taps[1], 1, form.groups, itemsize)
        direct.pack_filters(filters, form.groups, together, True, rest, form.direct_bf16)
        packed = direct.packed_size(filters.shape, form.groups, itemsize)
        direct.correlate(
            slope,
            packed,
            taps,
            direct.repeated(zero_bias, together),
            (1, border, form.groups, together),
            floor,
            rest,
            result,
            form.direct_bf16,
        )

    if form.stride > 1:
        strided.input_gradient(gradient, weights, form.stride, padding, convolve, scratch, out)
    else:
        convolve(gradient, weights, padding, scratch, out)


def weight_gradient(
    form: Convolution,
    inputs: np.ndarray,
    gradient: np.ndarray,
    scratch: np.ndarray,
    weights_gradient: np.ndarray,
    bias_gradient: np.ndarray,
) -> None:
    """Write the gradients of the weights (kh, kw, c / groups, k) and, for 1x1 filters too, of the
    bias (k), given the outputs' (n, oh, ow, k).

    The bias gradient of other filters is written by `close_activation`, in the same pass as the
    activation's slope.
    """
    if len(inputs) == 0:
        weights_gradient[:] = 0
    elif form.is_grouped:
        grouped.weight_gradient(
            form.all_groups,
            lambda x, g, rest, slope: weight_gradient(
                form.of_group, x, g, rest, slope, bias_gradient
            ),
            inputs,
            gradient,
            scratch,
            weights_gradient,
        )
    elif form.is_tiled:
        tiled_gradient.filter_gradient(
            inputs,
            gradient,
            form.stride,
            form.padding,
            scratch,
            weights_gradient,
        )
    elif form.is_product:
        c, k = weights_gradient.shape[2:]
        matmul.dense_weight_gradient(
            inputs.reshape(-1, c),
            gradient.reshape(-1, k),
            weights_gradient[0, 0],
            bias_gradient,
            scratch,
            form.bf16,
        )
    elif form.is_winograd:
        winograd.weight_gradient(
            inputs, gradient, form.padding, scratch, weights_gradient, form.winograd_bf16
        )
    else:
        direct.filter_gradient(
            inputs,
            gradient,
            (form.stride, form.padding, form.groups, form.pixels_together(inputs.itemsize)),
            scratch,
            weights_gradient,
            form.direct_bf16,
        )


@njit(parallel=True, **KERNEL)
def _close(kept, gradient, activated, floor, partial, bias_gradient):
    c = bias_gradient.size
    rows = gradient.size // c
    count = (rows + BLOCK - 1) // BLOCK
    for block in prange(count):
        g_at, y_at, sums, end = (
            pointer(gradient, 0),
            pointer(kept, 0),
            pointer(partial, block * c),
            min(rows, (block + 1) * BLOCK),
        )
        full = lanes(gradient)
        clear(sums, c)
        for first in range(block * BLOCK, end, CHUNK):
            for j in range(0, c, full):
                lane_count = min(full, c - j)
                total = load(sums, j, lane_count)
                for at in range(first * c + j, min(end, first + CHUNK) * c, c):
                    g = load(g_at, at, lane_count)
                    if activated:
                        g = passed(load(y_at, at, lane_count), g, floor)
                        store(g_at, at, g, lane_count)
                    total = total + g
                store(sums, j, total, lane_count)
    bias_gradient[:] = 0
    for block in range(count):
        for j in range(c):
            bias_gradient[j] += partial[block * c + j]


def close_activation(
    code: int,
    kept: np.ndarray,
    gradient: np.ndarray,
    scratch: np.ndarray,
    bias_gradient: np.ndarray,
) -> None:
    """Multiply gradient by f'(.), in place, and write its sums to bias_gradient (k).

    kept: what `activation_gradient` takes; both (n, oh, ow, k).
    """
    if code not in (IDENTITY, RELU, GELU):
        activation_gradient(
            code, kept.reshape(-1, kept.shape[-1]), gradient.reshape(-1, gradient.shape[-1])
        )
    floor = floor_of(RELU if code != GELU else GELU, bias_gradient.dtype)
    _close(kept, gradient, code in (RELU, GELU), floor, scratch, bias_gradient)
