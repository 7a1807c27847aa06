"""The formats that a trained run can be exported in, each described once."""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np

from ensync import __version__
from ensync.core.errors import EnsyncError, nearest
from ensync.nn.interchange.modules import named, source
from ensync.nn.interchange.translation import Translation
from ensync.runs.export.onnx_model import onnx_model
from ensync.runs.export.trained import Trained
from ensync.storage.atomic import write_atomically

SOURCE = ".py"  # of the module that weights belong to, written beside them


@dataclass(frozen=True)
class Format:
    """A format: the ending of its files, the package that writes it and how that is installed, and
    what makes the bytes of a file.

    is_whole: whether a file has the fusion and the preparation of images in it. Other files have
    the weights of one network, and get its source beside them.
    """

    suffix: str
    package: str
    install: str
    help: str
    encode: Callable[[Trained], bytes]
    is_whole: bool = False


def _safetensors(trained: Trained) -> bytes:
    from safetensors.numpy import save

    written: bytes = save(state_of(trained), metadata={"format": "pt"})
    return written


def _pytorch(trained: Trained) -> bytes:
    import torch

    buffer = io.BytesIO()
    arrays = state_of(trained).items()
    torch.save({name: torch.from_numpy(values) for name, values in arrays}, buffer)
    return buffer.getvalue()


EXTRA = "pip install 'ensync[export]'"
FORMATS = {
    "onnx": Format(
        ".onnx",
        "onnx",
        EXTRA,
        "pixels in, probabilities out, with the fusion of an ensemble inside",
        onnx_model,
        is_whole=True,
    ),
    "safetensors": Format(
        ".safetensors",
        "safetensors",
        EXTRA,
        "the weights of one network, named as in PyTorch",
        _safetensors,
    ),
    "pytorch": Format(".pt", "torch", "pip install torch", "the same as a state dict", _pytorch),
}


def format_of(name: str | None, path: Path) -> str:
    """Return the name of a format, or that whose ending a path has. Errors: EnsyncError."""
    endings = {each.suffix: known for known, each in FORMATS.items()}
    found = endings.get(path.suffix) if name is None else name
    if found not in FORMATS:
        given = f"'{path}' without a format" if name is None else f"format = {name!r}"
        raise EnsyncError(
            given + nearest(name or path.suffix, FORMATS if name else endings),
            ", ".join(f"{known} ({each.suffix})" for known, each in FORMATS.items()),
            "name one of them",
        )
    return found


def package_of(name: str) -> ModuleType:
    """Import the package that writes a format. Errors: EnsyncError where it is not installed."""
    form = FORMATS[name]
    try:
        return import_module(form.package)
    except ImportError:
        raise EnsyncError(
            f"the format {name} without the package {form.package}",
            "it in this environment",
            f"install it: {form.install}",
        ) from None


def write(trained: Trained, name: str, path: Path) -> Iterator[tuple[str, Path]]:
    """Write a run in a format; a file at `path` is replaced. Yield what each file is, and its path.

    Errors: EnsyncError for what the format cannot hold, before anything is written.
    """
    form = FORMATS[name]
    if not form.is_whole and len(trained.weights) > 1:
        raise EnsyncError(
            f"an ensemble of {len(trained.weights)} networks in the format {name}",
            "one network, whose weights such a file has",
            "choose one by its number (--member 0), their mean (--method weight_averaging), or the "
            "format onnx, which holds the fusion",
        )
    text = "" if form.is_whole else module_source(trained, path)
    write_atomically(path, [form.encode(trained)])
    yield name, path
    if text:
        beside = path.with_suffix(SOURCE)
        write_atomically(beside, [text.encode()])
        yield "module", beside


def state_of(trained: Trained) -> dict[str, np.ndarray]:
    """Return the arrays of one network by their names in PyTorch, and in its layout."""
    (network,) = trained.networks()
    operations = Translation(channels_first=True).network(network)
    return {name: tensor.read() for name, tensor in named(operations)}


def module_source(trained: Trained, path: Path) -> str:
    """Return Python source of the PyTorch module that the weights in `path` belong to."""
    (network,) = trained.networks()
    height, width, channels = network.shape
    whole = "" if network.shape == trained.shape else _middle(trained.shape)
    mean, inverse_std = trained.mean.tolist(), trained.inverse_std.tolist()
    outputs = "logits" if network.loss.is_cross_entropy else "one for each class"
    operations = Translation(channels_first=True).network(network)
    return f'''"""The network of the run {trained.name!r}, as PyTorch has it.

Written by Ensync {__version__}, with the weights in {path.name}.

Inputs: float32 (n, {channels}, {height}, {width}), (pixel - MEAN) * INVERSE_STD of each channel.
{whole}Outputs: (n, {len(trained.class_names)}), {outputs}.
"""

{source(operations)}

MEAN, INVERSE_STD = {mean}, {inverse_std}
CLASS_NAMES = {trained.class_names}
'''


def _middle(shape: tuple[int, ...]) -> str:
    return f"They are the middle of images of {' x '.join(map(str, shape))}.\n"
