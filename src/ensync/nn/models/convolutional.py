"""The named convolutional networks: settings in, layers out. Counts of parameters are those of
the sources, for 10 classes unless said.
"""

from collections.abc import Sequence
from typing import cast

from ensync.core.config.layers import WHITENING
from ensync.core.config.network import NetworkSettings
from ensync.core.errors import EnsyncError
from ensync.kernels.convolution import separable
from ensync.nn.layers.base import Layer, Shape
from ensync.nn.layers.branches import Residual
from ensync.nn.layers.convolution import Convolution
from ensync.nn.layers.dense import Dense
from ensync.nn.layers.flatten import Flatten
from ensync.nn.layers.images import Window
from ensync.nn.layers.normalization import BatchNormalization, Options
from ensync.nn.layers.pooling import AveragePooling, GlobalAveragePooling, MaxPooling, Subsampling
from ensync.nn.layers.response import LocalResponseNormalization
from ensync.nn.layers.separable import SeparableBlock, SeparableConvolution
from ensync.nn.models.common import PLAIN, activation, block_filters, depth, dropout, hidden, rates


def parashar_cnn(settings: NetworkSettings, shape: Shape, classes: int) -> list[Layer]:
    """Seven 3x3 convolutions in three blocks, two dense layers: 7,510,090 parameters on 28x28x1,
    7,510,986 with statistics.

    The source gives no dropout rates; 0.25 after each pooling and 0.5 after the first dense layer
    are the usual ones.
    """
    places = rates(settings, 4)
    layers: list[Layer] = []
    for filters, count, rate in ((64, 2, places[0]), (128, 2, places[1]), (256, 3, places[2])):
        layers += [Convolution(filters, activation="relu") for _ in range(count)]
        layers += [BatchNormalization(), MaxPooling(2), *dropout(rate)]
    dense = [Dense(width, "relu") for width in hidden(settings)]
    return [*layers, Flatten(), *dense[:1], *dropout(places[3]), *dense[1:], Dense(classes)]


def separable_block(filters: Sequence[int], shape: Shape, residual: bool = False) -> list[Layer]:
    """Separable convolutions, each with batch normalisation and ReLU, or a residual sum in place
    of the last ReLU; in one layer where this CPU can.
    """
    images = [cast("tuple[int, int, int]", (*shape[:2], count)) for count in filters]
    if all(separable.fits(given, count, 4) for given, count in zip(images, filters)):
        return [SeparableBlock(filters, residual=residual)]
    layers: list[Layer] = []
    for count in filters:
        layers += [SeparableConvolution(count), BatchNormalization("relu")]
    return [Residual([*layers[:-1], BatchNormalization()])] if residual else layers


def minixception(settings: NetworkSettings, shape: Shape, classes: int) -> list[Layer]:
    """Separable convolutions with skips: 94,474 parameters on 32x32x3, 96,202 with statistics."""
    layers: list[Layer] = [
        Convolution(32),
        BatchNormalization("relu"),
        Convolution(64),
        BatchNormalization("relu"),
    ]
    for _ in range(4):
        layers += separable_block([64, 64], shape, residual=True)
    layers += separable_block([128, 128], shape)
    return [
        *layers,
        MaxPooling(3, 2, "same"),
        GlobalAveragePooling(),
        *(Dense(width, "relu") for width in hidden(settings)),
        Dense(classes),
    ]


def minixception_plain(settings: NetworkSettings, shape: Shape, classes: int) -> list[Layer]:
    """The source's PyTorch variant, without skips and separable convolutions: 391,050 parameters
    on 32x32x3.
    """
    layers: list[Layer] = []
    for filters in (32, 64, 64, 64, 64, 64, 128, 128):
        layers += [Convolution(filters), BatchNormalization("relu", **PLAIN)]
    return [*layers, MaxPooling(3, 2, 1), GlobalAveragePooling(), Dense(classes)]


def alexnet(settings: NetworkSettings, shape: Shape, classes: int) -> list[Layer]:
    """Five convolutions, three of them in two halves, and three dense layers (Krizhevsky et al.
    2012); 60,965,224 parameters at width 1, 224x224x3, 1000 classes.
    """

    def wide(channels: int) -> int:
        return 2 * max(1, round(channels * settings.width / 2))

    widths = hidden(settings)
    drops = rates(settings, len(widths))
    layers: list[Layer] = [
        Convolution(wide(96), Window(11, 4, 2), activation="relu"),
        LocalResponseNormalization(),
        MaxPooling(3, 2),
        Convolution(wide(256), Window(5, 1, 2), 2, activation="relu"),
        LocalResponseNormalization(),
        MaxPooling(3, 2),
        Convolution(wide(384), activation="relu"),
        Convolution(wide(384), groups=2, activation="relu"),
        Convolution(wide(256), groups=2, activation="relu"),
        MaxPooling(3, 2),
        Flatten(),
    ]
    for width, rate in zip(widths, drops, strict=True):
        layers += [Dense(wide(width), "relu"), *dropout(rate)]
    return [*layers, Dense(classes)]


