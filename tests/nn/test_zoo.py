"""The named networks: counts, shapes, and forward, loss, gradients and an Adam step against
PyTorch where installed.
"""

import numpy as np
import pytest

from ensync.core.config.job import job_from_dict
from ensync.core.errors import EnsyncError
from ensync.kernels.simd.host import bf16_missing
from ensync.nn.layers.base import Step, walk
from ensync.nn.layers.normalization import BatchNormalization
from ensync.nn.layers.separable import SeparableBlock
from ensync.nn.memory import BF16
from ensync.nn.models import zoo
from ensync.nn.optimizers import Optimizer
from ensync.nn.step_metrics import CORRECT, LOSS_SUM
from ensync.nn.whitening import Images
from ensync.runs.describe import layer_table


def make_job(**network):
    return job_from_dict(
        {"data": {"path": "none"}, "output": {"directory": "none"}, "network": network}
    )


def build(shape, classes=10, rows=1, **network):
    return zoo.build(make_job(**network), shape, classes, rows)


COUNTS = [
    ({"name": "parashar-cnn"}, (28, 28, 1), 10, 7_510_090, 7_510_986),
    ({"name": "minixception"}, (32, 32, 3), 10, 94_474, 96_202),
    ({"name": "minixception-plain"}, (32, 32, 3), 10, 391_050, 392_266),
    ({"name": "alexnet"}, (224, 224, 3), 1000, 60_965_224, 60_965_224),
    ({"name": "alexnet", "width": 0.5}, (224, 224, 3), 1000, 16_277_160, 16_277_160),
    ({"name": "lenet"}, (28, 28, 1), 10, 61_706, 61_706),
    ({"name": "lenet"}, (32, 32, 3), 10, 62_006, 62_006),
    ({"name": "resnet"}, (32, 32, 3), 10, 269_722, 271_098),
    ({"name": "resnet", "shortcut": "projection"}, (32, 32, 3), 10, 272_474, 274_042),
    ({"name": "resnet", "depth": 56}, (32, 32, 3), 10, 853_018, 857_082),
    ({"name": "resnet", "depth": 110}, (32, 32, 3), 10, 1_727_962, 1_736_058),
    ({"name": "vgg", "depth": 11}, (32, 32, 3), 10, 9_231_114, 9_236_618),
    ({"name": "vgg", "depth": 13}, (32, 32, 3), 10, 9_416_010, 9_421_898),
    ({"name": "vgg"}, (32, 32, 3), 10, 14_728_266, 14_736_714),
    ({"name": "vgg", "depth": 19}, (32, 32, 3), 10, 20_040_522, 20_051_530),
    ({"name": "airbench"}, (32, 32, 3), 10, 1_971_640, 1_973_944),
    ({"name": "airbench", "filters": [128, 384, 384]}, (32, 32, 3), 10, 4_604_728, 4_608_312),
    ({"name": "oregon-mlp"}, (28, 28, 1), 10, 89_610, 89_610),
    ({"name": "roy-mlp"}, (28, 28, 1), 10, 79_510, 79_510),
]


@pytest.mark.parametrize(
    "settings,shape,classes,trained,with_statistics",
    COUNTS,
    ids=lambda x: x.get("name") if isinstance(x, dict) else None,
)
def test_counts(settings, shape, classes, trained, with_statistics):
    network = build(shape, classes, **settings)
    assert (len(network.parameters), len(network.parameters) + len(network.statistics)) == (
        trained,
        with_statistics,
    )


