"""How colourful the filters of runs are, and whether their towers differ in that."""

import datetime
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ensync import __version__
from ensync.core.colours import COLOURS, chromatic_shares
from ensync.core.config.job import plain_settings
from ensync.core.config.schema import Job
from ensync.core.statistics.permutations import permutation_test
from ensync.report.filters.results import (
    FiltersResult,
    RunFilters,
    Tower,
    TowersFound,
    by_colour,
)
from ensync.report.results import DatasetFacts
from ensync.runs.filters.reading import Parts, Seen

WITHIN = 99  # per cent of the weights that are not clipped in the picture


def result_of(seen: Sequence[Seen]) -> FiltersResult:
    """Return the filters of runs. Those of one tower are cut into as many blocks as others have
    towers, which shows what chance does.
    """
    blocks = max((len(each.parts.names) for each in seen), default=1)
    labels = _labels(seen)
    runs = [_run(_cut(each, blocks), label) for each, label in zip(seen, labels, strict=True)]
    first = seen[0]
    identity, label_order = first.identity, list(dict.fromkeys(labels))
    return FiltersResult(
        runs=runs,
        found=[_towers([run for run in runs if run.label == label]) for label in label_order],
        job=plain_settings(first.job),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        versions={"ensync": __version__, "numpy": np.__version__},
        dataset=DatasetFacts(
            identity.name,
            first.job.data.path,
            dict(identity.sizes),
            list(identity.shape),
            identity.fingerprint,
        ),
    )


def _labels(seen: Sequence[Seen]) -> list[str]:
    """Return a name for each run: the same for those whose jobs differ in their seeds alone, that
    of the first of them, and another for others.
    """
    names: dict[str, str] = {}
    for each in seen:
        taken = set(names.values())
        key = _job_of(each.job)
        if key not in names:
            names[key] = each.label if each.label not in taken else str(each.path)
    return [names[_job_of(each.job)] for each in seen]


def _job_of(job: Job) -> str:
    """Return the settings of a job without its seed and its place."""
    settings: dict[str, Any] = {**plain_settings(job)}
    del settings["output"]
    settings["training"].pop("seed")
    settings["data"].pop("validation_seed")
    return json.dumps(settings, sort_keys=True)


def _cut(seen: Seen, blocks: int) -> Seen:
    """Return a run of one tower with so many blocks of it, where these divide its filters."""
    filters = seen.weights[0].shape[-1]
    if seen.parts.kind != "one" or blocks == 1 or filters % blocks:
        return seen
    names = [f"block {number}" for number in range(blocks)]
    return replace(seen, parts=Parts("blocks", names))


def _run(seen: Seen, label: str) -> RunFilters:
    """Return the filters of a run, as they are measured and shown."""
    each = len(seen.parts.names) // len(seen.weights)
    parts = [part for member in seen.weights for part in np.split(member, each, axis=-1)]
    limit = float(np.percentile(np.abs([_finite(member) for member in seen.weights]), WITHIN))
    coloured = seen.identity.shape[2] == COLOURS
    return RunFilters(
        path=str(seen.path),
        label=label,
        seed=seen.job.training.seed,
        kind=seen.parts.kind,
        size=seen.weights[0].shape[0],
        channels=seen.identity.shape[2],
        epochs=seen.epochs,
        towers=[
            Tower(name=name, shares=_shares(part) if coloured else [], pixels=_pixels(part, limit))
            for name, part in zip(seen.parts.names, parts, strict=True)
        ],
    )


def _finite(weights: np.ndarray) -> np.ndarray:
    """Return weights with 0 for those that are not finite."""
    found: np.ndarray = np.nan_to_num(weights, nan=0.0, posinf=0.0, neginf=0.0)
    return found


def _shares(weights: np.ndarray) -> list[float | None]:
    return [None if np.isnan(share) else float(share) for share in chromatic_shares(weights)]


def _pixels(weights: np.ndarray, limit: float) -> str:
    """Return weights as hexadecimal digits of uint8: 0 for -limit and below, 255 for limit."""
    scaled = np.clip(_finite(weights) / (limit or 1.0), -1, 1)
    pixels = np.round(127.5 + 127.5 * scaled).astype(np.uint8)
    return np.moveaxis(pixels, -1, 0).tobytes().hex()


def _towers(runs: Sequence[RunFilters]) -> TowersFound:
    """Return what the towers of a network are over its seeds, and whether they differ."""
    ordered = [by_colour(run) for run in runs]
    first = runs[0]
    found = TowersFound(
        label=first.label,
        kind=first.kind,
        seeds=[run.seed for run in runs],
        filters=len(bytes.fromhex(first.towers[0].pixels)) // (first.size**2 * first.channels),
        least=[towers[0].mean for towers in ordered],
        most=[towers[-1].mean for towers in ordered],
        colourful=[[tower.colourful for tower in towers] for towers in ordered if first.measured],
    )
    if not all(run.compared for run in runs):
        return found
    strata = [[np.array(tower.known) for tower in run.towers] for run in runs]
    test = permutation_test(strata)
    return replace(
        found,
        difference=test.difference,
        p=test.p,
        assignments=test.assignments,
        exact=test.exact,
    )
