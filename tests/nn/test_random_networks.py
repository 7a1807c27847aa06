"""Random networks of all layer kinds beside PyTorch in float64: loss, gradients, moving statistics and scores, or a refusal by both.

ENSYNC_FUZZ sets the number of networks (make fuzz: hundreds), ENSYNC_FUZZ_SEED the first.
"""

import random

import numpy as np
import pytest
from mutations import rounds

from ensync.describing import layer_table
from ensync.errors import EnsyncError
from ensync.job import job_from_dict
from ensync.kernels.threads import set_threads, thread_limit
from ensync.nn import zoo
from ensync.nn.layers import Step
from ensync.nn.network import CORRECT, LOSS_SUM

ROWS_OF_ONE = "more than 1 value per channel"   # PyTorch wants two values for a variance
TOLERANCE = {"float64": 1e-8, "float32": 2e-3}
ATTEMPTS = 3   # with other inputs: rounding may turn a ReLU or another maximum, a mistake stays


class Draw(random.Random):
    """A network drawn layer by layer; a careless one may hold layers that do not fit."""

    def __init__(self, number):
        super().__init__(number)
        self.careless = self.random() < 0.25

    def network(self):
        """Return the tables of a job, the shape of its images and how many rows, classes."""
        shape = self.choice([1, 2, 3, 4, 5, 7, 8, 11, 13]), self.choice([1, 2, 3, 5, 6, 9, 12]), self.choice([1, 2, 3, 4, 5, 8, 16])
        classes = self.choice([2, 3, 10, 17])
        layers = self.layers(self.randint(1, 5), shape, 2)
        training = {"loss": self.choice(["cross_entropy", "cross_entropy", "mean_squared_error", "half_squared_error"])}
        network = {"layers": [*layers, {"kind": "dense"}]}
        if training["loss"] == "cross_entropy":
            training["label_smoothing"] = self.choice([0.0, 0.1])
        else:
            training["targets"] = self.choice([[0.0, 1.0], [-0.5, 0.9]])
            network["output_activation"] = self.choice(["auto", "softmax", "tanh", "logistic", "relu"])
        return {"network": network, "training": training}, shape, self.randint(1, 9), classes

    def layers(self, count, shape, depth):
        """Return so many layers on inputs of this shape; composites at most so deep."""
        found = []
        for _ in range(count):
            layer, shape = self.layer(shape, depth)
            found.append(layer)
        return found

    def layer(self, shape, depth):
        """Return a layer and the shape of its outputs, which is a guess where it is a composite."""
        image = ["convolution", "convolution", "depthwise", "separable", "max_pooling", "average_pooling", "global_average_pooling", "flatten"]
        anywhere = ["dense", "batch_normalization", "batch_normalization", "local_response_normalization", "dropout", *["residual", "parallel"] * (depth > 0)]
        kinds = anywhere + 2 * image if len(shape) == 3 or (self.careless and self.random() < 0.3) else anywhere
        kind = self.choice(kinds)
        settings, after = getattr(self, kind)(shape, depth) if hasattr(self, kind) else ({}, shape)
        return {"kind": kind, **settings}, after

    def dense(self, shape, depth):
        units = self.choice([1, 2, 5, 16, 31])
        return {"units": units, "activation": self.activation()}, (units,)

    def activation(self):
        return self.choice(["identity", "relu", "tanh", "logistic"])

    def window(self, shape, most):
        """Return size, stride and padding that fit, mostly."""
        h, w = shape[:2] if len(shape) == 3 else (5, 5)
        size, padding = self.choice([1, 2, 3, 3, 3, 4, 5, 7]), self.choice(["same", "valid", 0, 1, 2])
        zeros = {"same": size, "valid": 0}.get(padding, padding)
        if not self.careless:
            size = max(1, min(size, h + 2 * zeros, w + 2 * zeros))
        if isinstance(padding, int) and most == "half" and not self.careless:
            padding = min(padding, size // 2)
        stride = self.choice([1, 1, 2, 3])
        zeros = 0 if padding == "valid" else padding
        after = [-(-n // stride) if padding == "same" else max(0, n + 2 * zeros - size) // stride + 1 for n in (h, w)]
        return {"size": size, "stride": stride, "padding": padding}, tuple(after)

    def convolution(self, shape, depth):
        window, after = self.window(shape, "any")
        filters, groups = self.choice([1, 2, 3, 4, 6, 16, 24]), self.choice([1, 1, 2, 3])
        if not self.careless and (shape[-1] % groups or filters % groups):
            groups = 1
        return {**window, "filters": filters, "groups": groups, "activation": self.activation(), "use_bias": self.random() < 0.7}, (*after, filters)

    def depthwise(self, shape, depth):
        window, after = self.window(shape, "any")
        return window, (*after, shape[-1])

    def separable(self, shape, depth):
        window, after = self.window(shape, "any")
        filters = self.choice([1, 2, 5, 16, 32])
        return {**window, "filters": filters, "activation": self.activation()}, (*after, filters)

    def max_pooling(self, shape, depth):
        window, after = self.window(shape, "half")
        return window, (*after, shape[-1])

    average_pooling = max_pooling

    def global_average_pooling(self, shape, depth):
        return {}, (shape[-1],)

    def flatten(self, shape, depth):
        return {}, (int(np.prod(shape)),)

    def batch_normalization(self, shape, depth):
        return {"activation": self.choice(["identity", "relu"]), "momentum": self.choice([0.0, 0.9, 0.99]), "epsilon": self.choice([1e-3, 1e-5]),
                "unbiased": self.random() < 0.5}, shape

    def local_response_normalization(self, shape, depth):
        return {"k": self.choice([1.0, 2.0]), "n": self.choice([1, 2, 3, 4, 5, 9]), "alpha": self.choice([1e-4, 0.1]), "beta": self.choice([0.5, 0.75, 1.0])}, shape

    def dropout(self, shape, depth):
        return {"rate": self.choice([0.0, 0.2, 0.6])}, shape

    def way(self, shape, depth, count):
        """Return layers and the shape behind them."""
        layers = []
        for _ in range(count):
            layer, shape = self.layer(shape, depth)
            layers.append(layer)
        return layers, shape

    def to(self, shape, wanted):
        """Return layers that make the wanted shape of another."""
        if shape == wanted:
            return []
        if len(wanted) == 1:
            return [{"kind": "dense", "units": wanted[0]}]
        if shape[:2] == wanted[:2]:
            return [{"kind": "convolution", "filters": wanted[2], "size": 1}]
        return None

    def residual(self, shape, depth):
        norm, _ = self.batch_normalization(shape, depth)
        main, after = self.way(shape, depth - 1, self.randint(0, 3))
        shortcut, around = self.way(shape, depth - 1, self.choice([0, 0, 1, 2]))
        fit = self.to(around, after)
        if fit is None and not self.careless:
            main, shortcut, after, fit = [], [], shape, []
        end = {"kind": "batch_normalization", **norm, "activation": "identity"}
        return {"layers": [*main, end], "shortcut": [*shortcut, *(fit or [])], "activation": self.choice(["identity", "relu"])}, after

    def parallel(self, shape, depth):
        first, after = self.way(shape, depth - 1, self.randint(0, 2))
        branches, channels = [first], after[-1]
        for _ in range(self.randint(0, 2)):
            branch, end = self.way(shape, depth - 1, self.randint(0, 2))
            fit = self.to(end, after) if len(end) != len(after) or end[:-1] != after[:-1] else []
            if fit is None and not self.careless:
                continue
            branches.append([*branch, *(fit or [])])
            channels += after[-1] if fit else end[-1]
        return {"branches": branches}, (*after[:-1], channels)


@pytest.fixture
def threads(number):
    """One thread, or all, from four networks to four networks."""
    limit = thread_limit()
    set_threads(limit if number // 4 % 2 else 1)
    yield
    set_threads(limit)


@pytest.mark.timeout(600)   # the first compiles
@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("number", rounds(12))
def test_random_networks(number):
    pytest.importorskip("torch")
    tables, shape, rows, classes = Draw(number).network()
    precision = "float32" if number % 4 == 3 else "float64"
    job = job_from_dict({"data": {"path": "none"}, "output": {"directory": "none"}, **tables, "training": tables["training"] | {"precision": precision}})
    twin, theirs = twin_of(tables, shape, classes, rows)
    try:
        layer_table(job, shape, classes)
        network = zoo.build(job, shape, classes, rows)
    except EnsyncError as refusal:
        assert theirs is not None, f"only Ensync refuses: {refusal}"
        return
    assert theirs is None, f"only PyTorch refuses: {theirs}"
    network.initialize(number)
    network.parameters += 0.05 * np.random.default_rng(number).standard_normal(len(network.parameters)).astype(network.dtype)
    failures = []
    for attempt in range(ATTEMPTS):
        try:
            compare(job, network, twin, rows, np.random.default_rng([number, attempt]))
            return
        except AssertionError as failure:
            failures.append(failure)
    raise failures[0]


def twin_of(tables, shape, classes, rows):
    """Return PyTorch's network, and what PyTorch says where it has none."""
    import torch
    import torch_networks

    try:
        twin, outputs = torch_networks.listed(tables["network"]["layers"], torch.zeros(rows, shape[2], *shape[:2], dtype=torch.float64), classes)
    except (RuntimeError, ValueError, IndexError) as error:
        return None, error
    return (twin, None) if outputs.shape == (rows, classes) else (None, ValueError(f"outputs {outputs.shape}"))


def compare(job, network, twin, rows, dice):
    """One step of training and an evaluation on both sides."""
    import torch

    exact, eps = network.dtype == np.float64, TOLERANCE[str(network.dtype)]
    step, labels = Step(training=True, key=int(dice.integers(1 << 60))), dice.integers(0, network.classes, rows)
    inputs = dice.standard_normal((rows, int(np.prod(network.shape)))).astype(network.dtype)
    images = torch.from_numpy(inputs.reshape(rows, *network.shape).transpose(0, 3, 1, 2).astype(np.float64))
    share_state(network, twin, step, rows)
    try:
        loss, outputs = loss_of(job, twin.train(), images, labels)
    except ValueError as error:
        assert ROWS_OF_ONE in str(error)
        return
    twin.zero_grad()
    loss.backward()
    network.backward(inputs, labels, rows, step)
    assert network.tail[LOSS_SUM] / rows == pytest.approx(loss.item(), rel=eps, abs=eps)
    if exact:
        assert network.tail[CORRECT] == (outputs.argmax(1).numpy() == labels).sum()
    import torch_networks

    slopes = [torch_networks.as_ours(tensor.grad, ours.shape) for tensor, ours in zip(twin.parameters(), views(network, network.gradient), strict=True)]
    noise = (10 if exact else 1) * max(np.abs(slope).max() for slope in slopes)   # rounding in arrays without a slope, such as biases before a normalisation
    for (name, _), ours, slope in zip(network.layout, views(network, network.gradient), slopes, strict=True):
        close(ours, slope, eps, name, noise)
    for (name, _), ours, buffer in zip(network.statistics_layout, views(network, network.statistics, "statistics_layout"), twin.buffers(), strict=True):
        close(ours, buffer.numpy(), eps, name, 1e-6)
        buffer.copy_(torch.from_numpy(ours.astype(np.float64)))
    with torch.no_grad():
        loss, outputs = loss_of(job, twin.eval(), images, labels)
    scores, loss_sum, correct = network.evaluate(inputs, labels)
    close(scores, (outputs.softmax(1) if network.loss.is_cross_entropy else outputs).numpy(), eps, "scores", 1e-3)
    assert loss_sum / rows == pytest.approx(loss.item(), rel=eps, abs=eps)
    if exact:
        assert correct == (outputs.argmax(1).numpy() == labels).sum()


def share_state(network, twin, step, rows):
    """Give PyTorch's network the parameters, statistics and dropout masks of Ensync's."""
    import torch
    import torch_networks

    for tensor, ours in zip(twin.parameters(), views(network, network.parameters), strict=True):
        torch_networks.set_from(tensor, ours)
    for buffer, ours in zip(twin.buffers(), views(network, network.statistics, "statistics_layout"), strict=True):
        buffer.copy_(torch.from_numpy(ours.astype(np.float64)))
    masked = [module for module in twin.modules() if isinstance(module, torch_networks.Masked)]
    for module, ours in zip(masked, network.dropouts, strict=True):
        module.mask = torch.from_numpy(ours.forward(np.ones((rows, ours.width), network.dtype), step).astype(np.float64))


def loss_of(job, twin, images, labels):
    """Return PyTorch's mean loss and the outputs that it is taken of."""
    import torch
    import torch_networks

    outputs, labels, t, output = twin(images), torch.from_numpy(labels), job.training, job.network.output_activation
    if t.loss == "cross_entropy":
        return torch.nn.functional.cross_entropy(outputs, labels, label_smoothing=t.label_smoothing), outputs
    outputs = outputs.softmax(1) if output == "softmax" else torch_networks.ACTIVATIONS[output.replace("auto", "identity")](outputs)
    targets = torch.full_like(outputs, t.targets[0])
    targets[torch.arange(len(labels)), labels] = t.targets[1]
    squares = (outputs - targets).square().sum(1).mean()
    return squares / (outputs.shape[1] if t.loss == "mean_squared_error" else 2), outputs


def views(network, flat, layout="layout"):
    from ensync.nn.network import _views

    return _views(flat, getattr(network, layout)).values()


def close(found, expected, eps, name, floor=0.0):
    """Equal to eps of the array's largest value, or of a floor."""
    assert found.shape == expected.shape, name
    distance = np.abs(found - expected).max()
    assert distance <= eps * max(np.abs(expected).max(), floor) + 1e-300, f"{name}: off by {distance:.2e} of {np.abs(expected).max():.2e}, floor {floor:.2e}"
