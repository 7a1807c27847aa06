"""`ensync init`: a job file with comments, for a dataset and a network. One process, no MPI."""

import json
import shlex
from pathlib import Path
from textwrap import wrap

import tomli_w

from ensync.core.config.job import Tables, job_from_dict, section_of
from ensync.core.config.network import NETWORKS
from ensync.core.errors import EnsyncError, nearest, printable
from ensync.storage.atomic import write_atomically
from ensync.storage.dataset import Dataset, open_dataset

WIDTH = 100  # columns of a comment
SMALL = 256  # values of an image for which a narrow perceptron does
FLAT = 1024  # values of an image up to which a perceptron is proposed
FEW = 10_000  # training rows below which an epoch has few steps


def write_job(name: str, data: str, network: str | None) -> list[str]:
    """Write a job file that trains as it is, and return lines that say what may follow.

    name: its path, .toml added where it lacks; data: the dataset; network: one of NETWORKS, None
    for one that fits the shape. Errors: EnsyncError for a file that is there already, a dataset
    that cannot be read, or a network that its images do not fit.
    """
    path = Path(name if name.endswith(".toml") else f"{name}.toml")
    if path.exists() or path.is_symlink():
        raise EnsyncError(
            f"'{path}' is there already", "a new file", "give another name, or delete it"
        )
    if not path.parent.is_dir():
        raise EnsyncError(
            f"there is no directory '{path.parent}' for '{path.name}'",
            "a directory that exists",
            "make it, or give another name",
        )
    with open_dataset(data) as dataset:
        settings = settings_for(dataset, data, network, path.stem)
        text = "\n".join([*_head(dataset, path), *_body(settings)]) + "\n"
    write_atomically(path, [text.encode()])
    place = shlex.quote(str(path))
    return [
        f"{path} is written",
        f"`ensync describe {place}` shows its layers and all settings, `mpirun -n 2 ensync train "
        f"{place}` trains it",
    ]


def settings_for(dataset: Dataset, data: str, network: str | None, stem: str) -> Tables:
    """Return the settings of a first job for a dataset, which are checked with it.

    Small datasets get more epochs and smaller batches, so that there are steps enough. Errors:
    EnsyncError for a network that is none, or that images of this shape do not fit.
    """
    if network is not None and network not in NETWORKS:
        raise EnsyncError(
            f"no network '{network}'{nearest(network, NETWORKS)}",
            "one of " + ", ".join(NETWORKS),
            "give one of them with --network, or leave it out",
        )
    few = dataset.sizes["train"] < FEW
    settings: Tables = {
        "data": {"path": data},
        "network": _network(network or _fitting(dataset.shape), dataset.shape),
        "training": {
            "strategy": "synchronous",
            "epochs": 20 if few else 10,
            "batch": 32 if few else 128,
            "seed": 1,
        },
        "optimizer": {"name": "adam", "learning_rate": 1e-3},
        "output": {"directory": f"runs/{stem}"},
    }
    _check(settings, dataset)
    return settings


def _fitting(shape: tuple[int, ...]) -> str:
    """Return the network that is proposed for images (height, width, channels)."""
    height, width, channels = shape
    return "mlp" if height * width * channels <= FLAT else "minixception"


def _network(name: str, shape: tuple[int, ...]) -> Tables:
    """Return the settings of a network: its own, and hidden layers of a perceptron that is free to
    have any.
    """
    if name != "mlp":
        return {"name": name}
    height, width, channels = shape
    small = height * width * channels <= SMALL
    return {"name": name, "hidden": [64, 32] if small else [256, 128]}


def _check(settings: Tables, dataset: Dataset) -> None:
    """Refuse a network that cannot be built for the dataset's images."""
    from ensync.nn.memory import counted
    from ensync.nn.models import zoo

    with counted():
        zoo.build(job_from_dict(settings), dataset.shape, dataset.classes, 1)


def _head(dataset: Dataset, path: Path) -> list[str]:
    """Return the comment that a job file begins with."""
    place = printable(shlex.quote(str(path)))
    shape = " x ".join(map(str, dataset.shape))
    return [
        *_comment(
            f"For {dataset.sizes['train']:,} training images of {shape} in "
            f"{dataset.classes} classes."
        ),
        f"#   ensync describe {place}",
        f"#   mpirun -n 2 ensync train {place}",
        f"#   mpirun -n 2 ensync compare {place}",
        "# `ensync settings` explains these and all other settings.",
    ]


def _body(settings: Tables) -> list[str]:
    """Return the sections of a job file: each setting below what it means."""
    lines = []
    for name, table in settings.items():
        section = section_of(name)
        lines += ["", *_comment(str(section.__doc__)), f"[{name}]"]
        assert isinstance(table, dict)
        for key, value in table.items():
            meaning = section.model_fields[key].description or key
            lines += [*_comment(meaning), f"{key} = {_toml(value)}"]
    return lines


def _comment(text: str) -> list[str]:
    lines = wrap(" ".join(text.split()), WIDTH - 2, break_on_hyphens=False)
    return [f"# {line}" for line in lines]


def _toml(value: object) -> str:
    """Return a value as TOML on one line, which lists of numbers are in JSON, too."""
    if isinstance(value, list):
        return json.dumps(value)
    return tomli_w.dumps({"value": value}).removeprefix("value = ").rstrip("\n")
