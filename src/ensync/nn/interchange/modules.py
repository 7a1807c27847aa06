"""Operations as PyTorch's modules: the names of their arrays, and the source that builds them.

Every operation is a module of its own in an `nn.Sequential`, so that names count modules:
"0.weight" of a convolution, "2.weight" of the one behind its ReLU.
"""

from collections.abc import Iterator, Sequence

from ensync.nn.interchange.operations import (
    Activate,
    Add,
    Concatenate,
    Convolve,
    Drop,
    Flatten,
    Frame,
    GlobalMean,
    Linear,
    NormalizeBatch,
    NormalizeGroups,
    NormalizeResponse,
    Operation,
    Pool,
    Recur,
    Scale,
    Subsample,
    Tensor,
)

ACTIVATIONS = {
    "relu": "nn.ReLU()",
    "gelu": "nn.GELU()",
    "tanh": "nn.Tanh()",
    "logistic": "nn.Sigmoid()",
    "softmax": "nn.Softmax(1)",
}

RECURRENT = """
class KIND(nn.KIND):
    def __init__(self, features, units, all_states):
        super().__init__(features, units, batch_first=True)
        self.all_states = all_states

    def forward(self, x):
        states, _ = super().forward(x.permute(0, 2, 3, 1).flatten(2))
        return states.transpose(1, 2).unsqueeze(3) if self.all_states else states[:, -1]
"""

# Modules that PyTorch does not have.
OWN = {
    "Residual": """
class Residual(nn.Module):
    def __init__(self, main, shortcut):
        super().__init__()
        self.main, self.shortcut = main, shortcut

    def forward(self, x):
        return self.main(x) + self.shortcut(x)
""",
    "Concatenation": """
class Concatenation(nn.Module):
    def __init__(self, *branches):
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x):
        return torch.cat([branch(x) for branch in self.branches], 1)
""",
    "Subsampling": """
class Subsampling(nn.Module):
    def __init__(self, channels, stride):
        super().__init__()
        self.channels, self.stride = channels, stride

    def forward(self, x):
        x = x[:, :, :: self.stride, :: self.stride]
        return nn.functional.pad(x, (0, 0, 0, 0, 0, self.channels - x.shape[1]))
""",
    "Scaling": """
class Scaling(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return self.factor * x
""",
    "MeanPool": """
class MeanPool(nn.Module):
    def __init__(self, size, stride, frame):
        super().__init__()
        self.size, self.stride, self.frame = size, stride, frame

    def forward(self, x):
        inside = nn.functional.pad(torch.ones_like(x), self.frame)
        sums = (nn.functional.pad(x, self.frame), inside)
        total, count = (nn.functional.avg_pool2d(y, self.size, self.stride) for y in sums)
        return total / count
""",
    "GRU": RECURRENT.replace("KIND", "GRU"),
    "LSTM": RECURRENT.replace("KIND", "LSTM"),
}


