"""The named networks once more, written for PyTorch from the sources' layer lists, and lists of layers; parameters come in the order of Ensync's."""

from functools import partial

import torch
from torch import nn
from torch.nn.functional import pad


class Flatten(nn.Module):
    """Rows in the order height, width, channel."""

    def forward(self, x):
        return x.permute(0, 2, 3, 1).flatten(1)


class Pool(nn.Module):
    """Max pooling 3x3, stride 2, as Keras' "same" does it for even sizes: one column and row behind."""

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
    return [nn.Conv2d(before, before, 3, padding=1, groups=before, bias=False), nn.Conv2d(before, after, 1)]


def keras_norm(channels):
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


def parashar_cnn(size, channels):
    layers, before = [], channels
    for filters, count in ((64, 2), (128, 2), (256, 3)):
        for _ in range(count):
            layers += [nn.Conv2d(before, filters, 3, padding=1), nn.ReLU()]
            before = filters
        layers += [keras_norm(filters), nn.MaxPool2d(2)]
    return [*layers, Flatten(), nn.Linear(256 * (size // 8) ** 2, 2048), nn.ReLU(), nn.Linear(2048, 512), nn.ReLU(), nn.Linear(512, 10)]


def minixception(size, channels):
    layers = [nn.Conv2d(channels, 32, 3, padding=1), keras_norm(32), nn.ReLU(), nn.Conv2d(32, 64, 3, padding=1), keras_norm(64), nn.ReLU()]
    for _ in range(4):
        layers.append(Sum([*separable(64, 64), keras_norm(64), nn.ReLU(), *separable(64, 64), keras_norm(64)]))
    layers += [*separable(64, 128), keras_norm(128), nn.ReLU(), *separable(128, 128), keras_norm(128), nn.ReLU()]
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
        return nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2)   # PyTorch divides alpha by 5
    convolutions = nn.Sequential(
        nn.Conv2d(channels, a, 11, 4, 2), nn.ReLU(), norm(), nn.MaxPool2d(3, 2), nn.Conv2d(a, b, 5, padding=2, groups=2), nn.ReLU(), norm(), nn.MaxPool2d(3, 2),
        nn.Conv2d(b, c, 3, padding=1), nn.ReLU(), nn.Conv2d(c, c, 3, padding=1, groups=2), nn.ReLU(), nn.Conv2d(c, b, 3, padding=1, groups=2), nn.ReLU(), nn.MaxPool2d(3, 2))
    flat = convolutions(torch.zeros(1, channels, size, size)).numel()
    return [convolutions, Flatten(), nn.Linear(flat, d), nn.ReLU(), nn.Linear(d, d), nn.ReLU(), nn.Linear(d, 10)]


def lenet(size, channels):
    return [nn.Conv2d(channels, 6, 5, padding=2 if size < 32 else 0), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2), Flatten(),
            nn.Linear(400, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, 10)]


def resnet(size, channels, depth, shortcut):
    layers, before = [nn.Conv2d(channels, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()], 16
    for filters in (16, 32, 64):
        for _ in range((depth - 2) // 6):
            stride = 1 if filters == before else 2
            main = [nn.Conv2d(before, filters, 3, stride, 1, bias=False), nn.BatchNorm2d(filters), nn.ReLU(),
                    nn.Conv2d(filters, filters, 3, padding=1, bias=False), nn.BatchNorm2d(filters)]
            projection = nn.Sequential(nn.Conv2d(before, filters, 1, 2, bias=False), nn.BatchNorm2d(filters))
            around = None if stride == 1 else Shortcut(before, filters) if shortcut == "identity" else projection
            layers.append(Sum(main, around, relu=True))
            before = filters
    return [*layers, Mean(), nn.Linear(64, 10)]


def vgg(size, channels, depth):
    layers, before = [], channels
    for filters, count in zip((64, 128, 256, 512, 512), {11: (1, 1, 2, 2, 2), 16: (2, 2, 3, 3, 3)}[depth], strict=True):
        for _ in range(count):
            layers += [nn.Conv2d(before, filters, 3, padding=1), nn.BatchNorm2d(filters), nn.ReLU()]
            before = filters
        layers.append(nn.MaxPool2d(2))
    return [*layers, Flatten(), nn.Linear(512, 10)]


BUILDERS = {"parashar-cnn": parashar_cnn, "minixception": minixception, "minixception-plain": minixception_plain, "alexnet": alexnet, "lenet": lenet,
            "resnet": resnet, "vgg": vgg}


def build(name, size, channels, **options):
    """Return the network in float64."""
    return nn.Sequential(*BUILDERS[name](size, channels, **options)).double()


def as_ours(tensor, shape):
    """Return PyTorch's weights or their gradient as Ensync lays them out: (height, width, inputs, filters), (inputs, units); depthwise (height, width, channels)."""
    values = tensor.detach().numpy()
    return (values.transpose(2, 3, 1, 0) if values.ndim == 4 else values.T).reshape(shape)


def set_from(tensor, values):
    """Set a PyTorch parameter from Ensync's array."""
    if tensor.ndim == 4:
        values = values.reshape(*tensor.shape[2:], tensor.shape[1], tensor.shape[0]).transpose(3, 2, 0, 1)
    tensor.data.copy_(torch.from_numpy((values.T if tensor.ndim == 2 else values).copy()))


class Rows(nn.Module):
    """What nn.Flatten and nn.Linear see of images: rows in the order height, width, channel; rows stay rows."""

    def forward(self, x):
        return Flatten()(x) if x.ndim == 4 else x


class Window(nn.Module):
    """A pooling, or a convolution without padding of its own, behind the zeros that "same" or a number puts around."""

    def __init__(self, kind, size, stride, padding, convolution=None):
        super().__init__()
        self.kind, self.size, self.stride, self.padding, self.convolution = kind, size, stride or size, padding, convolution

    def forward(self, x):
        if self.kind == "convolution":
            return self.convolution(pad(x, self._frame(x)))
        if isinstance(self.padding, int):
            pool = nn.functional.max_pool2d if self.kind == "max_pooling" else partial(nn.functional.avg_pool2d, count_include_pad=False)
            return pool(x, self.size, self.stride, self.padding)
        if self.kind == "max_pooling":
            return nn.functional.max_pool2d(pad(x, self._frame(x), value=-torch.inf), self.size, self.stride)
        total, inside = (nn.functional.avg_pool2d(pad(y, self._frame(x)), self.size, self.stride, divisor_override=1) for y in (x, torch.ones_like(x)))
        return total / inside

    def _frame(self, x):
        if self.padding != "same":
            return 4 * [0 if self.padding == "valid" else self.padding]
        totals = [max(0, (-(-n // self.stride) - 1) * self.stride + self.size - n) for n in (x.shape[3], x.shape[2])]
        return [zeros for total in totals for zeros in (total // 2, total - total // 2)]


class Norm(nn.Module):
    """Batch normalisation of images or rows; the moving variance biased, as Keras', or unbiased, as PyTorch's."""

    def __init__(self, channels, activation="identity", momentum=0.99, epsilon=1e-3, unbiased=False):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))
        self.share, self.epsilon, self.unbiased, self.activation = 1 - momentum, epsilon, unbiased, ACTIVATIONS[activation]

    def forward(self, x):
        mean, variance = self.mean.clone(), self.variance.clone()
        y = nn.functional.batch_norm(x, mean, variance, self.weight, self.bias, self.training, self.share, self.epsilon)
        if self.training and not self.unbiased:
            n = x.numel() / x.shape[1]
            variance = (1 - self.share) * self.variance + (variance - (1 - self.share) * self.variance) * (n - 1) / n
        if self.training:
            self.mean, self.variance = mean, variance
        return self.activation(y)


class Response(nn.LocalResponseNorm):
    """Local response normalisation, of rows too; PyTorch divides alpha by n."""

    def __init__(self, k=2.0, n=5, alpha=1e-4, beta=0.75):
        super().__init__(n, alpha * n, beta, k)

    def forward(self, x):
        return super().forward(x.reshape(*x.shape[:2], -1)).reshape(x.shape)


class Masked(nn.Module):
    """Dropout with a mask from outside (rows, values, channels last), which Ensync draws by another generator."""

    mask = None

    def forward(self, x):
        if not self.training:
            return x
        if x.ndim == 2:
            return x * self.mask
        rows, channels, height, width = x.shape
        return x * self.mask.reshape(rows, height, width, channels).permute(0, 3, 1, 2)


class Beside(nn.ModuleList):
    """Branches side by side in the channels."""

    def forward(self, x):
        return torch.cat([branch(x) for branch in self], 1)


class Added(Sum):
    """The sum of two ways that have one shape, without broadcasting."""

    def forward(self, x):
        main, around = self.main(x), self.around(x)
        if main.shape != around.shape:
            raise ValueError("two shapes")
        return torch.relu(main + around) if self.relu else main + around


class Activated(nn.Sequential):
    """A layer and its activation."""

    def __init__(self, layer, name="identity"):
        super().__init__(layer)
        self.activation = ACTIVATIONS[name]

    def forward(self, x):
        return self.activation(super().forward(x))


ACTIVATIONS = {"identity": lambda x: x, "relu": torch.relu, "tanh": torch.tanh, "logistic": torch.sigmoid}


def listed(layers, x, classes):
    """Return the layers of a job file on inputs like x (rows, channels, height, width) and their outputs; whatever PyTorch raises where they do not fit."""
    made = []
    for settings in layers:
        made.append(_listed(dict(settings), x, classes).double().eval())
        x = made[-1](x)
    return nn.Sequential(*made), x


def _listed(settings, x, classes):
    kind, channels = settings.pop("kind"), x.shape[1]
    windows = {"size": settings.get("size", 3), "stride": settings.get("stride", 1), "padding": settings.get("padding", "same")}
    match kind:
        case "dense":
            return Activated(nn.Sequential(Rows(), nn.Linear(Rows()(x).shape[1], settings.get("units") or classes)), settings.get("activation", "identity"))
        case "convolution":
            filters = nn.Conv2d(channels, settings["filters"], windows["size"], windows["stride"], groups=settings.get("groups", 1), bias=settings.get("use_bias", True))
            return Activated(Window(kind, **windows, convolution=filters), settings.get("activation", "identity"))
        case "depthwise" | "separable":
            depthwise = Window("convolution", **windows, convolution=nn.Conv2d(channels, channels, windows["size"], windows["stride"], groups=channels, bias=False))
            if kind == "depthwise":
                return depthwise
            return Activated(nn.Sequential(depthwise, nn.Conv2d(channels, settings["filters"], 1)), settings.get("activation", "identity"))
        case "max_pooling" | "average_pooling":
            return Window(kind, settings.get("size", 2), settings.get("stride"), settings.get("padding", 0) if settings.get("padding") != "valid" else 0)
        case "global_average_pooling":
            return Mean()
        case "flatten":
            return Rows()
        case "batch_normalization":
            return Norm(channels, **settings)
        case "local_response_normalization":
            return Response(**settings)
        case "dropout":
            return Masked()
        case "residual":
            main, shortcut = listed(settings["layers"], x, classes)[0], listed(settings.get("shortcut", []), x, classes)[0]
            return Added(main, shortcut if len(shortcut) else None, settings.get("activation") == "relu")
        case "parallel":
            return Beside(listed(branch, x, classes)[0] for branch in settings["branches"])
