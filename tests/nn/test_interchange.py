"""Networks as ONNX graphs and as PyTorch's modules: onnxruntime and PyTorch give Ensync's outputs,
of every network of the zoo and every kind of layer.
"""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from ensync.core.config.job import job_from_dict
from ensync.core.config.layers import KINDS
from ensync.core.config.network import NETWORKS
from ensync.core.errors import EnsyncError
from ensync.nn.interchange.modules import named, source
from ensync.nn.interchange.translation import FORMS, Translation
from ensync.nn.layers import table as layers
from ensync.nn.layers.base import Layer, Step, walk
from ensync.nn.layers.coarse_to_fine import CoarseToFine
from ensync.nn.layers.exit import Exit
from ensync.nn.layers.normalization import BatchNormalization
from ensync.nn.models import convolutional, mlp, zoo
from ensync.nn.whitening import Images
from ensync.runs.export.graph import IR_VERSION, OPSET, Graph

ROWS = 3
ZOO = [
    ({"name": "mlp", "hidden": [7, 5], "activation": "gelu", "dropout": 0.5}, (4, 3, 3)),
    ({"name": "oregon-mlp", "hidden": [6, 5]}, (4, 4, 1)),
    ({"name": "roy-mlp", "hidden": [6], "output_activation": "softmax"}, (4, 4, 1)),
    ({"name": "parashar-cnn", "hidden": [9, 8]}, (16, 16, 1)),
    ({"name": "minixception"}, (8, 8, 3)),
    ({"name": "minixception"}, (7, 7, 3)),
    ({"name": "minixception-plain"}, (7, 7, 3)),
    ({"name": "alexnet", "width": 0.125, "hidden": [64, 32]}, (67, 67, 3)),
    ({"name": "lenet"}, (28, 28, 1)),
    ({"name": "resnet", "depth": 8}, (9, 9, 3)),
    ({"name": "resnet", "depth": 8, "shortcut": "projection"}, (8, 8, 3)),
    ({"name": "vgg", "depth": 11}, (32, 32, 3)),
    ({"name": "airbench", "filters": [16, 24]}, (16, 16, 3)),
    ({"name": "airbench", "filters": [16, 32], "depth": 8, "output_scale": 0.25}, (14, 14, 1)),
]
SAME, EVEN = {"padding": "same"}, {"size": 3, "stride": 2, "padding": 1}
FIRST = [
    {"kind": "convolution", "filters": 8, "size": [4, 3], "stride": 2, "groups": 1, **SAME},
    {"kind": "batch_normalization", "activation": "gelu", "unbiased": True},
    {"kind": "separable", "filters": 6, "activation": "tanh"},
    {"kind": "group_norm", "groups": 3, "activation": "relu"},
    {
        "kind": "residual",
        "activation": "relu",
        "layers": [
            {"kind": "convolution", "filters": 6, "groups": 2, "activation": "logistic"},
            {"kind": "batch_normalization", "scale": False},
        ],
    },
    {"kind": "max_pooling", "size": 2, "stride": 2, **SAME},
    {"kind": "flatten"},
    {"kind": "batch_normalization"},
    {"kind": "dropout", "rate": 0.3},
    {"kind": "dense", "units": 9, "use_bias": False, "activation": "gelu"},
    {"kind": "group_norm", "groups": 3},
    {"kind": "local_response_normalization", "n": 3, "alpha": 0.1},
    {"kind": "dense"},
]
SECOND = [
    {"kind": "depthwise", "size": 3, "stride": 2, **SAME},
    {"kind": "scaling", "factor": 0.5},
    {"kind": "local_response_normalization", "n": 3, "alpha": 0.1},
    {
        "kind": "parallel",
        "branches": [
            [{"kind": "average_pooling", **EVEN}],
            [{"kind": "convolution", "filters": 3, **EVEN}, {"kind": "scaling", "factor": 2.0}],
        ],
    },
    {"kind": "average_pooling", "size": 2, **SAME},
    {"kind": "global_average_pooling"},
    {"kind": "residual", "layers": [{"kind": "dense", "units": 7}]},
    {"kind": "dense"},
]
RECURRENT = [
    {"kind": "gru", "units": 5, "all_states": True},
    {"kind": "lstm", "units": 4, "all_states": True},
    {
        "kind": "parallel",
        "branches": [[{"kind": "gru", "units": 3}], [{"kind": "lstm", "units": 6}]],
    },
    {"kind": "dense"},
]
REFUSED = {"exit", "coarse_to_fine"}
CASES = [*ZOO, ({"layers": FIRST}, (9, 6, 2)), ({"layers": SECOND}, (11, 10, 4))]
CASES.append(({"layers": RECURRENT}, (6, 5, 2)))


