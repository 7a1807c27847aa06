"""Weights that a network starts from (network.weights): files of safetensors or PyTorch, with the
names of PyTorch's modules.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ensync.core.config.network import NetworkSettings
from ensync.core.errors import EnsyncError, leads_nowhere, reason
from ensync.mpi.exchange import arrays_from_root
from ensync.mpi.world import Comm, on_root
from ensync.nn.interchange.modules import named
from ensync.nn.interchange.operations import Tensor
from ensync.nn.interchange.translation import Translation
from ensync.nn.network import Network
from ensync.report.text import plural
from ensync.runs.export.formats import FORMATS, format_of, package_of

COUNTED = "num_batches_tracked"  # of PyTorch's batch normalisation, which nothing here depends on
NAMED = 6  # names that a refusal or a report has


class Filled(NamedTuple):
    """What a network took of a file: names of its arrays that came from there, and of those that
    start anew.
    """

    taken: list[str]
    new: list[str]

    def __str__(self) -> str:
        """Return it in words."""
        new = f"; {plural(len(self.new), 'array')} anew: {listed(self.new)}" if self.new else ""
        return f"{plural(len(self.taken), 'array')} taken{new}"


class Weights(NamedTuple):
    """The arrays of a file by their names, the same on every rank."""

    path: str
    arrays: dict[str, np.ndarray]
    new_output: bool

    def fill(self, network: Network) -> Filled:
        """Give a network the arrays of the file, but for the last dense layer with `new_output`.

        Errors: EnsyncError that names what is missing, left over, of another shape or not finite;
        the network is then as it was.
        """
        tensors = dict(named(Translation(channels_first=True).network(network)))
        last = _last(tensors)
        left = last if self.new_output else []
        wanted = {name: tensor for name, tensor in tensors.items() if name not in left}
        given = {name: array for name, array in self.arrays.items() if name not in left}
        self._check_names(wanted, given)
        self._check_values(wanted, given, last)
        for name, tensor in wanted.items():
            if not tensor.fixed:
                tensor.write(given[name].astype(network.dtype))
        return Filled(list(wanted), left)

    def _check_names(self, wanted: dict[str, Tensor], given: dict[str, np.ndarray]) -> None:
        missing = [name for name in wanted if name not in given]
        extra = [name for name in given if name not in wanted]
        parts = [
            f"{words} {listed(names)}"
            for words, names in (("without", missing), ("with, beside the network's,", extra))
            if names
        ]
        if parts:
            raise EnsyncError(
                f"network.weights = {self.path!r}, a file {' and '.join(parts)}",
                f"the {plural(len(wanted), 'array')} of the job's network: {listed(list(wanted))}",
                "use the weights of such a network, as `ensync export` names them",
            )

    def _check_values(
        self, wanted: dict[str, Tensor], given: dict[str, np.ndarray], last: Sequence[str]
    ) -> None:
        for name, tensor in wanted.items():
            values = given[name]
            what, action = "", "use the weights of such a network"
            if values.shape != tensor.shape:
                what, wish = f"of shape {values.shape}", f"{tensor.shape}, as the job's network has"
                if name in last:
                    action = "set network.new_output = true where the classes are others"
            elif values.dtype.kind != "f":
                what, wish = f"of type {values.dtype}", "floating-point numbers"
            elif not np.isfinite(values).all():
                what, wish = "with values that are not finite", "finite numbers"
            elif tensor.fixed and not np.array_equal(values, tensor.read()):
                what, wish = "with a trained scale", "1, since the job's layer has scale = false"
            if what:
                raise EnsyncError(
                    f"network.weights = {self.path!r}, with {name} {what}", wish, action
                )


def weights_of(comm: Comm, settings: NetworkSettings) -> Weights | None:
    """Read network.weights on rank 0 and return them on every rank, None where there are none.
    Collective.
    """
    if not settings.weights:
        return None
    path = settings.weights
    on_rank_0: list[dict[str, np.ndarray]] = []
    on_root(comm, lambda: on_rank_0.append(read(path)))
    arrays = arrays_from_root(comm, on_rank_0[0] if comm.rank == 0 else None)
    return Weights(path, arrays, settings.new_output)


def read(path: str) -> dict[str, np.ndarray]:
    """Return the arrays of a file by their names. Errors: EnsyncError for what is no such file."""
    name = format_of(None, Path(path))
    if FORMATS[name].is_whole:
        raise EnsyncError(
            f"network.weights = {path!r}, a whole program",
            "a file of weights: .safetensors or .pt",
            "export the weights instead",
        )
    try:
        open(path, "rb").close()
    except OSError as error:
        raise EnsyncError(
            f"network.weights = {path!r} cannot be read{leads_nowhere(path)} ({reason(error)})",
            "a file of weights: .safetensors or .pt",
            "check the path",
        ) from error
    package_of(name)
    try:
        arrays = _safetensors(path) if name == "safetensors" else _pytorch(path)
    except Exception as error:  # of either package, by what is wrong with the file
        first = str(error).partition("\n")[0][:200]
        raise EnsyncError(
            f"network.weights = {path!r} is no file of weights ({first})",
            "arrays by their names, as safetensors and torch.save of a state dict write them",
            "write it again",
        ) from error
    return {key: values for key, values in arrays.items() if not key.endswith(COUNTED)}


def _safetensors(path: str) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    found: dict[str, np.ndarray] = load_file(path)
    return found


def _pytorch(path: str) -> dict[str, np.ndarray]:
    import torch

    state: Any = torch.load(path, map_location="cpu", weights_only=True)
    return {str(name): tensor.float().numpy() for name, tensor in state.items()}


def _last(tensors: dict[str, Tensor]) -> list[str]:
    """Return the names of the arrays of the last dense layer."""
    layer = list(tensors)[-1].rpartition(".")[0]
    return [name for name in tensors if name.rpartition(".")[0] == layer]


def listed(names: Sequence[str]) -> str:
    """Return names in a row, of many the first."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
