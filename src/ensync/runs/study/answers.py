"""What the networks of a trained cell answer for test and validation images, gathered on rank 0,
and what networks with a mean of their parameters do.
"""

from typing import NamedTuple

import numpy as np

from ensync.core.fusion import FUSIONS, winners
from ensync.runs.ensemble_evaluator import EnsembleEvaluator
from ensync.runs.scores import SplitScores
from ensync.runs.study.fusing import Senseless, fuse
from ensync.storage.outputs import Outputs, SplitOutputs


class Answers(NamedTuple):
    """What two splits were answered with, float32 `(rows, classes)` on rank 0, None elsewhere."""

    test: np.ndarray | None
    validation: np.ndarray | None


NOTHING = Answers(None, None)


def outputs_of(evaluator: EnsembleEvaluator) -> Outputs | None:
    """Return on rank 0 what the usable members answered, and None elsewhere; there must be one.
    Collective.

    The numbers of a member do not depend on the order in which ranks are gathered: each row is
    computed by one rank and put in its place.
    """
    soup = greedy_soup(evaluator)
    members = evaluator.test.present
    averaged = averaged_answers(evaluator, members) if may_average(evaluator) else NOTHING
    souped = averaged_answers(evaluator, soup) if soup else NOTHING
    found = {
        name: (scores.loader.labels, scores.gathered(evaluator.comm))
        for name, scores in (("test", evaluator.test), ("validation", evaluator.validation))
    }
    if evaluator.comm.rank:
        return None

    def split(name: str) -> SplitOutputs:
        labels, probabilities = found[name]
        assert probabilities is not None
        return SplitOutputs(
            labels.astype(np.int64, copy=False),
            probabilities,
            getattr(averaged, name),
            getattr(souped, name),
        )

    return Outputs(
        np.array(members, np.int64),
        split("test"),
        split("validation"),
        np.array(soup if souped.test is not None else [], np.int64),
    )


def agree_on_members(evaluator: EnsembleEvaluator) -> bool:
    """Leave a member out of both splits where its outputs for one of them are not finite; return
    whether any is left.
    """
    excluded = evaluator.validation.excluded | evaluator.test.excluded
    evaluator.validation.excluded = evaluator.test.excluded = excluded
    return bool(evaluator.test.present)


def may_average(evaluator: EnsembleEvaluator) -> bool:
    """Return whether the mean of the members' parameters is a network: there are several, from
    one start.
    """
    several = len(evaluator.test.present) > 1
    return several and not evaluator.refusal(FUSIONS["weight_averaging"])


def averaged_answers(evaluator: EnsembleEvaluator, members: list[int]) -> Answers:
    """Return what the network with the mean parameters of these members answers, nothing where
    that is not finite. Collective.
    """
    evaluator.average(_equal_weights(evaluator, members))
    both = [_scores(evaluator, like) for like in (evaluator.test, evaluator.validation)]
    if any(scores.excluded for scores in both):
        return NOTHING
    gathered = [scores.gathered(evaluator.comm) for scores in both]
    return Answers(*(None if found is None else found[0] for found in gathered))


def greedy_soup(evaluator: EnsembleEvaluator) -> list[int]:
    """Return the members whose mean parameters make the greedy soup, on every rank; none where
    there is no such network or no validation image. Collective.

    Members are added in order of their validation accuracy, the best first, and each stays where
    the validation accuracy of the mean does not fall (Wortsman et al. 2022, Model soups, recipe 1).
    """
    if not (may_average(evaluator) and len(evaluator.validation.loader)):
        return []
    right = evaluator.validation.correct
    first, *others = sorted(evaluator.test.present, key=lambda member: (-right[member], member))
    kept, best = [first], int(right[first])
    for member in others:
        evaluator.average(_equal_weights(evaluator, [*kept, member]))
        found = _scores(evaluator, evaluator.validation)
        if not found.excluded and found.correct[0] >= best:
            kept, best = [*kept, member], int(found.correct[0])
    return kept


def fused_validation_accuracy(outputs: Outputs | None, method: str) -> float | None:
    """Return the validation accuracy of the members fused by a method; None where there is no
    output, no validation image or no such fusion.
    """
    if outputs is None or not len(outputs.validation.labels):
        return None
    found = fuse(method, outputs)
    if isinstance(found, Senseless):
        return None
    return float((winners(found.validation) == outputs.validation.labels).mean())


def _equal_weights(evaluator: EnsembleEvaluator, members: list[int]) -> np.ndarray:
    weights = np.zeros(evaluator.test.members)
    weights[members] = 1 / len(members)
    return weights


def _scores(evaluator: EnsembleEvaluator, like: SplitScores) -> SplitScores:
    """Return the scores of the evaluator's free network, summed over the ranks. Collective."""
    scores = evaluator.scores_of_network(like)
    scores.reduce(evaluator.comm, {})
    return scores
