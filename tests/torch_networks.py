"""The named networks once more, written for PyTorch from the sources' layer lists; parameters
come in the order of Ensync's.
"""

import torch
from torch import nn
from torch.nn.functional import pad


class Flatten(nn.Module):
    """Rows in the order height, width, channel."""

    def forward(self, x):
        return x.permute(0, 2, 3, 1).flatten(1)


class Pool(nn.Module):
    """Max pooling 3x3, stride 2, as Keras' "same" does it for even sizes: one column and row
    behind.
    """

    def forward(self, x):
        return nn.functional.max_pool2d(pad(x, (0, 1, 0, 1), value=-torch.inf), 3, 2)


class Mean(nn.Module):
    """Global average pooling."""

    def forward(self, x):
        return x.mean((2, 3))


class Shortcut(nn.Module):
    """Every second pixel, channels of zeros appended."""

    def __init__(self, before, after):
        super().__init__()
        self.more = after - before

    def forward(self, x):
        return pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, self.more))


class Sum(nn.Module):
    """The sum of two ways."""

    def __init__(self, main, around=None, relu=False):
        super().__init__()
        self.main, self.around, self.relu = nn.Sequential(*main), around or nn.Identity(), relu

    def forward(self, x):
        y = self.main(x) + self.around(x)
        return torch.relu(y) if self.relu else y


def separable(before, after):
    return [
        nn.Conv2d(before, before, 3, padding=1, groups=before, bias=False),
        nn.Conv2d(before, after, 1),
    ]


def keras_norm(channels):
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


