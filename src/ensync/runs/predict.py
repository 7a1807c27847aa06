"""`ensync predict`: classify image files with a trained run. Collective."""

from dataclasses import replace

import numpy as np

from ensync.core.fusion import FUSIONS, OF_ONE, shares
from ensync.mpi.world import Comm, on_root
from ensync.report.console import Console, make_console
from ensync.runs import launch, results
from ensync.runs.data import SplitLoaders, only_pictures
from ensync.runs.identity import Identity
from ensync.runs.memory import need_of
from ensync.runs.opening import choose_run, identity_of, open_run
from ensync.runs.planned import PlannedRun
from ensync.runs.state import Loaded


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
    planned = PlannedRun(job, comm)
    loaders = loaders_for(planned, loaded, trained_on, pixels, method)
    planned.prepare(comm, lambda: loaders)
    votes = results.predict(comm, loaded, job, loaders, method)
    if votes is not None:
        for note in notes:
            console.warn(note)
        _print_predictions(console, names, votes, trained_on.class_names)
        console.check()


def loaders_for(
    planned: PlannedRun, loaded: Loaded, trained_on: Identity, pixels: np.ndarray, method: str
) -> SplitLoaders:
    """Return loaders whose test images are `pixels`, uint8 (n, height, width, channels), with the
    run's own dataset only where the fusion needs it. Collective.
    """
    comm, job = planned.ranks, planned.job
    loaders = only_pictures(trained_on, job.data, job.training.dtype, pixels)
    averages = FUSIONS[method].of_parameters and loaded.state.members > 1
    if averages and loaded.normalizes(comm):  # whose statistics are of the training images
        return replace(planned.open(comm, loaded.accept), test=loaders.test)
    return loaders


def _print_predictions(
    console: Console, names: list[str], votes: np.ndarray, classes: list[str]
) -> None:
    width = max(map(len, names))
    for name, row in zip(names, shares(np.maximum(votes, 0)), strict=True):
        best = np.argsort(-row, kind="stable")[:3]
        console.line(
            f"{name:{width}}  " + "  ".join(f"{classes[c]} {100 * row[c]:.1f} %" for c in best)
        )
