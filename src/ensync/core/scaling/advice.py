"""What follows from predictions: how far more ranks pay, and how many should train together."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ensync.core.scaling.noise import Together, samples_factor, steps_factor
from ensync.core.scaling.prediction import Calibration, Contestant, Model, Prediction

WORTH = 0.5  # efficiency below which ranks cost more than they bring


@dataclass(frozen=True)
class Limit:
    """How far more ranks pay. fastest: ranks of the shortest epoch; reason: what keeps more from
    being faster, "" where nothing does up to the most that were asked for; worthwhile: the most
    ranks of which each still does half of what it does alone; loss: what takes the rest there.
    """

    fastest: int
    reason: str
    worthwhile: int
    loss: str


def limit_of(predictions: Sequence[Prediction]) -> Limit:
    """Return how far more ranks pay, given the predictions of one contestant by ranks, ascending.
    The reason is the part of a step that has grown most from the fastest to the next, or that each
    of the more ranks has no sample.
    """
    fastest = min(predictions, key=lambda each: each.epoch)
    place = predictions.index(fastest)
    after = predictions[place + 1 :]
    reason = _growth(fastest, after[0]) if after else ""
    worth = fastest
    for each in predictions:
        if each.efficiency < WORTH:
            break
        worth = each
    return Limit(fastest.ranks, reason, worth.ranks, worth.parts.loss)


def _growth(before: Prediction, after: Prediction) -> str:
    if after.rows == before.rows and not math.isinf(after.contestant.every):
        return "rows"
    names = [name for name in vars(after.parts) if name != "shared"]
    return max(names, key=lambda name: getattr(after.parts, name) - getattr(before.parts, name))


def together(calibration: Calibration, noise: float, ranks: Sequence[int]) -> list[Together]:
    """Return for each number of ranks the batch with which it reaches the same loss soonest, of
    the job's own, its halves and its doubles, given the noise scale in samples: steps to that loss
    times the seconds of a step. It is taken for granted that the learning rate suits each batch.
    """
    own, rows = calibration.sizes.batch, calibration.sizes.rows
    batches = [own << up for up in range(24) if own << up <= rows]
    batches += [own >> down for down in range(1, 24) if own >> down >= 2]
    models = {
        batch: Model(replace(calibration, sizes=replace(calibration.sizes, batch=batch)))
        for batch in {own, *batches}
    }
    alone = models[own].predict(Contestant("synchronous"), 1)
    assert alone is not None, "one rank needs no link"
    base = alone.step * steps_factor(noise, own)
    found = []
    for count in ranks:
        each = [_with_batch(models[batch], batch, count, noise, base) for batch in models]
        known = [one for one in each if one is not None]
        found += [min(known, key=lambda one: one.time)] if known else []
    single = next((each.time * each.ranks for each in found if each.ranks == min(ranks)), 1.0)
    return [
        replace(
            each,
            samples=each.samples / samples_factor(noise, own),
            efficiency=single / (each.time * each.ranks),
        )
        for each in found
    ]


def _with_batch(model: Model, batch: int, ranks: int, noise: float, base: float) -> Together | None:
    found = model.predict(Contestant("synchronous"), ranks)
    if found is None:
        return None
    time = found.step * steps_factor(noise, batch) / base
    return Together(
        ranks=ranks,
        batch=batch,
        rows=found.rows,
        step=found.step,
        time=time,
        samples=samples_factor(noise, batch),
        efficiency=1.0,
    )