SHAPES = {
    "parashar-cnn": (
        (28, 28, 1),
        "28x28x64 28x28x64 28x28x64 14x14x64 14x14x64 14x14x128 14x14x128 14x14x128 7x7x128 "
        "7x7x128 7x7x256 7x7x256 7x7x256 7x7x256 "
        "3x3x256 3x3x256 2304 2048 2048 512 10",
    ),
    "minixception": (
        (32, 32, 3),
        "32x32x32 32x32x32" + 6 * " 32x32x64" + " 32x32x128 16x16x128 128 64 10",
    ),
    "minixception-plain": (
        (32, 32, 3),
        "32x32x32 32x32x32" + 10 * " 32x32x64" + 4 * " 32x32x128" + " 16x16x128 128 10",
    ),
    "alexnet": (
        (224, 224, 3),
        "55x55x96 55x55x96 27x27x96 27x27x256 27x27x256 13x13x256 13x13x384 13x13x384 13x13x256 "
        "6x6x256 9216 4096 4096 4096 4096 10",
    ),
    "lenet": ((28, 28, 1), "28x28x6 14x14x6 10x10x16 5x5x16 400 120 84 10"),
    "resnet": ((32, 32, 3), 5 * "32x32x16 " + 3 * "16x16x32 " + 3 * "8x8x64 " + "64 10"),
    "vgg": (
        (32, 32, 3),
        4 * "32x32x64 "
        + "16x16x64 "
        + 4 * "16x16x128 "
        + "8x8x128 "
        + 6 * "8x8x256 "
        + "4x4x256 "
        + 6 * "4x4x512 "
        + "2x2x512 "
        + 6 * "2x2x512 "
        + "1x1x512 512 10",
    ),
    "airbench": (
        (32, 32, 3),
        "31x31x24 31x31x64 "
        + 4 * "15x15x64 "
        + "15x15x256 "
        + 4 * "7x7x256 "
        + "7x7x256 "
        + 4 * "3x3x256 "
        + "1x1x256 256 10 10",
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_shapes(name):
    shape, expected = SHAPES[name]
    assert " ".join("x".join(map(str, s)) for s in build(shape, name=name).shapes) == expected


AGAINST_TORCH = [
    ({"name": "parashar-cnn", "dropout": 0}, 8, 1, {}),
    ({"name": "minixception"}, 8, 3, {}),
    ({"name": "minixception"}, 2, 3, {}),
    ({"name": "minixception-plain"}, 7, 3, {}),
    ({"name": "alexnet", "dropout": 0, "width": 0.125}, 67, 3, {"width": 0.125}),
    ({"name": "lenet"}, 28, 1, {}),
    ({"name": "resnet", "depth": 14}, 9, 3, {"depth": 14, "shortcut": "identity"}),
    (
        {"name": "resnet", "depth": 8, "shortcut": "projection"},
        8,
        3,
        {"depth": 8, "shortcut": "projection"},
    ),
    ({"name": "vgg", "depth": 11}, 32, 3, {"depth": 11}),
    ({"name": "airbench", "filters": [32, 48]}, 16, 3, {"filters": (32, 48)}),
    (
        {"name": "airbench", "filters": [16, 32], "depth": 8, "output_scale": 0.25},
        14,
        1,
        {"filters": (16, 32), "residual": True, "scale": 0.25},
    ),
]


@pytest.mark.timeout(300)  # the first compiles
@pytest.mark.parametrize(
    "settings,size,channels,options",
    AGAINST_TORCH,
    ids=lambda x: x.get("name") if isinstance(x, dict) else None,
)
def test_a_step_is_pytorchs(settings, size, channels, options):
    torch = pytest.importorskip("torch")
    import torch_networks

    rows, random = 6, np.random.default_rng(5)
    network, job = build((size, size, channels), rows=rows, **settings), make_job(**settings)
    images = random.standard_normal((rows, size, size, channels)).astype(np.float32)
    network.initialize(3, images=_patches(size, channels))
    _away_from_kinks(network)
    labels = random.integers(0, 10, rows)
    replica = torch_networks.build(settings["name"], size, channels, **options)
    theirs = list(replica.parameters())
    assert len(theirs) == len(network.layout)
    for tensor, values in zip(theirs, arrays(network, network.parameters), strict=True):
        torch_networks.set_from(tensor, values)
    adam = torch.optim.Adam(theirs)
    outputs = replica(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).double())
    loss = torch.nn.functional.cross_entropy(outputs, torch.from_numpy(labels))
    loss.backward()

    network.backward(images.reshape(rows, -1), labels, rows, Step(training=True))
    assert network.metrics[LOSS_SUM] / rows == pytest.approx(loss.item(), rel=1e-4)
    assert network.metrics[CORRECT] == (outputs.argmax(1).numpy() == labels).sum()
    _moving_statistics_are(network, replica, images)
    _close(network.forward(images.reshape(rows, -1), Step(training=True)), outputs.detach().numpy())
    noise = max(
        float(tensor.grad.abs().max()) for tensor in theirs
    )  # biases before a batch normalisation have no slope but rounding
    before = network.parameters.copy()
    Optimizer(job.optimizer, network.layout, network.dtype).step(
        network.parameters, network.gradient
    )
    adam.step()
    for slope, tensor, values, old in zip(
        arrays(network, network.gradient),
        theirs,
        arrays(network, network.parameters),
        arrays(network, before),
        strict=True,
    ):
        expected = torch_networks.as_ours(tensor.grad, slope.shape)
        _close(slope, expected, noise)
        clear = np.abs(expected) > 1e-2 * np.abs(expected).max() + 1e-4 * noise
        np.testing.assert_allclose(
            (values - old)[clear], -1e-3 * np.sign(expected)[clear], rtol=2e-3
        )
        _close(values[clear], torch_networks.as_ours(tensor, slope.shape)[clear])


def _patches(size, channels):
    """Return what gives images to whiten."""
    images = np.random.default_rng(2).integers(0, 256, (20, size, size, channels), np.uint8)
    ones = np.ones(channels)
    return lambda: Images(iter([images]), 127 * ones, ones / 64)


@pytest.mark.skipif(bool(bf16_missing()), reason=f"no bf16: {bf16_missing()}")
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "settings,size,channels,options",
    AGAINST_TORCH,
    ids=lambda x: x.get("name") if isinstance(x, dict) else None,
)
def test_a_step_in_bf16_is_near_pytorchs(settings, size, channels, options):
    """The distances of outputs and gradient from PyTorch's in float64, over two draws, are at
    most four times those of its own bf16 (autocast).
    """
    pytest.importorskip("torch")
    found, rounded = np.sqrt(
        sum(_squared_bf16_distances(settings, size, channels, options, seed) for seed in (6, 7))
    )
    assert (found > 1e-5).all() and (found < 4 * rounded).all()


