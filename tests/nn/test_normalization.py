"""Batch normalisation of values far from 0 and close together: the errors of float32 are at most
three times PyTorch's, from its float64.
"""

import numpy as np
import pytest

from ensync.nn.layers.base import Step
from ensync.nn.layers.normalization import BatchNormalization
from ensync.nn.layers.separable import SeparableBlock
from ensync.nn.memory import Workspace

FACTOR, ROUNDING = 3, 2e-6  # of PyTorch's errors; and where these are smaller than a few roundings


def case(ratio, slope, rows=40, side=7, c=35):
    """Values whose channels have means of +-ratio standard deviations, gradients of this mean,
    gamma and beta.
    """
    random = np.random.default_rng(int(ratio))
    values = random.standard_normal((rows, side, side, c)) + ratio * np.where(
        np.arange(c) % 2, 1, -1
    )
    return [
        x.astype(np.float32)
        for x in (
            values,
            random.standard_normal(values.shape) + slope,
            random.random(c) + 0.5,
            random.standard_normal(c),
        )
    ]


def layer_of(gamma, beta, shape, activation):
    layer, c = BatchNormalization(activation, 0.9, 1e-5, True), len(gamma)
    layer.build(shape[1:])
    values = {
        "gamma": gamma,
        "beta": beta,
        "moving_mean": np.zeros(c, np.float32),
        "moving_variance": np.ones(c, np.float32),
    }
    layer.bind(values, {name: np.empty(c, np.float32) for name in ("gamma", "beta")})
    layer.allocate(shape[0], np.dtype(np.float32), Workspace(), False)
    return layer


def ours(values, gradient, gamma, beta, activation, ends):
    """What ranks with the rows up to each of `ends` make of them: a first round tells what they
    send, a second gets the sums.
    """
    parts = [slice(start, end) for start, end in zip((0, *ends[:-1]), ends, strict=True)]
    layers = [layer_of(gamma, beta, values.shape, activation) for _ in parts]

    def meet(compute):
        sent = []
        for layer, part in zip(layers, parts, strict=True):
            kept = layer.moving_mean.copy(), layer.moving_variance.copy(), layer.sums.copy()
            compute(
                layer,
                part,
                Step(training=True, allreduce=lambda vector: sent.append(vector.copy())),
            )
            layer.moving_mean[:], layer.moving_variance[:], layer.sums[:] = kept
        step = Step(training=True, allreduce=lambda vector: np.copyto(vector, sum(sent)))
        return [compute(layer, part, step) for layer, part in zip(layers, parts, strict=True)]

    outputs = np.concatenate(
        [x.copy() for x in meet(lambda layer, part, step: layer.forward(values[part], step))]
    )
    slopes = np.concatenate(
        [
            x.copy()
            for x in meet(lambda layer, part, step: layer.backward(gradient[part].copy(), step))
        ]
    )
    assert all(
        (layer.affine == layers[0].affine).all()
        and (layer.moving_variance == layers[0].moving_variance).all()
        for layer in layers
    )
    return (
        outputs,
        slopes,
        sum(layer.gamma_gradient for layer in layers),
        layers[0].moving_mean,
        layers[0].moving_variance,
    )


def torchs(dtype, values, gradient, gamma, beta, activation):
    import torch

    norm = torch.nn.BatchNorm2d(len(gamma)).to(dtype)
    norm.weight.data[:], norm.bias.data[:] = torch.from_numpy(gamma), torch.from_numpy(beta)
    x, g = (torch.from_numpy(a).permute(0, 3, 1, 2).to(dtype) for a in (values, gradient))
    outputs = norm(x.requires_grad_())
    outputs = torch.relu(outputs) if activation == "relu" else outputs
    outputs.backward(g)
    found = (
        outputs.detach().permute(0, 2, 3, 1),
        x.grad.permute(0, 2, 3, 1),
        norm.weight.grad,
        norm.running_mean,
        norm.running_var,
    )
    return [tensor.double().numpy() for tensor in found]


def near(found, theirs, exact):
    for one, other, right in zip(found, theirs, exact, strict=True):
        assert np.abs(one - right).max() <= max(
            FACTOR * np.abs(other - right).max(), ROUNDING * np.abs(right).max()
        )