def named(operations: Sequence[Operation], prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the arrays of an `nn.Sequential` of these operations, by their names in it."""
    place = 0
    for operation in operations:
        place += len(modules(operation))
        before = f"{prefix}{place - 1}."
        for name, tensor in operation.tensors.items():
            yield before + name, tensor
        for name, inner in ways(operation):
            yield from named(inner, f"{before}{name}.")


def ways(operation: Operation) -> Iterator[tuple[str, list[Operation]]]:
    """Yield the names and operations of what lies inside an operation."""
    if isinstance(operation, Add):
        yield from (("main", operation.main), ("shortcut", operation.shortcut))
    elif isinstance(operation, Concatenate):
        for number, branch in enumerate(operation.branches):
            yield f"branches.{number}", branch


def modules(operation: Operation) -> list[str]:
    """Return the source of the modules of an operation; its arrays belong to the last of them."""
    match operation:
        case Flatten():
            return ["nn.Flatten()"]
        case Linear(weight=weight, bias=bias):
            outputs, inputs = weight.shape
            return [f"nn.Linear({inputs}, {outputs}{_without(bias)})"]
        case Convolve():
            return _convolution(operation)
        case Pool():
            return _pool(operation.frame, operation.of_maxima)
        case GlobalMean():
            return ["nn.AdaptiveAvgPool2d(1)", "nn.Flatten()"]
        case Subsample(channels=channels, stride=stride):
            return [f"Subsampling({channels}, {stride})"]
        case NormalizeBatch(given=given, epsilon=epsilon, momentum=momentum):
            kind = f"BatchNorm{'2d' if len(given) == 3 else '1d'}"
            return [f"nn.{kind}({given[-1]}, eps={epsilon!r}, momentum={momentum:.12g})"]
        case NormalizeGroups(given=given, groups=groups, epsilon=epsilon):
            return [f"nn.GroupNorm({groups}, {given[-1]}, eps={epsilon!r})"]
        case NormalizeResponse():
            return _response(operation)
        case Scale(factor=factor):
            return [f"Scaling({factor!r})"]
        case Recur(kind=kind, units=units, all_states=all_states, weight_ih_l0=weight):
            return [f"{kind}({weight.shape[1]}, {units}, {all_states})"]
        case Activate(name=name):
            return [ACTIVATIONS[name]]
        case Drop(rate=rate):
            return [f"nn.Dropout({rate!r})"]
    made = [_sequential(inner) for _, inner in ways(operation)]
    kind = "Residual" if isinstance(operation, Add) else "Concatenation"
    return [f"{kind}({', '.join(made)})"]


def source(operations: Sequence[Operation]) -> str:
    """Return Python source, with its imports, of a function `network()` that builds them."""
    body = _sequential(operations, "\n    ")
    own = "\n".join(text for name, text in OWN.items() if f"{name}(" in body)
    return (
        f"import torch\nfrom torch import nn\n\n{own}\n\n"
        f"def network() -> nn.Module:\n    return {body}\n"
    )


def _sequential(operations: Sequence[Operation], line: str = "") -> str:
    parts = [text for operation in operations for text in modules(operation)]
    if not line:
        return f"nn.Sequential({', '.join(parts)})"
    return f"nn.Sequential({''.join(f'{line}    {part},' for part in parts)}{line})"


def _without(bias: Tensor | None) -> str:
    return "" if bias is not None else ", bias=False"


def _sides(frame: Frame) -> str:
    """The frame in PyTorch's order."""
    return f"({frame.left}, {frame.right}, {frame.top}, {frame.bottom})"


def _taps(frame: Frame) -> int | tuple[int, int]:
    """Return the window's height and width, one number where these are alike."""
    height, width = frame.size
    return height if height == width else frame.size


def _convolution(operation: Convolve) -> list[str]:
    frame, groups = operation.frame, operation.groups
    filters, inputs = operation.weight.shape[:2]
    rest = f", stride={frame.stride}" * (frame.stride > 1)
    rest += f", padding={frame.top}" * (frame.is_even and frame.top > 0)
    rest += f", groups={groups}" * (groups > 1) + _without(operation.bias)
    made = f"nn.Conv2d({inputs * groups}, {filters}, {_taps(frame)}{rest})"
    return [made] if frame.is_even else [f"nn.ZeroPad2d({_sides(frame)})", made]


def _response(operation: NormalizeResponse) -> list[str]:
    """PyTorch divides alpha by n, and takes no rows of single values."""
    operation.check_groups("PyTorch")
    n, rest = operation.n, f"{operation.beta!r}, {operation.k!r}"
    made = f"nn.LocalResponseNorm({n}, {operation.alpha * n!r}, {rest})"
    if len(operation.given) == 3:
        return [made]
    return [f"nn.Unflatten(1, ({operation.given[-1]}, 1))", made, "nn.Flatten()"]


def _pool(frame: Frame, of_maxima: bool) -> list[str]:
    extent = f"{_taps(frame)}, {frame.stride}"
    if frame.is_even:
        padding = f", {frame.top}" * (frame.top > 0)
        if of_maxima:
            return [f"nn.MaxPool2d({extent}{padding})"]
        return [f"nn.AvgPool2d({extent}{padding or ', 0'}, count_include_pad=False)"]
    if of_maxima:
        outside = f'nn.ConstantPad2d({_sides(frame)}, float("-inf"))'
        return [outside, f"nn.MaxPool2d({extent})"]
    return [f"MeanPool({extent}, {_sides(frame)})"]
