"""The network against finite differences, and against PyTorch where installed."""

import numpy as np
import pytest

from ensync.core.config.job import job_from_dict
from ensync.nn.layers.base import Step
from ensync.nn.models import zoo
from ensync.nn.optimizers import Optimizer
from ensync.nn.step_metrics import CORRECT, LOSS_SUM


def make_job(**sections):
    tables = {"data": {"path": "none"}, "output": {"directory": "none"}}
    for name, values in sections.items():
        tables[name] = tables.get(name, {}) | values
    return job_from_dict(tables)


def make_network(rows=7, shape=(5, 4, 1), classes=6, seed=3, **sections):
    sections.setdefault("training", {})
    sections["training"] = {"precision": "float64"} | sections["training"]
    network = zoo.build(make_job(**sections), shape, classes, rows)
    network.initialize(seed)
    random = np.random.default_rng(0)
    network.parameters += 0.01 * random.standard_normal(len(network.parameters)).astype(
        network.dtype
    )  # biases too
    inputs = random.standard_normal((rows, int(np.prod(shape)))).astype(network.dtype)
    return network, inputs, random.integers(0, classes, rows)


CASES = [
    {"network": {"hidden": [9, 8]}},
    {"network": {"hidden": []}},
    {"network": {"hidden": [11], "activation": "tanh"}, "training": {"label_smoothing": 0.1}},
    {"network": {"hidden": [11], "activation": "logistic", "dropout": 0.4}},
    {
        "network": {"name": "oregon-mlp", "hidden": [7, 6]},
        "training": {"loss": "mean_squared_error"},
    },
    {
        "network": {"name": "roy-mlp"},
        "training": {"loss": "half_squared_error", "targets": [0.1, 0.9]},
    },
    {
        "network": {"hidden": [9], "output_activation": "softmax"},
        "training": {"loss": "mean_squared_error"},
    },
]


@pytest.mark.parametrize("case", CASES)
def test_gradient_is_the_slope_of_the_loss(case):
    network, inputs, labels = make_network(**case)
    step = Step(training=True, key=99)

    def loss():
        network.backward(inputs, labels, 20, step)
        return network.metrics[LOSS_SUM] / 20

    loss()
    gradient = network.gradient.copy()
    slope = np.empty_like(gradient)
    for i in range(len(slope)):
        kept = network.parameters[i]
        network.parameters[i] = kept + 1e-6
        up = loss()
        network.parameters[i] = kept - 1e-6
        slope[i] = (up - loss()) / 2e-6
        network.parameters[i] = kept
    np.testing.assert_allclose(gradient, slope, rtol=1e-5, atol=1e-9)


def test_rows_add_up():
    """The gradients of two parts of a batch sum to that of the whole, dropout included: masks
    belong to global rows.
    """
    network, inputs, labels = make_network(network={"hidden": [9], "dropout": 0.3})
    network.backward(inputs, labels, 7, Step(True, 5, 0))
    whole = network.message.copy()
    parts = np.zeros_like(whole)
    for start, stop in ((0, 3), (3, 3), (3, 7)):
        network.backward(inputs[start:stop], labels[start:stop], 7, Step(True, 5, start))
        parts += network.message
    np.testing.assert_allclose(parts, whole, rtol=1e-12)


def test_counts_and_shapes():
    network, _, _ = make_network(
        shape=(28, 28, 1),
        classes=10,
        network={"name": "oregon-mlp"},
        training={"loss": "mean_squared_error"},
    )
    assert len(network.parameters) == 784 * 100 + 100 + 100 * 100 + 100 + 100 * 10 + 10
    network, _, _ = make_network(
        shape=(28, 28, 1),
        classes=10,
        network={"name": "roy-mlp", "hidden": [150]},
        training={"loss": "half_squared_error"},
    )
    assert len(network.parameters) == 784 * 150 + 150 + 150 * 10 + 10


def test_members_start_apart_and_seeds_repeat():
    def start(seed, member):
        network, _, _ = make_network()
        network.initialize(seed, member)
        return network.parameters.copy()

    assert np.array_equal(start(1, 0), start(1, 0))
    assert not np.array_equal(start(1, 0), start(1, 1))
    assert not np.array_equal(start(1, 0), start(2, 0))


def test_equal_layers_start_differently():
    network, _, _ = make_network(network={"hidden": [20, 20]})
    first, second = network.layers[0].weights, network.layers[1].weights
    assert first.shape == second.shape and not np.array_equal(first, second)


