"""The layers of a job file, written for PyTorch; parameters come in the order of Ensync's."""

from functools import partial

import torch
from torch import nn
from torch.nn.functional import pad
from torch_networks import Flatten, Mean, Sum


class Rows(nn.Module):
    """Images as rows in the order height, width, channel; rows stay rows."""

    def forward(self, x):
        return Flatten()(x) if x.ndim == 4 else x


class Window(nn.Module):
    """A pooling, or a convolution, behind the zeros that "same" or a number puts around."""

    def __init__(self, kind, size, stride, padding, convolution=None):
        super().__init__()
        self.kind, self.size, self.stride, self.padding, self.convolution = (
            kind,
            size,
            stride or size,
            padding,
            convolution,
        )

    def forward(self, x):
        if self.kind == "convolution":
            return self.convolution(pad(x, self._frame(x)))
        if isinstance(self.padding, int):
            pool = (
                nn.functional.max_pool2d
                if self.kind == "max_pooling"
                else partial(nn.functional.avg_pool2d, count_include_pad=False)
            )
            return pool(x, self.size, self.stride, self.padding)
        if self.kind == "max_pooling":
            return nn.functional.max_pool2d(
                pad(x, self._frame(x), value=-torch.inf), self.size, self.stride
            )
        total, inside = (
            nn.functional.avg_pool2d(
                pad(y, self._frame(x)), self.size, self.stride, divisor_override=1
            )
            for y in (x, torch.ones_like(x))
        )
        return total / inside

    def _frame(self, x):
        if self.padding != "same":
            return 4 * [0 if self.padding == "valid" else self.padding]
        height, width = (self.size, self.size) if isinstance(self.size, int) else self.size
        totals = [
            max(0, (-(-n // self.stride) - 1) * self.stride + size - n)
            for n, size in ((x.shape[3], width), (x.shape[2], height))
        ]
        return [zeros for total in totals for zeros in (total // 2, total - total // 2)]


def pixels(x):
    """Return (rows, channels, pixels), of rows of values too.

    In PyTorch 2.13 batch normalisation of a channels-last image of one row loses pixels, and the
    gradient of such a group normalisation ends the process where its inputs need none.
    """
    return x.reshape(*x.shape[:2], -1)


class Norm(nn.Module):
    """Batch normalisation; the moving variance biased, as Keras', or unbiased, as PyTorch's."""

    def __init__(
        self,
        channels,
        activation="identity",
        momentum=0.99,
        epsilon=1e-3,
        unbiased=False,
        scale=True,
    ):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels)) if scale else None
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))
        self.share, self.epsilon, self.unbiased, self.activation = (
            1 - momentum,
            epsilon,
            unbiased,
            ACTIVATIONS[activation],
        )

    def forward(self, x):
        mean, variance = self.mean.clone(), self.variance.clone()
        statistics = mean, variance, self.weight, self.bias
        y = nn.functional.batch_norm(
            pixels(x), *statistics, self.training, self.share, self.epsilon
        )
        if self.training and not self.unbiased:
            n = x.numel() / x.shape[1]
            variance = (1 - self.share) * self.variance + (
                variance - (1 - self.share) * self.variance
            ) * (n - 1) / n
        if self.training:
            self.mean, self.variance = mean, variance
        return self.activation(y).reshape(x.shape)


class GroupNorm(nn.GroupNorm):
    """Group normalisation, of single values too, which PyTorch's module refuses."""

    def __init__(self, channels, groups, activation="identity", epsilon=1e-5):
        super().__init__(groups, channels, epsilon)
        self.activation = ACTIVATIONS[activation]

    def forward(self, x):
        y = torch.group_norm(pixels(x), self.num_groups, self.weight, self.bias, self.eps)
        return self.activation(y).reshape(x.shape)


class Response(nn.LocalResponseNorm):
    """Local response normalisation, of rows too; PyTorch divides alpha by n."""

    def __init__(self, k=2.0, n=5, alpha=1e-4, beta=0.75):
        super().__init__(n, alpha * n, beta, k)

    def forward(self, x):
        return super().forward(x.reshape(*x.shape[:2], -1)).reshape(x.shape)


class Masked(nn.Module):
    """Dropout with a mask from outside (rows, values, channels last), which Ensync draws."""

    mask = None

    def forward(self, x):
        if not self.training:
            return x
        if x.ndim == 2:
            return x * self.mask
        rows, channels, height, width = x.shape
        return x * self.mask.reshape(rows, height, width, channels).permute(0, 3, 1, 2)


class Times(nn.Module):
    """Every value times a number."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return self.factor * x


class Recurrent(nn.Module):
    """A GRU or an LSTM over the rows of an image, whose features are (width, channel)."""

    def __init__(self, kind, x, units, all_states=False):
        super().__init__()
        self.layer = getattr(nn, kind.upper())(x.shape[1] * x.shape[3], units, batch_first=True)
        self.all_states = all_states

    def forward(self, x):
        states, _ = self.layer(x.permute(0, 2, 3, 1).flatten(2))
        return states.transpose(1, 2).unsqueeze(3) if self.all_states else states[:, -1]


class Beside(nn.ModuleList):
    """Branches side by side in the channels."""

    def forward(self, x):
        return torch.cat([branch(x) for branch in self], 1)


class Added(Sum):
    """The sum of two ways that have one shape, without broadcasting."""

    def __init__(self, main, around, activation):
        super().__init__(main, around)
        self.activation = ACTIVATIONS[activation]

    def forward(self, x):
        main, around = self.main(x), self.around(x)
        if main.shape != around.shape:
            raise ValueError("two shapes")
        return self.activation(main + around)


class Activated(nn.Sequential):
    """A layer and its activation."""

    def __init__(self, layer, name="identity"):
        super().__init__(layer)
        self.activation = ACTIVATIONS[name]

    def forward(self, x):
        return self.activation(super().forward(x))


ACTIVATIONS = {
    "identity": lambda x: x,
    "relu": torch.relu,
    "gelu": nn.functional.gelu,
    "tanh": torch.tanh,
    "logistic": torch.sigmoid,
}


def listed(layers, x, classes):
    """Return the layers of a job file for x (rows, channels, height, width), and their outputs.

    Raises whatever PyTorch does where they do not fit.
    """
    made = []
    for settings in layers:
        made.append(_listed(dict(settings), x, classes).double().eval())
        x = made[-1](x)
    return nn.Sequential(*made), x


def _listed(settings, x, classes):
    kind, channels = settings.pop("kind"), x.shape[1]
    windows = {
        "size": settings.get("size", 3),
        "stride": settings.get("stride", 1),
        "padding": settings.get("padding", "same"),
    }
    match kind:
        case "dense":
            return Activated(
                nn.Sequential(
                    Rows(),
                    nn.Linear(
                        Rows()(x).shape[1],
                        settings.get("units") or classes,
                        settings.get("use_bias", True),
                    ),
                ),
                settings.get("activation", "identity"),
            )
        case "convolution":
            filters = nn.Conv2d(
                channels,
                settings["filters"],
                windows["size"],
                windows["stride"],
                groups=settings.get("groups", 1),
                bias=settings.get("use_bias", True),
            )
            return Activated(
                Window(kind, **windows, convolution=filters), settings.get("activation", "identity")
            )
        case "depthwise" | "separable":
            depthwise = Window(
                "convolution",
                **windows,
                convolution=nn.Conv2d(
                    channels,
                    channels,
                    windows["size"],
                    windows["stride"],
                    groups=channels,
                    bias=False,
                ),
            )
            if kind == "depthwise":
                return depthwise
            return Activated(
                nn.Sequential(depthwise, nn.Conv2d(channels, settings["filters"], 1)),
                settings.get("activation", "identity"),
            )
        case "max_pooling" | "average_pooling":
            return Window(
                kind,
                settings.get("size", 2),
                settings.get("stride"),
                settings.get("padding", 0) if settings.get("padding") != "valid" else 0,
            )
        case "global_average_pooling":
            return Mean()
        case "flatten":
            return Rows()
        case "batch_normalization":
            return Norm(channels, **settings)
        case "group_norm":
            return GroupNorm(channels, **settings)
        case "local_response_normalization":
            return Response(**settings)
        case "scaling":
            return Times(**settings)
        case "dropout":
            return Masked()
        case "gru" | "lstm":
            return Recurrent(kind, x, **settings)
        case "residual":
            main, shortcut = (
                listed(settings["layers"], x, classes)[0],
                listed(settings.get("shortcut", []), x, classes)[0],
            )
            return Added(
                main, shortcut if len(shortcut) else None, settings.get("activation", "identity")
            )
        case "parallel":
            return Beside(listed(branch, x, classes)[0] for branch in settings["branches"])