def made(settings, shape, **training):
    """Return a network with parameters and statistics that are not those of a start."""
    squares = settings.get("output_activation") == "softmax"
    training |= {"loss": "mean_squared_error"} if squares else {}
    tables = {"network": settings, "training": training}
    job = job_from_dict({"data": {"path": "none"}, "output": {"directory": "none"}, **tables})
    network = zoo.build(job, shape, 5, ROWS)
    random = np.random.default_rng(3)
    patches = random.integers(0, 256, (20, *shape), np.uint8)
    one = np.ones(shape[2])
    network.initialize(1, images=lambda: Images(iter([patches]), 127 * one, one / 64))
    network.parameters += 0.05 * random.standard_normal(len(network.parameters), np.float32)
    for layer in walk(network.layers):
        if isinstance(layer, BatchNormalization):
            layer.moving_mean[:] = 0.3 * random.standard_normal(layer.moving_mean.shape)
            layer.moving_variance[:] = random.uniform(0.5, 2, layer.moving_mean.shape)
    return network


def images_of(network):
    """Return images float32 (ROWS, height, width, channels)."""
    return np.random.default_rng(4).standard_normal((ROWS, *network.shape)).astype(np.float32)


def outputs_of(network):
    """Return Ensync's own outputs."""
    flat = images_of(network).reshape(ROWS, -1)
    return network.forward(flat, Step()).copy()


def channels_first(network):
    return np.ascontiguousarray(images_of(network).transpose(0, 3, 1, 2))


def close(found, expected):
    assert np.abs(expected).max() > 1e-2 and np.ptp(expected, axis=0).max() > 1e-3
    largest = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * largest)


def onnx_outputs(network):
    """Return what onnxruntime computes."""
    graph = Graph()
    last = graph.operations(Translation(channels_first=False).network(network), "images", "")
    height, width, channels = network.shape
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *shape])
        for name, shape in (("images", (channels, height, width)), (last, (network.classes,)))
    ]
    constants = list(graph.constants.values())
    whole = helper.make_graph(graph.nodes, "test", ends[:1], ends[1:], constants)
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(whole, ir_version=IR_VERSION, opset_imports=opset)
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return session.run(None, {"images": channels_first(network)})[0]


def names(case):
    return case[0].get("name", "layers")


@pytest.fixture(scope="module", params=CASES, ids=names)
def network(request):
    """Each of the networks, once."""
    return made(*request.param)


@pytest.mark.timeout(300)  # the first compiles
def test_onnxruntime_gives_the_same(network):
    close(onnx_outputs(network), outputs_of(network))


@pytest.mark.timeout(300)
def test_pytorch_gives_the_same(network):
    torch = pytest.importorskip("torch")
    module = loaded(torch, network)
    with torch.no_grad():
        found = module(torch.from_numpy(channels_first(network))).numpy()
    close(found, outputs_of(network))


def loaded(torch, network):
    """Return the module of the exported source, with the network's weights."""
    operations = Translation(channels_first=True).network(network)
    known = {}
    exec(source(operations), known)
    module = known["network"]()
    state = {name: torch.from_numpy(tensor.read()) for name, tensor in named(operations)}
    module.load_state_dict(state, strict=True)
    return module.eval()