OPTIMIZERS = [
    {"name": "sgd", "weight_decay": 0.01},
    {"name": "momentum", "weight_decay": 0.01},
    {"name": "nesterov"},
    {"name": "adam", "weight_decay": 0.01},
    {"name": "adamw", "weight_decay": 0.01},
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: o["name"])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_training_is_pytorchs(optimizer, precision):
    torch = pytest.importorskip("torch")
    network, inputs, labels = make_network(
        rows=33,
        shape=(8, 8, 1),
        network={"hidden": [40, 17]},
        training={"precision": precision},
        optimizer={**optimizer, "learning_rate": 0.01},
    )
    settings = make_job(optimizer={**optimizer, "learning_rate": 0.01}).optimizer
    ours = Optimizer(settings, network.layout, network.dtype)
    theirs = torch.nn.Sequential(
        torch.nn.Linear(64, 40),
        torch.nn.ReLU(),
        torch.nn.Linear(40, 17),
        torch.nn.ReLU(),
        torch.nn.Linear(17, 6),
    )
    theirs = theirs.to(getattr(torch, precision))
    with torch.no_grad():
        for layer, linear in zip(network.layers, theirs[::2], strict=True):
            linear.weight.copy_(torch.from_numpy(layer.weights.T.copy()))
            linear.bias.copy_(torch.from_numpy(layer.bias.copy()))
    steps = _torch_optimizer(torch, settings, theirs.parameters())
    tolerance = 1e-4 if precision == "float32" else 1e-9
    for _ in range(5):
        network.backward(inputs, labels, 33, Step(training=True))
        steps.zero_grad()
        outputs = theirs(torch.from_numpy(inputs))
        loss = torch.nn.functional.cross_entropy(outputs, torch.from_numpy(labels))
        loss.backward()
        assert network.metrics[LOSS_SUM] / 33 == pytest.approx(loss.item(), rel=1e-5)
        assert network.metrics[CORRECT] == (outputs.argmax(1).numpy() == labels).sum()
        for layer, linear in zip(network.layers, theirs[::2], strict=True):
            np.testing.assert_allclose(
                layer.weights_gradient,
                linear.weight.grad.numpy().T,
                rtol=tolerance,
                atol=tolerance / 10,
            )
            np.testing.assert_allclose(
                layer.bias_gradient, linear.bias.grad.numpy(), rtol=tolerance, atol=tolerance / 10
            )
        ours.step(network.parameters, network.gradient)
        steps.step()
    for layer, linear in zip(network.layers, theirs[::2], strict=True):
        np.testing.assert_allclose(
            layer.weights, linear.weight.detach().numpy().T, rtol=tolerance, atol=tolerance
        )


def _torch_optimizer(torch, s, parameters):
    if s.name in ("adam", "adamw"):
        kind = torch.optim.Adam if s.name == "adam" else torch.optim.AdamW
        return kind(
            parameters,
            lr=s.learning_rate,
            betas=(s.beta1, s.beta2),
            eps=s.epsilon or 1e-8,
            weight_decay=s.weight_decay,
        )
    momentum = 0.0 if s.name == "sgd" else s.momentum
    return torch.optim.SGD(
        parameters,
        lr=s.learning_rate,
        momentum=momentum,
        weight_decay=s.weight_decay,
        nesterov=s.name == "nesterov",
    )


@pytest.mark.parametrize(
    "name,loss,targets",
    [
        ("oregon-mlp", "mean_squared_error", (0.0, 1.0)),
        ("roy-mlp", "half_squared_error", (0.1, 0.9)),
    ],
)
def test_squared_errors_are_pytorchs(name, loss, targets):
    torch = pytest.importorskip("torch")
    network, inputs, labels = make_network(
        network={"name": name}, training={"loss": loss, "targets": list(targets)}
    )
    weights = [
        (torch.tensor(x.weights, requires_grad=True), torch.tensor(x.bias, requires_grad=True))
        for x in network.layers
    ]
    values = torch.from_numpy(inputs)
    for w, b in weights:
        values = (torch.tanh if name == "oregon-mlp" else torch.sigmoid)(values @ w + b)
    target = torch.full_like(values, targets[0])
    target[torch.arange(7), torch.from_numpy(labels)] = targets[1]
    mean = torch.nn.functional.mse_loss(values, target)
    expected = mean if loss == "mean_squared_error" else mean * 6 / 2
    expected.backward()
    network.backward(inputs, labels, 7, Step(training=True))
    assert network.metrics[LOSS_SUM] / 7 == pytest.approx(expected.item(), rel=1e-12)
    for layer, (w, b) in zip(network.layers, weights, strict=True):
        np.testing.assert_allclose(layer.weights_gradient, w.grad.numpy(), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(layer.bias_gradient, b.grad.numpy(), rtol=1e-9, atol=1e-12)
