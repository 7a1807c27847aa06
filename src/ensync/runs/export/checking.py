"""`ensync import`: whether a file of weights fits a job. One process, no MPI."""

import shlex
from typing import NamedTuple

from ensync.core.config.job import load_job
from ensync.core.config.schema import Job
from ensync.nn.models import zoo
from ensync.runs.describe import Images
from ensync.runs.export.weights import Weights, read
from ensync.storage.dataset import open_dataset


class Asked(NamedTuple):
    """What the verb is given: a file of weights, a job file and its overrides."""

    file: str
    job: str
    overrides: tuple[str, ...] = ()


def check(asked: Asked, images: Images | None = None) -> str:
    """Return which arrays of a file a job's network takes, and how to train from them.

    images: those that the job is for, in place of its dataset's. Errors: EnsyncError that names
    what does not fit.
    """
    weights = f"network.weights={asked.file}"
    job = load_job(asked.job, (*asked.overrides, weights))
    shape, classes = images or _images_of(job)
    network = zoo.build(job, shape, classes, rows=1)
    filled = Weights(asked.file, read(asked.file), job.network.new_output).fill(network)
    changes = "".join(f" --set {shlex.quote(text)}" for text in (*asked.overrides, weights))
    return (
        f"{asked.file} fits {asked.job}: {filled}\n"
        f"train from it: ensync train {shlex.quote(asked.job)}{changes}"
    )


def _images_of(job: Job) -> Images:
    with open_dataset(job.data.path) as dataset:
        return Images(dataset.shape, len(dataset.class_names))