def _squared_bf16_distances(settings, size, channels, options, seed):
    """Ours and PyTorch's (2, 2), of outputs and gradient."""
    import torch
    import torch_networks

    rows, random = 6, np.random.default_rng(seed)
    job = job_from_dict(
        {
            "data": {"path": "none"},
            "output": {"directory": "none"},
            "network": settings,
            "training": {"precision": "bf16"},
        }
    )
    network = zoo.build(job, (size, size, channels), 10, rows)
    network.initialize(seed, images=_patches(size, channels))
    _away_from_kinks(network)
    images, labels = (
        random.standard_normal((rows, size, size, channels)).astype(np.float32),
        random.integers(0, 10, rows),
    )

    def step(dtype, autocast):
        replica = torch_networks.build(settings["name"], size, channels, **options)
        for tensor, values in zip(
            replica.parameters(), arrays(network, network.parameters), strict=True
        ):
            torch_networks.set_from(tensor, values)
        replica = replica.to(dtype)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            outputs = replica(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).to(dtype))
        torch.nn.functional.cross_entropy(outputs.to(dtype), torch.from_numpy(labels)).backward()
        pairs = zip(replica.parameters(), arrays(network, network.gradient), strict=True)
        return outputs.detach().double().numpy(), np.concatenate(
            [torch_networks.as_ours(t.grad, v.shape).ravel() for t, v in pairs]
        )

    network.backward(images.reshape(rows, -1), labels, rows, Step(training=True))
    outputs = network.forward(images.reshape(rows, -1), Step(training=True))
    exact = step(torch.float64, False)
    return np.array(
        [
            [_distance(one, right) ** 2 for one, right in zip(found, exact, strict=True)]
            for found in ((outputs, network.gradient), step(torch.float32, True))
        ]
    )


@pytest.mark.skipif(bool(bf16_missing()), reason=f"no bf16: {bf16_missing()}")
def test_bf16_lies_between_layers_inside_a_residual_sum_and_a_branch():
    """The sum itself stays in float32."""
    convolution = {"kind": "convolution", "filters": 32}
    pair = [convolution, {"kind": "batch_normalization", "activation": "relu"}]
    parallel = {"kind": "parallel", "branches": [pair, [convolution]]}
    layers = [convolution, {"kind": "residual", "layers": [*pair, convolution]}, parallel]
    job = job_from_dict(
        {
            "data": {"path": "none"},
            "output": {"directory": "none"},
            "network": {
                "name": "layers",
                "layers": [*layers, {"kind": "flatten"}, {"kind": "dense"}],
            },
            "training": {"precision": "bf16"},
        }
    )
    network = zoo.build(job, (8, 8, 16), 10, 2)
    types = [layer.stored(network.dtype) for layer in walk(network.layers) if layer.reads_bf16]
    full, half = network.dtype, BF16
    chain = [(full, half), (half, half), (half, full)]  # of the residual sum
    assert types == [(full, full), *chain, (full, half), (half, full), (full, full)]


