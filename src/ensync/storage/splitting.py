"""Cut the splits of a dataset file from those of its source, in the order of a seed."""

from dataclasses import dataclass

import numpy as np

from ensync.core.sharding import Purpose, generator
from ensync.storage.sources.source import Source, first_few

VALIDATION, TEST = 0, 1  # streams of random numbers


@dataclass(frozen=True)
class Part:
    """A split of the file: which rows of which split of the source."""

    origin: str
    rows: np.ndarray


def cut(source: Source, validation: float, test: float, seed: int) -> dict[str, Part]:
    """Return the rows of each split: those cut from train in a random order (of `seed`), those
    given in the order of the source.

    The random order is for sources sorted by class: blocks of neighbouring rows then hold all
    classes.
    """
    labels = source.labels["train"]
    rows = np.arange(len(labels))
    given = {
        split: Part(split, np.arange(len(source.labels[split])))
        for split in ("validation", "test")
        if split in source.labels
    }
    tests = given.get("test")
    if tests is None:
        chosen = stratified(labels, test, generator(seed, Purpose.SPLIT, TEST))
        tests, rows = Part("train", rows[chosen]), rows[~chosen]
    random = generator(seed, Purpose.SPLIT, VALIDATION)
    rows = random.permutation(rows)
    if "validation" in given:
        return {"train": Part("train", rows), "validation": given["validation"], "test": tests}
    chosen = stratified(labels[rows], validation, random)
    return {
        "train": Part("train", rows[~chosen]),
        "validation": Part("train", rows[chosen]),
        "test": tests,
    }


def stratified(labels: np.ndarray, part: float, random: np.random.Generator) -> np.ndarray:
    """Return a mask bool (rows,) of round(part * rows) rows with the classes in proportion (largest
    remainders, ties by lot).

    At least one row of each class stays out of it; other classes then give more, and the rows are
    fewer only when none can.
    """
    mask = np.zeros(len(labels), bool)
    for label, count in enumerate(_taken(np.bincount(labels), part, random)):
        if count > 0:
            mask[random.permutation(np.flatnonzero(labels == label))[:count]] = True
    return mask


def _taken(counts: np.ndarray, part: float, random: np.random.Generator) -> np.ndarray:
    """Return how many rows int64 (classes,) a cut takes of each class, which has counts int64
    (classes,).
    """
    shares, room = counts * part, np.maximum(counts - 1, 0)
    taken: np.ndarray = np.minimum(np.floor(shares).astype(np.int64), room)
    lot = random.spawn(1)[0].permutation(
        len(counts)
    )  # a stream of its own: the rows chosen do not depend on it
    while (short := round(part * counts.sum()) - int(taken.sum())) > 0 and (taken < room).any():
        able = np.flatnonzero(taken < room)
        remainders = np.round(shares - taken, 9)[able]  # equal ones differ by rounding
        taken[able[np.lexsort((lot[able], -remainders))][:short]] += 1
    return taken


def lacking(source: Source, parts: dict[str, Part]) -> list[str]:
    """Return a note for each split cut from train, not empty, that has no image of some classes."""
    notes = []
    for split, part in ((split, part) for split, part in parts.items() if part.origin != split):
        counts = np.bincount(
            source.labels[part.origin][part.rows], minlength=len(source.class_names)
        )
        names = [f"'{source.class_names[label]}'" for label in np.flatnonzero(counts == 0)]
        if names and len(part.rows):
            images = f"{len(part.rows):,} {split} image{'s' * (len(part.rows) > 1)}"
            notes.append(
                f"the {images} have none of {len(names)} of {len(counts)} classes: "
                f"{first_few(names, len(names))}"
            )
    return notes
