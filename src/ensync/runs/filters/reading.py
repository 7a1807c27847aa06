"""The filters of the first layer, read from checkpoints, and what they are put together by."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ensync.core.colours import COLOURS
from ensync.core.config.job import job_from_dict
from ensync.core.config.schema import Job
from ensync.core.errors import EnsyncError
from ensync.nn.layers.base import Layer
from ensync.nn.layers.convolution import Convolution, DepthwiseConvolution
from ensync.nn.layers.dropout import Dropout
from ensync.nn.layers.group_normalization import GroupNormalization
from ensync.nn.layers.normalization import BatchNormalization
from ensync.nn.layers.pooling import AveragePooling, MaxPooling
from ensync.nn.layers.response import LocalResponseNormalization
from ensync.nn.layers.scaling import Scaling
from ensync.nn.memory import counted
from ensync.nn.models import zoo
from ensync.nn.network import Network
from ensync.report import text
from ensync.runs.content import check
from ensync.runs.identity import Identity
from ensync.runs.study.files import read_cell
from ensync.storage.checkpoint import Found, load_checkpoint, load_newest_valid
from ensync.training.callbacks import first_kept

SHOWN = (1, COLOURS)  # channels of images whose filters are pictures
# Layers that keep channels apart, or let neighbours alone see each other.
KEEPING = (
    DepthwiseConvolution,
    MaxPooling,
    AveragePooling,
    BatchNormalization,
    GroupNormalization,
    LocalResponseNormalization,
    Scaling,
    Dropout,
)
EXPECTED = "a network that begins with a convolution over all channels of grey or coloured images"
ANOTHER = "choose another run; `ensync describe RUN` shows its layers"


class Parts(NamedTuple):
    """What the filters of a network are put together by (results.KINDS), and the names."""

    kind: str
    names: list[str]


@dataclass(frozen=True)
class Seen:
    """The filters of a run as they are, and what else there is to know of it.

    weights: (size, size, channels, filters) of each member.
    """

    path: Path
    label: str
    job: Job
    identity: Identity
    epochs: int
    parts: Parts
    weights: list[np.ndarray]


def seen(run: Path) -> Seen:
    """Return the filters of a run's newest checkpoint, or of a checkpoint."""
    found = _checkpoint(run)
    attributes, directory = found.attributes, found.path.parent.parent
    check(found.path, attributes)
    if not attributes.get("dataset"):
        raise EnsyncError(
            f"{found.path} is of an older version and does not describe its dataset",
            "a run that knows the shape of its images",
            "train again, or take another run",
        )
    identity = Identity.from_dict(attributes["dataset"])
    job = job_from_dict(attributes["job"], str(found.path))
    network = _network(job, identity)
    _refuse_other(found.path, network, identity)
    cell = read_cell(directory)
    return Seen(
        found.path if run.is_file() else directory,
        cell.label if cell else directory.name,
        job,
        identity,
        max(position["epoch"] for position in attributes["positions"]),
        _parts(job, network, attributes["members"]),
        [_weights(found, network, member) for member in range(attributes["members"])],
    )


def _checkpoint(run: Path) -> Found:
    """Return a checkpoint, or the newest valid one of a run."""
    if run.is_file():
        return Found(run, *load_checkpoint(run))
    found, rejected = load_newest_valid(run / "checkpoints")
    if found is None:
        raise EnsyncError(
            f"'{run}' holds no valid checkpoint ({rejected[0][1] if rejected else 'none'})",
            "the directory of a trained run",
            "train again, or take another run",
        )
    return found


def _network(job: Job, identity: Identity) -> Network:
    """Return the shapes of a job's network; its arrays are not made."""
    plain = job.training.model_copy(update={"precision": "float32"})
    with counted():
        shape = job.model_copy(update={"training": plain})
        return zoo.build(shape, identity.shape, identity.classes, 1)


def _refuse_other(path: Path, network: Network, identity: Identity) -> None:
    """Refuse a network whose first layer has no filters that are pictures."""
    first, channels = network.layers[0], identity.shape[2]
    square = isinstance(first, Convolution) and len(set(first.window.taps)) == 1
    if not isinstance(first, Convolution) or first.groups > 1 or not square:
        raise EnsyncError(f"{path} begins with '{first.describe()}'", EXPECTED, ANOTHER)
    if channels not in SHOWN:
        given = f"{path} was trained on images of {text.plural(channels, 'channel')}"
        raise EnsyncError(given, EXPECTED, ANOTHER)


def _weights(found: Found, network: Network, member: int) -> np.ndarray:
    """Return the filters of a member as it is tested, (size, size, channels, filters)."""
    prefix = f"members/{member:04d}/"
    vectors = {
        name.removeprefix(prefix): values
        for name, values in found.arrays.items()
        if name.startswith(prefix)
    }
    whole, first = first_kept(vectors).get("parameters"), network.layout[0][1]
    if whole is None or whole.size != network.parameters.size:
        raise EnsyncError(
            f"{found.path} has {'no' if whole is None else f'{whole.size:,}'} parameters of member "
            f"{member}",
            f"{network.parameters.size:,}, as its job describes the network",
            "use the checkpoint with its own job",
        )
    return whole[: first.size].reshape(first.shape)


def _parts(job: Job, network: Network, members: int) -> Parts:
    """Return what the filters of all members are put together by."""
    groups, ranks = _groups(network.layers), job.parallel.model
    if job.parallel.convolutions == "data":
        ranks = 1
    count = groups if groups > 1 else ranks
    names = [""]
    if count > 1:
        names = [f"rank {n}" if groups == 1 else f"tower {n}" for n in range(count)]
        if groups == ranks:
            names = [f"{name}, rank {n}" for n, name in enumerate(names)]
    if members > 1:
        every = [f"network {member}" for member in range(members)]
        names = [", ".join(filter(None, [one, name])) for one in every for name in names]
    if count > 1:
        return Parts("towers" if groups > 1 else "ranks", names)
    return Parts("networks" if members > 1 else "one", names)


def _groups(layers: Sequence[Layer]) -> int:
    """Return in how many groups the next convolution reads the channels of the first one."""
    for layer in layers[1:]:
        if isinstance(layer, Convolution):
            return layer.groups
        if not isinstance(layer, KEEPING):
            return 1
    return 1