@pytest.mark.skipif(bool(bf16_missing()), reason=f"no bf16: {bf16_missing()}")
def test_bf16_lies_between_layers_that_both_take_it():
    """Also for a rank without rows, which takes part in the sums; in float32 all is float32."""
    for precision, kept in (("bf16", BF16), ("float32", np.dtype(np.float32))):
        job = job_from_dict(
            {
                "data": {"path": "none"},
                "output": {"directory": "none"},
                "network": {"name": "minixception"},
                "training": {"precision": precision},
            }
        )
        network = zoo.build(job, (32, 32, 3), 10, 2)
        images, labels, step = (
            np.zeros((2, 32 * 32 * 3), np.float32),
            np.zeros(2, np.int64),
            Step(training=True, allreduce=lambda vector: None),
        )
        assert network.forward(images, step).dtype == np.float32
        blocks = [layer for layer in network.layers if isinstance(layer, SeparableBlock)]
        assert len(blocks) == 5 and {
            array.dtype
            for b in blocks
            for array in (
                b.outputs,
                *(u.outputs for u in b.units),
                *(u.inputs_gradient for u in b.units),
            )
        } == {kept}
        network.backward(images, labels, 2, step)
        assert np.isfinite(network.gradient).all() and network.gradient.any()
        network.backward(images[:0], labels[:0], 2, step)
        assert not network.message.any()


def _distance(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize(
    "settings,size,channels,options",
    AGAINST_TORCH,
    ids=lambda x: x.get("name") if isinstance(x, dict) else None,
)
def test_a_rank_without_rows_adds_nothing(settings, size, channels, options):
    """It takes part in every sum of the batch normalisations all the same."""
    sums = []
    network = build((size, size, channels), rows=2, **settings)
    network.initialize(3, images=_patches(size, channels))
    network.message[:] = 1
    images, labels = np.empty((0, size * size * channels), np.float32), np.empty(0, np.int64)
    network.backward(
        images, labels, 6, Step(training=True, allreduce=lambda vector: sums.append(vector.sum()))
    )
    assert not network.message.any() and sums == [0] * len(sums)
    assert len(sums) == 2 * sum(
        isinstance(layer, BatchNormalization) for layer in walk(network.layers)
    )


def _moving_statistics_are(network, replica, images):
    """After one step, PyTorch's own where the network is PyTorch's; and outputs under them are
    alike.
    """
    import torch

    from ensync.nn.flat import views

    theirs = [
        buffer
        for name, buffer in replica.named_buffers()
        if not name.endswith("num_batches_tracked")
    ]
    ours = views(network.statistics, network.statistics_layout).values()
    unbiased = all(
        layer.unbiased for layer in walk(network.layers) if isinstance(layer, BatchNormalization)
    )
    for buffer, values in zip(theirs, ours, strict=True):
        if unbiased:
            _close(values, buffer.numpy())
        buffer.copy_(torch.from_numpy(values))
    with torch.no_grad():
        expected = replica.eval()(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).double())
    _close(network.forward(images.reshape(len(images), -1), Step()), expected.numpy())


def _away_from_kinks(network):
    """Three of four normalised channels clearly above zero, the fourth below: the sign of no
    ReLU's argument is a matter of rounding. GELU has no kink, and a channel far below zero no
    digits.
    """
    norms = [layer for layer in walk(network.layers) if isinstance(layer, BatchNormalization)]
    if any(norm.activation == "gelu" for norm in norms):
        return
    for (name, _), values in zip(network.layout, arrays(network, network.parameters), strict=True):
        if name.endswith("beta"):
            values[:] = np.where(np.arange(values.size) % 4 == 3, -4, 4)


def _close(found, expected, noise=0.0):
    """Equal to 1e-4 of the array's largest value; `noise`: the scale of slopes below which a
    whole array is rounding.
    """
    assert found.shape == expected.shape
    assert not expected.size or np.abs(found - expected).max() <= 1e-4 * max(
        np.abs(expected).max(), 1e-2 * noise
    )


def arrays(network, flat):
    from ensync.nn.flat import views

    return views(flat, network.layout).values()