def parashar_cnn(size, channels):
    layers, before = [], channels
    for filters, count in ((64, 2), (128, 2), (256, 3)):
        for _ in range(count):
            layers += [nn.Conv2d(before, filters, 3, padding=1), nn.ReLU()]
            before = filters
        layers += [keras_norm(filters), nn.MaxPool2d(2)]
    return [
        *layers,
        Flatten(),
        nn.Linear(256 * (size // 8) ** 2, 2048),
        nn.ReLU(),
        nn.Linear(2048, 512),
        nn.ReLU(),
        nn.Linear(512, 10),
    ]


def minixception(size, channels):
    layers = [
        nn.Conv2d(channels, 32, 3, padding=1),
        keras_norm(32),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1),
        keras_norm(64),
        nn.ReLU(),
    ]
    for _ in range(4):
        layers.append(
            Sum([*separable(64, 64), keras_norm(64), nn.ReLU(), *separable(64, 64), keras_norm(64)])
        )
    layers += [
        *separable(64, 128),
        keras_norm(128),
        nn.ReLU(),
        *separable(128, 128),
        keras_norm(128),
        nn.ReLU(),
    ]
    return [*layers, Pool(), Mean(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10)]


def minixception_plain(size, channels):
    layers, before = [], channels
    for filters in (32, 64, 64, 64, 64, 64, 128, 128):
        layers += [nn.Conv2d(before, filters, 3, padding=1), nn.BatchNorm2d(filters), nn.ReLU()]
        before = filters
    return [*layers, nn.MaxPool2d(3, 2, 1), Mean(), nn.Linear(128, 10)]


def alexnet(size, channels, width):
    a, b, c, d = (int(w * width) for w in (96, 256, 384, 4096))

    def norm():
        return nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2)  # PyTorch divides alpha by 5

    convolutions = nn.Sequential(
        nn.Conv2d(channels, a, 11, 4, 2),
        nn.ReLU(),
        norm(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(a, b, 5, padding=2, groups=2),
        nn.ReLU(),
        norm(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(b, c, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(c, c, 3, padding=1, groups=2),
        nn.ReLU(),
        nn.Conv2d(c, b, 3, padding=1, groups=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
    )
    flat = convolutions(torch.zeros(1, channels, size, size)).numel()
    return [
        convolutions,
        Flatten(),
        nn.Linear(flat, d),
        nn.ReLU(),
        nn.Linear(d, d),
        nn.ReLU(),
        nn.Linear(d, 10),
    ]


def lenet(size, channels):
    return [
        nn.Conv2d(channels, 6, 5, padding=2 if size < 32 else 0),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.Tanh(),
        nn.AvgPool2d(2),
        Flatten(),
        nn.Linear(400, 120),
        nn.Tanh(),
        nn.Linear(120, 84),
        nn.Tanh(),
        nn.Linear(84, 10),
    ]


def resnet(size, channels, depth, shortcut):
    layers, before = (
        [nn.Conv2d(channels, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()],
        16,
    )
    for filters in (16, 32, 64):
        for _ in range((depth - 2) // 6):
            stride = 1 if filters == before else 2
            main = [
                nn.Conv2d(before, filters, 3, stride, 1, bias=False),
                nn.BatchNorm2d(filters),
                nn.ReLU(),
                nn.Conv2d(filters, filters, 3, padding=1, bias=False),
                nn.BatchNorm2d(filters),
            ]
            projection = nn.Sequential(
                nn.Conv2d(before, filters, 1, 2, bias=False), nn.BatchNorm2d(filters)
            )
            around = (
                None
                if stride == 1
                else Shortcut(before, filters)
                if shortcut == "identity"
                else projection
            )
            layers.append(Sum(main, around, relu=True))
            before = filters
    return [*layers, Mean(), nn.Linear(64, 10)]


def vgg(size, channels, depth):
    layers, before = [], channels
    for filters, count in zip(
        (64, 128, 256, 512, 512), {11: (1, 1, 2, 2, 2), 16: (2, 2, 3, 3, 3)}[depth], strict=True
    ):
        for _ in range(count):
            layers += [nn.Conv2d(before, filters, 3, padding=1), nn.BatchNorm2d(filters), nn.ReLU()]
            before = filters
        layers.append(nn.MaxPool2d(2))
    return [*layers, Flatten(), nn.Linear(512, 10)]


class Shift(nn.BatchNorm2d):
    """Batch normalisation with a scale of 1, which is not a parameter."""

    def __init__(self, channels):
        super().__init__(channels, eps=1e-12, momentum=0.4)
        self.weight = None


class Times(nn.Module):
    """Every value times a number."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return self.factor * x


def airbench(size, channels, filters=(64, 256, 256), residual=False, scale=1 / 9):
    def normalised(before, after):
        return [nn.Conv2d(before, after, 3, padding=1, bias=False), Shift(after)]

    layers, before = [nn.Conv2d(channels, 8 * channels, 2), nn.GELU()], 8 * channels
    for width in filters:
        convolution, norm = normalised(before, width)
        layers += [convolution, nn.MaxPool2d(2), norm, nn.GELU()]
        second = [*normalised(width, width), nn.GELU()]
        if residual:
            layers += [Sum([*second, *normalised(width, width)]), nn.GELU()]
        else:
            layers += second
        before = width
    side = ((size - 1) >> len(filters)) // 3
    last = nn.Linear(before * side**2, 10, bias=False)
    return [*layers, nn.MaxPool2d(3), Flatten(), last, Times(scale)]


BUILDERS = {
    "parashar-cnn": parashar_cnn,
    "minixception": minixception,
    "minixception-plain": minixception_plain,
    "alexnet": alexnet,
    "lenet": lenet,
    "resnet": resnet,
    "vgg": vgg,
    "airbench": airbench,
}


def build(name, size, channels, **options):
    """Return the network in float64."""
    return nn.Sequential(*BUILDERS[name](size, channels, **options)).double()


def as_ours(tensor, shape):
    """Return PyTorch's weights or their gradient as Ensync lays them out: (height, width,
    inputs, filters), (inputs, units); depthwise (height, width, channels).
    """
    values = tensor.detach().numpy()
    return (values.transpose(2, 3, 1, 0) if values.ndim == 4 else values.T).reshape(shape)


def set_from(tensor, values):
    """Set a PyTorch parameter from Ensync's array."""
    if tensor.ndim == 4:
        values = values.reshape(*tensor.shape[2:], tensor.shape[1], tensor.shape[0]).transpose(
            3, 2, 0, 1
        )
    tensor.data.copy_(torch.from_numpy((values.T if tensor.ndim == 2 else values).copy()))
