"""`ensync predict`: classify image files with a trained run. Collective."""

from dataclasses import replace

import numpy as np

from ensync.core.fusion import FUSIONS, OF_ONE, shares
from ensync.mpi.world import Comm, on_root
from ensync.report.console import Console, make_console
from ensync.runs import launch, results
from ensync.runs.data import only_pictures
from ensync.runs.memory import need_of
from ensync.runs.opening import choose_run, identity_of, open_run
from ensync.runs.planned import PlannedRun


def predict(
    comm: Comm,
    directory: str,
    images: tuple[str, ...],
    method: str | None,
    overrides: tuple[str, ...],
) -> None:
    """Print the class of each image file, with the share of votes."""
    from ensync.storage.sources.to_predict import read_pictures

    console = make_console(comm.rank)
    directory = choose_run(comm, directory, "predict", console)
    loaded, job = open_run(comm, directory, overrides)
    trained_on = identity_of(comm, loaded, job.data.path, console)
    pixels, names, notes = on_root(
        comm, lambda: read_pictures(images, trained_on.shape, trained_on.preparation)
    )
    method = method or (job.fusion.method if loaded.state.members > 1 else OF_ONE)
    launch.check_memory(comm, lambda: [need_of(job, trained_on, comm.size, False, ())])
    planned, loaders = (
        PlannedRun(job, comm),
        only_pictures(trained_on, job.data, job.training.dtype, pixels),
    )
    if (
        FUSIONS[method].of_parameters and loaded.state.members > 1 and loaded.normalizes(comm)
    ):  # whose statistics are taken from the training images
        loaders = replace(planned.open(comm, loaded.accept), test=loaders.test)
    planned.prepare(comm, lambda: loaders)
    votes = results.predict(comm, loaded, job, loaders, method)
    if votes is not None:
        for note in notes:
            console.warn(note)
        _print_predictions(console, names, votes, trained_on.class_names)
        console.check()


def _print_predictions(
    console: Console, names: list[str], votes: np.ndarray, classes: list[str]
) -> None:
    width = max(map(len, names))
    for name, row in zip(names, shares(np.maximum(votes, 0)), strict=True):
        best = np.argsort(-row, kind="stable")[:3]
        console.line(
            f"{name:{width}}  " + "  ".join(f"{classes[c]} {100 * row[c]:.1f} %" for c in best)
        )