def test_a_module_of_the_readers_own_takes_the_weights():
    """Written as by hand, from the layers that `ensync describe` shows."""
    torch = pytest.importorskip("torch")
    nn, network = torch.nn, made({"name": "lenet", "hidden": [11]}, (16, 16, 3))
    module = nn.Sequential(
        *(nn.Conv2d(3, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten()),
        *(nn.Linear(64, 11), nn.Tanh(), nn.Linear(11, 5)),
    )
    tensors = named(Translation(channels_first=True).network(network))
    state = {name: torch.from_numpy(tensor.read()) for name, tensor in tensors}
    module.load_state_dict(state, strict=True)
    with torch.no_grad():
        close(module(torch.from_numpy(channels_first(network))).numpy(), outputs_of(network))


def test_what_is_read_can_be_written(network):
    """Every parameter and statistic is in the arrays once, and comes back to the bit."""
    expected = network.parameters.copy(), network.statistics.copy()
    tensors = dict(named(Translation(channels_first=True).network(network)))
    read = {name: tensor.read() for name, tensor in tensors.items() if not tensor.fixed}
    assert sum(map(np.size, read.values())) == len(expected[0]) + len(expected[1])
    network.parameters[:], network.statistics[:] = 0, 0
    for name, values in read.items():
        tensors[name].write(values)
    assert np.array_equal(network.parameters, expected[0])
    assert np.array_equal(network.statistics, expected[1])


def test_every_network_and_layer_is_compared():
    assert {settings["name"] for settings, _ in ZOO} == set(NETWORKS)
    inner = [*SECOND[3]["branches"][0], *FIRST[4]["layers"]]
    assert {layer["kind"] for layer in [*FIRST, *SECOND, *RECURRENT, *inner]} == set(
        KINDS
    ) - REFUSED


def test_every_class_of_layers_has_a_form():
    """Those that a network of the zoo or a list of layers is built of."""
    modules = [layers, convolutional, mlp]
    classes = {each for module in modules for each in vars(module).values() if is_layer(each)}
    assert classes - {Layer, Exit, CoarseToFine} <= set(FORMS) and len(classes) > 15


def is_layer(value):
    return isinstance(value, type) and issubclass(value, Layer)


class Doubled(Layer):
    """A layer that no other program knows."""

    def build(self, shape):
        return shape

    def forward(self, inputs, step):
        return inputs

    def backward(self, gradient, step):
        return gradient


def test_exits_are_refused():
    layers = [{"kind": "exit", "layers": [{"kind": "dense"}]}, {"kind": "dense"}]
    with pytest.raises(EnsyncError, match="the layer 'Exit', which has no form"):
        Translation(channels_first=False).network(made({"layers": layers}, (2, 2, 1)))


def test_what_has_no_form_is_refused_by_name():
    network = made({"name": "mlp", "hidden": []}, (2, 2, 1))
    network.layers.append(Doubled())
    network.shapes.append((5,))
    with pytest.raises(EnsyncError, match="'Doubled', which has no form"):
        Translation(channels_first=False).network(network)


@pytest.mark.parametrize(
    "layer",
    [
        {"kind": "group_norm", "groups": 3},
        {"kind": "local_response_normalization"},
        {"kind": "residual", "layers": [{"kind": "dense", "units": 12}]},
        {"kind": "parallel", "branches": [[{"kind": "scaling", "factor": 2.0}]]},
    ],
    ids=lambda layer: layer["kind"],
)
def test_neighbours_in_a_flattened_image_are_onnx_alone(layer):
    network = made({"layers": [{"kind": "flatten"}, layer, {"kind": "dense"}]}, (2, 2, 3))
    with pytest.raises(EnsyncError, match="on a flattened image"):
        Translation(channels_first=True).network(network)
    close(onnx_outputs(network), outputs_of(network))


def test_a_window_that_onnx_has_otherwise_is_refused():
    normalised = {"kind": "local_response_normalization", "n": 4}
    network = made({"layers": [normalised, {"kind": "dense"}]}, (2, 2, 6))
    with pytest.raises(EnsyncError, match="over n = 4 channels.*expected an odd n"):
        onnx_outputs(network)