def lenet(settings: NetworkSettings, shape: Shape, classes: int) -> list[Layer]:
    """LeNet-5 (LeCun et al. 1998) with full connections: 61,706 parameters on 28x28x1 (framed by
    zeros to 32x32), 62,006 on 32x32x3.
    """
    f = activation(settings)
    layers: list[Layer] = [
        Convolution(6, Window(5, padding=2 if shape[0] < 32 else 0), activation=f),
        AveragePooling(2),
        Convolution(16, Window(5, padding=0), activation=f),
        AveragePooling(2),
        Flatten(),
    ]
    return [*layers, *(Dense(width, f) for width in hidden(settings)), Dense(classes)]


def resnet(settings: NetworkSettings, shape: Shape, classes: int) -> list[Layer]:
    """6 n + 2 layers for small images (He et al. 2016, section 4.2): 269,722 parameters for n =
    3 on 32x32x3, 272,474 with projections.
    """
    count = depth(settings)
    if count < 8 or count % 6 != 2:
        raise EnsyncError(
            f"network.depth = {count} for a resnet",
            "6 n + 2 layers: 8, 14, 20, 32, 44, 56, 110, ...",
            "change it",
        )
    layers: list[Layer] = [Convolution(16, use_bias=False), BatchNormalization("relu", **PLAIN)]
    before = 16
    for filters in (16, 32, 64):
        for place in range(count // 6):
            stride = 2 if place == 0 and filters > 16 else 1
            main = [
                Convolution(filters, Window(3, stride, 1), use_bias=False),
                BatchNormalization("relu", **PLAIN),
                Convolution(filters, use_bias=False),
                BatchNormalization(**PLAIN),
            ]
            layers.append(
                Residual(main, "relu", _around(settings, filters) if filters != before else [])
            )
            before = filters
    return [*layers, GlobalAveragePooling(), Dense(classes)]


def _around(settings: NetworkSettings, filters: int) -> list[Layer]:
    """The shortcut of a block that halves the image and changes the channels: the paper's
    options A and B.
    """
    if settings.shortcut == "identity":
        return [Subsampling(filters, 2)]
    return [Convolution(filters, Window(1, 2, 0), use_bias=False), BatchNormalization(**PLAIN)]


VGG = {  # filters of the convolutions between two poolings
    11: ([64], [128], [256] * 2, [512] * 2, [512] * 2),
    13: ([64] * 2, [128] * 2, [256] * 2, [512] * 2, [512] * 2),
    16: ([64] * 2, [128] * 2, [256] * 3, [512] * 3, [512] * 3),
    19: ([64] * 2, [128] * 2, [256] * 4, [512] * 4, [512] * 4),
}


def vgg(settings: NetworkSettings, shape: Shape, classes: int) -> list[Layer]:
    """Simonyan and Zisserman 2015 with batch normalisation and one dense layer, for small
    images: depth 16 has 14,728,266 parameters on 32x32x3.
    """
    count = depth(settings)
    if count not in VGG:
        raise EnsyncError(
            f"network.depth = {count} for a vgg", "one of " + ", ".join(map(str, VGG)), "change it"
        )
    layers: list[Layer] = []
    for block in VGG[count]:
        for filters in block:
            layers += [Convolution(filters), BatchNormalization("relu", **PLAIN)]
        layers.append(MaxPooling(2, padding="same"))
    return [*layers, Flatten(), Dense(classes)]


# The scale is fixed at 1, and the moving statistics follow fast.
SHIFTED: Options = {"momentum": 0.6, "epsilon": 1e-12, "unbiased": True, "scale": False}


def airbench(settings: NetworkSettings, shape: Shape, classes: int) -> list[Layer]:
    """The networks of Jordan 2024 (arXiv 2404.00498) for CIFAR-10 in the least arithmetic:
    whitening filters, then blocks of convolutions, each of which halves the image.

    Two convolutions in a block, or three, of which the last two have a residual sum around them:
    1,972,792 parameters in 8 layers on 32x32x3. The outputs are scaled by network.output_scale.
    """
    widths = block_filters(settings)
    count, shorter = settings.depth or 2 * len(widths) + 2, 2 * len(widths) + 2
    if count not in (shorter, shorter + len(widths)):
        raise EnsyncError(
            f"network.depth = {count} for an airbench with {len(widths)} blocks",
            f"{shorter}, or {shorter + len(widths)} with residual sums",
            "change network.depth or network.filters",
        )
    first, whitened = Window(2, padding="valid"), 2 * 4 * shape[2]
    layers: list[Layer] = [
        Convolution(whitened, first, activation="gelu", initializer=WHITENING),
    ]
    for width in widths:
        convolution, norm = _normalised(width, "gelu")
        layers += [convolution, MaxPooling(2), norm]
        if count == shorter:
            layers += _normalised(width, "gelu")
        else:
            both = [*_normalised(width, "gelu"), *_normalised(width, "identity")]
            layers.append(Residual(both, "gelu"))
    return [*layers, MaxPooling(3), Flatten(), Dense(classes, use_bias=False)]


def _normalised(width: int, activation: str) -> list[Layer]:
    """A convolution without bias and its normalisation."""
    return [Convolution(width, use_bias=False), BatchNormalization(activation, **SHIFTED)]