@pytest.mark.parametrize("ends", [(40,), (13, 13, 40)], ids=["a rank", "three ranks"])
@pytest.mark.parametrize("ratio", [0, 30, 1000, 10_000])
@pytest.mark.parametrize("activation,slope", [("identity", 0.0), ("identity", 2.0)])
def test_errors_are_pytorchs(ratio, slope, activation, ends):
    torch = pytest.importorskip("torch")
    arrays = case(ratio, slope)
    found = ours(*arrays, activation, ends)
    near(
        found,
        torchs(torch.float32, *arrays, activation),
        torchs(torch.float64, *arrays, activation),
    )


def test_a_relu_closes_where_it_should():
    """Signs of arguments near 0 are a matter of rounding: few differ, and none far from it."""
    torch = pytest.importorskip("torch")
    arrays = case(10_000, 0.5)
    found, exact = ours(*arrays, "relu", (40,)), torchs(torch.float64, *arrays, "relu")
    assert np.abs(found[0] - exact[0]).max() < 1e-5
    assert np.mean(np.abs(found[1] - exact[1]) > 1e-4) < 1e-4


def test_moving_statistics_normalise_as_exactly():
    values, gradient, gamma, beta = case(10_000, 0.0)
    layer = layer_of(gamma, beta, values.shape, "identity")
    layer.moving_mean[:], layer.moving_variance[:] = (
        values.mean(axis=(0, 1, 2), dtype=float),
        values.var(axis=(0, 1, 2), dtype=float),
    )
    exact = (
        gamma.astype(float)
        * (values - layer.moving_mean.astype(float))
        / np.sqrt(layer.moving_variance.astype(float) + 1e-5)
        + beta
    )
    np.testing.assert_allclose(layer.forward(values, Step()), exact, atol=2e-6)


@pytest.mark.parametrize("ratio", [0, 100, 10_000])
def test_separable_units_too(ratio):
    """Their biases set the mean of what is normalised; its own rounding is then larger than that
    of the normalisation.
    """
    torch = pytest.importorskip("torch")
    random, (rows, side, c) = np.random.default_rng(1), (6, 9, 32)
    block = SeparableBlock([c, c], momentum=0.9, epsilon=1e-5)
    block.build((side, side, c))
    values = {
        p.name: random.standard_normal(p.shape).astype(np.float32) / 6
        for p in (*block.parameters, *block.statistics)
    }
    for name, array in values.items():
        if name.endswith("bias"):
            array[:] = ratio / 3
        if name.endswith(("gamma", "beta")):
            array[:] = 1 + 4 * name.endswith("0.beta")  # few arguments of the first ReLU near 0
    gradients = {p.name: np.empty(p.shape, np.float32) for p in block.parameters}
    block.bind(values, gradients)
    block.allocate(rows, np.dtype(np.float32), Workspace(), False)
    inputs, slopes = random.standard_normal((2, rows, side, side, c)).astype(np.float32)
    found = [
        block.forward(inputs, Step(training=True)).copy(),
        block.backward(slopes.copy(), Step(training=True)),
        *gradients.values(),
    ]

    def torch_unit(dtype):
        leaves = {
            p.name: torch.from_numpy(values[p.name]).to(dtype).requires_grad_()
            for p in block.parameters
        }
        x = start = torch.from_numpy(inputs).permute(0, 3, 1, 2).to(dtype).requires_grad_()
        for i in range(2):
            depth, weights = (
                leaves[f"{i}.depthwise"].permute(2, 0, 1)[:, None],
                leaves[f"{i}.weights"].T[:, :, None, None],
            )
            x = torch.nn.functional.conv2d(x, depth, padding=1, groups=c)
            x = torch.nn.functional.conv2d(x, weights, leaves[f"{i}.bias"])
            x = torch.relu(
                torch.nn.functional.batch_norm(
                    x, None, None, leaves[f"{i}.gamma"], leaves[f"{i}.beta"], True, eps=1e-5
                )
            )
        x.backward(torch.from_numpy(slopes).permute(0, 3, 1, 2).to(dtype))
        return [
            t.detach().double().numpy()
            for t in (
                x.permute(0, 2, 3, 1),
                start.grad.permute(0, 2, 3, 1),
                *(leaf.grad for leaf in leaves.values()),
            )
        ]

    plain, exact = torch_unit(torch.float32), torch_unit(torch.float64)
    for name, one, other, right in zip(
        ("outputs", "slopes", *gradients), found, plain, exact, strict=True
    ):
        if not name.endswith("bias"):  # a bias before a normalisation has no slope but rounding
            assert np.linalg.norm(one - right) <= max(
                FACTOR * np.linalg.norm(other - right), ROUNDING * np.linalg.norm(right)
            ), name