@pytest.mark.parametrize(
    "settings,words",
    [
        ({"name": "resnet", "depth": 21}, "6 n \\+ 2"),
        ({"name": "vgg", "depth": 12}, "11, 13, 16, 19"),
        ({"name": "airbench", "depth": 9}, "8, or 11 with residual"),
        ({"name": "airbench", "filters": [16], "depth": 8}, "4, or 5 with residual"),
        ({"name": "parashar-cnn", "dropout": [0.1, 0.2]}, "4 places"),
        (
            {
                "layers": [
                    {"kind": "flatten"},
                    {"kind": "convolution", "filters": 3},
                    {"kind": "dense"},
                ]
            },
            "an image",
        ),
        (
            {
                "layers": [
                    {"kind": "convolution", "filters": 3, "size": 9, "padding": "valid"},
                    {"kind": "dense"},
                ]
            },
            "window of 9",
        ),
        (
            {"layers": [{"kind": "convolution", "filters": 3, "groups": 2}, {"kind": "dense"}]},
            "divides",
        ),
        ({"layers": [{"kind": "convolution", "filters": 3}]}, "dense layer"),
        (
            {"layers": [{"kind": "max_pooling", "size": 3, "padding": 2}, {"kind": "dense"}]},
            "max pooling of windows of 3 pixels with padding 2.* half the size",
        ),
        (
            {
                "layers": [
                    {"kind": "average_pooling", "size": 2, "stride": 1, "padding": 7},
                    {"kind": "dense"},
                ]
            },
            "average pooling .* half the size",
        ),
        ({"layers": [{"kind": "dense", "units": 4}]}, "10 classes"),
        (
            {
                "layers": [
                    {
                        "kind": "residual",
                        "layers": [
                            {"kind": "convolution", "filters": 9},
                            {"kind": "batch_normalization"},
                        ],
                    },
                    {"kind": "dense"},
                ]
            },
            "residual sum",
        ),
        (
            {
                "layers": [
                    {
                        "kind": "parallel",
                        "branches": [
                            [{"kind": "flatten"}],
                            [{"kind": "convolution", "filters": 2}],
                        ],
                    },
                    {"kind": "dense"},
                ]
            },
            "branches",
        ),
    ],
    ids=lambda x: x if isinstance(x, str) else None,
)
def test_networks_that_cannot_be_built(settings, words):
    with pytest.raises(EnsyncError, match=words):
        build((8, 8, 1), **settings)


LISTED = [
    {"kind": "convolution", "filters": 8, "activation": "relu"},
    {
        "kind": "parallel",
        "branches": [
            [
                {"kind": "convolution", "filters": 3, "size": 1},
                {"kind": "batch_normalization", "activation": "relu"},
            ],
            [{"kind": "separable", "filters": 4, "size": 5}, {"kind": "dropout", "rate": 0.1}],
            [{"kind": "average_pooling", "size": 3, "stride": 1, "padding": "same"}],
        ],
    },
    {
        "kind": "residual",
        "activation": "relu",
        "layers": [
            {"kind": "convolution", "filters": 6, "stride": 2, "use_bias": False},
            {"kind": "batch_normalization"},
        ],
        "shortcut": [
            {"kind": "depthwise", "stride": 2},
            {"kind": "convolution", "filters": 6, "size": 1},
        ],
    },
    {"kind": "local_response_normalization", "n": 3, "alpha": 0.1, "beta": 0.5},
    {"kind": "max_pooling", "size": 3, "stride": 2, "padding": 1},
    {"kind": "global_average_pooling"},
    {"kind": "dense"},
]


def test_the_layer_table_shows_what_is_nested():
    lines = layer_table(make_job(layers=LISTED), (6, 7, 2), 4)
    assert any(line.startswith("  Branch") for line in lines) and any(
        line.startswith("    Convolution 1x1, 3") for line in lines
    )
    assert any(line.startswith("  shortcut: Depthwise 3x3, stride 2") for line in lines)
    column = lines[0].index("parameters") + len("parameters")
    figures = [line[:column].split("  ")[-1].strip().replace(",", "") for line in lines[1:-1]]
    network = build((6, 7, 2), 4, layers=LISTED)
    assert sum(int(f) for f in figures if f.isdigit()) == len(network.parameters)
    assert lines[-1].startswith(
        f"{len(network.parameters):,} trainable parameters, "
        f"{len(network.parameters) + len(network.statistics):,} with statistics"
    )


@pytest.mark.timeout(300)
def test_listed_layers_have_the_slope_of_their_loss():
    job = job_from_dict(
        {
            "data": {"path": "none"},
            "output": {"directory": "none"},
            "network": {"layers": LISTED},
            "training": {"precision": "float64"},
        }
    )
    network = zoo.build(job, (6, 7, 2), 4, 5)
    network.initialize(2)
    assert len(list(walk(network.layers))) == 21 and len(network.dropouts) == 1
    random = np.random.default_rng(1)
    inputs, labels = random.standard_normal((5, 84)), random.integers(0, 4, 5)
    step = Step(training=True, key=7)

    def loss():
        network.backward(inputs, labels, 5, step)
        return network.metrics[LOSS_SUM] / 5

    loss()
    gradient = network.gradient.copy()
    start = network.parameters.copy()
    for _ in range(4):
        direction = random.standard_normal(len(gradient))
        network.parameters[:] = start + 1e-6 * direction
        up = loss()
        network.parameters[:] = start - 1e-6 * direction
        assert gradient @ direction == pytest.approx((up - loss()) / 2e-6, rel=1e-5)
