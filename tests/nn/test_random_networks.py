"""Random networks of all layer kinds beside PyTorch in float64.

Equal are loss, gradients, moving statistics and scores, or both refuse the network.
ENSYNC_FUZZ sets the number of networks (make fuzz: hundreds), ENSYNC_FUZZ_SEED the first.
"""

import numpy as np
import pytest
from mutations import rounds
from random_networks import Draw

from ensync.core.config.job import job_from_dict
from ensync.core.errors import EnsyncError
from ensync.kernels.threads import set_threads, thread_limit
from ensync.nn.flat import views
from ensync.nn.layers.base import Step
from ensync.nn.models import zoo
from ensync.nn.step_metrics import CORRECT, LOSS_SUM
from ensync.runs.describe import layer_table

torch = pytest.importorskip("torch")
import torch_layers
from torch_networks import as_ours, set_from

ROWS_OF_ONE = "more than 1 value per channel"  # PyTorch wants two values for a variance
TOLERANCE = {"float64": 1e-8, "float32": 2e-3}
ATTEMPTS = 3


@pytest.fixture
def threads(number):
    """One thread, or all, from four networks to four networks."""
    limit = thread_limit()
    set_threads(limit if number // 4 % 2 else 1)
    yield
    set_threads(limit)


@pytest.mark.timeout(600)  # the first compiles
@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("number", rounds(12))
def test_random_networks(number):
    tables, shape, rows, classes = Draw(number).network()
    tables["training"]["precision"] = "float32" if number % 4 == 3 else "float64"
    job = job_from_dict({"data": {"path": "none"}, "output": {"directory": "none"}, **tables})
    replica, theirs = twin_of(tables, shape, classes, rows)
    try:
        layer_table(job, shape, classes)
        network = zoo.build(job, shape, classes, rows)
    except EnsyncError as refusal:
        assert theirs is not None, f"only Ensync refuses: {refusal}"
        return
    assert theirs is None, f"only PyTorch refuses: {theirs}"
    network.initialize(number)
    noise = np.random.default_rng(number).standard_normal(len(network.parameters))
    network.parameters += (0.05 * noise).astype(network.dtype)
    for count in (rows, max(1, rows // 2)):  # the second in buffers with the first's values behind
        attempt(job, network, replica, count, number)
    adds_nothing_without_rows(network)


def oblong(padding):
    """Filters that are not square: wide and high, of even and odd sizes, with strides, groups and
    more zeros than taps.
    """
    window = {"kind": "convolution", "activation": "tanh", "padding": padding}
    branches = [[{**window, "filters": 3, "size": [1, 3], "padding": "same"}], []]
    return [
        {**window, "filters": 4, "size": [2, 5]},
        {"kind": "parallel", "branches": branches},
        {**window, "filters": 2, "size": [4, 1], "stride": 2},
        {**window, "filters": 4, "size": [1, 2], "groups": 2},
        {"kind": "dense"},
    ]


def recurrent(kind, other):
    """The last state behind all states of another layer, and all states behind a convolution."""
    return [
        {"kind": "convolution", "filters": 3, "activation": "tanh"},
        {"kind": kind, "units": 7, "all_states": True},
        {"kind": "batch_normalization"},
        {"kind": other, "units": 4},
        {"kind": "dense"},
    ]


LISTED = {
    **{f"oblong {padding}": oblong(padding) for padding in ("same", "valid", 1)},
    "gru, lstm": recurrent("gru", "lstm"),
    "lstm, gru": recurrent("lstm", "gru"),
    "first": [{"kind": "gru", "units": 40}, {"kind": "dense"}],
}


@pytest.mark.parametrize("layers", LISTED.values(), ids=LISTED)
def test_what_is_not_drawn(layers):
    tables = {"network": {"layers": layers}, "training": {"precision": "float64"}}
    job = job_from_dict({"data": {"path": "none"}, "output": {"directory": "none"}, **tables})
    replica, _ = twin_of(tables, (9, 8, 2), 3, 4)
    network = zoo.build(job, (9, 8, 2), 3, 4)
    network.initialize(1)
    attempt(job, network, replica, 4, 1)


def adds_nothing_without_rows(network):
    """A rank that has no rows of a batch takes part in its sums all the same."""
    step = Step(training=True, key=1, allreduce=lambda vector: None)
    inputs = np.empty((0, int(np.prod(network.shape))), network.dtype)
    network.message[:] = 1
    network.backward(inputs, np.empty(0, np.int64), 6, step)
    assert not network.message.any()


def attempt(job, network, replica, rows, number):
    """Compare; with other inputs where the first differ, since rounding may turn a maximum."""
    for left in reversed(range(ATTEMPTS)):
        try:
            compare(job, network, replica, rows, np.random.default_rng([number, left]))
            return
        except AssertionError:
            if not left:
                raise


def twin_of(tables, shape, classes, rows):
    """Return PyTorch's network, and what PyTorch says where it has none."""
    images = torch.zeros(rows, shape[2], *shape[:2], dtype=torch.float64)
    try:
        replica, outputs = torch_layers.listed(tables["network"]["layers"], images, classes)
    except (RuntimeError, ValueError, IndexError) as error:
        return None, error
    if outputs.shape != (rows, classes):
        return None, f"outputs of shape {outputs.shape}"
    return replica, None


def compare(job, network, replica, rows, dice):
    """One step of training and an evaluation on both sides."""
    step = Step(training=True, key=int(dice.integers(1 << 60)))
    labels = dice.integers(0, network.classes, rows)
    inputs = dice.standard_normal((rows, int(np.prod(network.shape)))).astype(network.dtype)
    images = double(inputs.reshape(rows, *network.shape).transpose(0, 3, 1, 2))
    share_state(network, replica, step, rows)
    try:
        loss, outputs = loss_of(job, replica.train(), images, labels)
    except ValueError as error:
        assert ROWS_OF_ONE in str(error)
        return
    replica.zero_grad()
    loss.backward()
    network.backward(inputs, labels, rows, step)
    metrics = network.metrics
    same_loss(network, metrics[LOSS_SUM] / rows, metrics[CORRECT], loss, outputs, labels)
    same_gradients(network, replica)
    same_statistics(network, replica)
    with torch.no_grad():
        loss, outputs = loss_of(job, replica.eval(), images, labels)
    scores, loss_sum, correct = network.evaluate(inputs, labels)
    expected = outputs.softmax(1) if network.loss.is_cross_entropy else outputs
    close(scores, expected.numpy(), "scores", 1e-3)
    same_loss(network, loss_sum / rows, correct, loss, outputs, labels)


def share_state(network, replica, step, rows):
    """Give PyTorch's network the parameters, statistics and dropout masks of Ensync's."""
    parameters = views(network.parameters, network.layout).values()
    for tensor, ours in zip(replica.parameters(), parameters, strict=True):
        set_from(tensor, ours)
    statistics = views(network.statistics, network.statistics_layout).values()
    for buffer, ours in zip(replica.buffers(), statistics, strict=True):
        buffer.copy_(double(ours))
    masked = [module for module in replica.modules() if isinstance(module, torch_layers.Masked)]
    for module, ours in zip(masked, network.dropouts, strict=True):
        module.mask = double(ours.forward(np.ones((rows, ours.width), network.dtype), step))


def double(values):
    return torch.from_numpy(values.astype(np.float64))


def loss_of(job, replica, images, labels):
    """Return PyTorch's mean loss and the outputs that it is taken of."""
    outputs, labels = replica(images), torch.from_numpy(labels)
    t, last = job.training, job.network.output_activation
    if t.loss == "cross_entropy":
        entropy = torch.nn.functional.cross_entropy
        return entropy(outputs, labels, label_smoothing=t.label_smoothing), outputs
    if last == "softmax":
        outputs = outputs.softmax(1)
    elif last != "auto":
        outputs = torch_layers.ACTIVATIONS[last](outputs)
    targets = torch.full_like(outputs, t.targets[0])
    targets[torch.arange(len(labels)), labels] = t.targets[1]
    squares = (outputs - targets).square().sum(1).mean()
    return squares / (outputs.shape[1] if t.loss == "mean_squared_error" else 2), outputs


def same_loss(network, found, correct, loss, outputs, labels):
    tolerance = TOLERANCE[str(network.dtype)]
    assert found == pytest.approx(loss.item(), rel=tolerance, abs=tolerance)
    if network.dtype == np.float64:  # in float32 two outputs may be equal
        assert correct == (outputs.argmax(1).numpy() == labels).sum()


def same_gradients(network, replica):
    """Arrays may be rounding alone, such as biases before a normalisation: all have a floor."""
    ours = views(network.gradient, network.layout)
    tensors = zip(replica.parameters(), ours.values(), strict=True)
    slopes = [as_ours(tensor.grad, values.shape) for tensor, values in tensors]
    largest = max(np.abs(slope).max() for slope in slopes)
    floor = 10 * largest if network.dtype == np.float64 else largest
    for (name, values), slope in zip(ours.items(), slopes, strict=True):
        close(values, slope, name, floor)


def same_statistics(network, replica):
    """After the step; then both go on with Ensync's."""
    ours = views(network.statistics, network.statistics_layout)
    for (name, values), buffer in zip(ours.items(), replica.buffers(), strict=True):
        close(values, buffer.numpy(), name, 1e-6)
        buffer.copy_(double(values))


def close(found, expected, name, floor):
    """Equal to the tolerance times the array's largest value, or times a floor."""
    assert found.shape == expected.shape, name
    distance, largest = np.abs(found - expected).max(), np.abs(expected).max()
    allowed = TOLERANCE[str(found.dtype)] * max(largest, floor)
    assert distance <= allowed, f"{name}: off by {distance:.2e} of {largest:.2e}, floor {floor:.2e}"
