"""`ensync evaluate RUN --groups N`: classes that a trained run takes for each other. Collective."""

import numpy as np

from ensync.core import metrics
from ensync.core.errors import EnsyncError
from ensync.core.fusion import FUSIONS, OF_ONE, winners
from ensync.core.statistics.grouping import coarse_classes
from ensync.mpi.world import Comm, on_root
from ensync.report.console import make_console
from ensync.runs import launch, results
from ensync.runs.evaluate import loaders_to_test
from ensync.runs.memory import need_of
from ensync.runs.opening import choose_run, identity_of, open_run
from ensync.runs.planned import PlannedRun


def find_groups(comm: Comm, directory: str, number: int, overrides: tuple[str, ...]) -> None:
    """Show so many groups of classes, by what the members of a run together, each with one vote,
    take the validation images for, as a layer of kind 'coarse_to_fine' takes them.

    Errors: EnsyncError for more groups than classes, and without validation images.
    """
    console = make_console(comm.rank)
    directory = choose_run(comm, directory, "evaluate", console)
    loaded, job = open_run(comm, directory, overrides)
    trained_on = identity_of(comm, loaded, job.data.path, console)
    classes = len(trained_on.class_names)
    on_root(comm, lambda: _check(number, classes, trained_on.sizes["validation"]))
    launch.check_memory(comm, lambda: [need_of(job, trained_on, comm.size, trains=False)])
    planned = PlannedRun(job, comm)
    place = planned.prepare(comm, lambda: loaders_to_test(planned, loaded, trained_on, None))
    evaluator = results.evaluator_of_files(comm, loaded, job, place.loaders)
    scores = evaluator.validation
    votes = scores.votes(comm, FUSIONS[OF_ONE], np.ones(scores.members)).values
    if votes is not None:
        counts = metrics.confusion(scores.loader.labels, winners(votes), classes)
        groups = coarse_classes(counts, number)
        named = [", ".join(trained_on.class_names[label] for label in each) for each in groups]
        console.lines([*named, "", f"groups = {groups}"])
    place.loaders.close()


def _check(number: int, classes: int, images: int) -> None:
    if number > classes:
        raise EnsyncError(
            f"--groups {number} of {classes} classes", f"at most {classes}", "ask for fewer"
        )
    if not images:
        raise EnsyncError(
            "--groups for a dataset without validation images",
            "images that neither train nor test",
            "prepare the dataset with --validation",
        )
