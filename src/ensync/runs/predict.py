"""`ensync predict`: classify image files with a trained run. Collective."""

import csv
import io
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ensync.core import streams
from ensync.core.fusion import FUSIONS, OF_ONE, shares
from ensync.core.sharding import block
from ensync.mpi.world import Comm, on_root, share
from ensync.report.console import Console, make_console
from ensync.report.text import plural
from ensync.runs import launch, results
from ensync.runs.data import SplitLoaders, only_pictures
from ensync.runs.identity import Identity
from ensync.runs.memory import need_of
from ensync.runs.opening import choose_run, identity_of, open_run
from ensync.runs.planned import PlannedRun
from ensync.runs.state import Loaded
from ensync.runs.watching import watched
from ensync.storage.request import Progress

if TYPE_CHECKING:
    from ensync.storage.sources.to_predict import Sorted

FORMATS = ("text", "csv", "json")
AT_ONCE = 256  # files that a rank reads before the ranks share what they have


def predict(
    comm: Comm,
    directory: str,
    images: tuple[str, ...],
    method: str | None,
    overrides: tuple[str, ...],
    form: str = "text",
) -> None:
    """Print the class of each image file, with the share of votes, in one of FORMATS. Where they
    are for another program, files that cannot be decoded are left out, and nothing else is on
    standard output.
    """
    machine = form != "text"
    console = Console(sys.stderr) if machine and comm.rank == 0 else make_console(comm.rank)
    directory = choose_run(comm, directory, "predict", console)
    loaded, job = open_run(comm, directory, overrides)
    trained_on = identity_of(comm, loaded, job.data.path, console)
    with console.counting() as progress:
        found = _read(comm, images, trained_on, machine, progress)
    pixels, names, notes = found.good
    method = method or (job.fusion.method if loaded.state.members > 1 else OF_ONE)
    launch.check_memory(comm, lambda: [need_of(job, trained_on, comm.size, False, ())])
    planned = PlannedRun(job, comm)
    loaders = loaders_for(planned, loaded, trained_on, pixels, method)
    planned.prepare(comm, lambda: loaders)
    with console.counting() as progress, watched(comm, loaded, job, loaders, progress):
        predicted = results.predict(comm, loaded, job, loaders, method)
    loaders.close()
    if predicted.votes is None:
        return
    for note in [*notes, *_left_out(found), *predicted.left_out]:
        console.warn(note)
    share_of = shares(np.maximum(predicted.votes, 0))
    if machine:
        write = as_csv if form == "csv" else as_json
        streams.say(write(names, share_of, trained_on.class_names, found.bad))
    else:
        _print_predictions(console, names, share_of, trained_on.class_names)
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


def _left_out(found: "Sorted") -> list[str]:
    """Return a line for each file that is left out, and how many they are."""
    if not found.bad:
        return []
    total = len(found.bad) + len(found.good.names)
    return [
        *(f"left out: {name} {why}" for name, why in found.bad),
        f"{len(found.bad)} of {plural(total, 'picture')} left out",
    ]


def _read(
    comm: Comm,
    images: tuple[str, ...],
    trained_on: Identity,
    without_bad: bool,
    progress: Progress,
) -> "Sorted":
    """Return the pictures, of which each rank reads a part; all on every rank, in order. Errors:
    EnsyncError, the same on all ranks.
    """
    from ensync.storage.sources.to_predict import decode_pictures, find_pictures, sort_out

    named = on_root(comm, lambda: find_pictures(images))
    decoded, total = [], len(named.files)
    for start in range(0, total, AT_ONCE * comm.size):
        part = named.files[start : start + AT_ONCE * comm.size]
        first, last = block(len(part), comm.size, comm.rank)
        mine = decode_pictures(part[first:last], trained_on.shape, trained_on.preparation)
        for theirs in share(comm, mine):
            decoded += theirs
        progress("reading pictures", len(decoded), total)
    return sort_out(named, decoded, trained_on.preparation, without_bad)


def as_csv(
    names: list[str], share_of: np.ndarray, classes: list[str], bad: Sequence[tuple[str, str]]
) -> str:
    """Return a table: of each picture the file, its likeliest class, and the share of votes
    float64 (pictures, classes) of each class. What is bad is not in it.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "class", *classes])
    for name, row in zip(names, share_of, strict=True):
        writer.writerow([name, classes[int(np.argmax(row))], *(f"{share:.6f}" for share in row)])
    return text.getvalue().rstrip("\n")


def as_json(
    names: list[str], share_of: np.ndarray, classes: list[str], bad: Sequence[tuple[str, str]]
) -> str:
    """Return the same as JSON, with the files that are bad, and why."""
    rows = [
        {
            "file": name,
            "class": classes[int(np.argmax(row))],
            "shares": [round(float(share), 6) for share in row],
        }
        for name, row in zip(names, share_of, strict=True)
    ]
    left_out = [{"file": name, "problem": why} for name, why in bad]
    content = {"format": "ensync-predictions", "version": 1, "classes": classes}
    return json.dumps(content | {"predictions": rows, "bad": left_out}, indent=1)


def _print_predictions(
    console: Console, names: list[str], share_of: np.ndarray, classes: list[str]
) -> None:
    width = max(map(len, names))
    for name, row in zip(names, share_of, strict=True):
        best = np.argsort(-row, kind="stable")[:3]
        console.line(
            f"{name:{width}}  " + "  ".join(f"{classes[c]} {100 * row[c]:.1f} %" for c in best)
        )
