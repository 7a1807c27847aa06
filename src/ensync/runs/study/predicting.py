"""How long the contestants of a study over meetings would take on more nodes, by the prediction
that `ensync scale` wrote into the directory of the study.
"""

import math
from collections.abc import Sequence
from pathlib import Path

from ensync.core.config.communication import NEVER
from ensync.core.errors import EnsyncError
from ensync.core.scaling.prediction import Contestant, Model
from ensync.report.results import Settings
from ensync.report.study_results import ContestantResult, LeftOut, PredictedTimes, StudyAxis
from ensync.runs.scale.checking import FILE, read_prediction, refuse_other

NODES = (10, 100, 1000)
SETTING = "communication.every"  # whose values are predicted


def predicted(
    directory: Path, job: Settings, axis: StudyAxis | None, contestants: Sequence[ContestantResult]
) -> list[PredictedTimes] | LeftOut:
    """Return the seconds of each value of communication.every on each number of nodes; none of
    another study, without a prediction, or where it knows no link between nodes. Where the
    prediction cannot be used, why.
    """
    if axis is None or axis.setting != SETTING or not (directory / FILE).exists():
        return []
    try:
        prediction = read_prediction(directory / FILE)
        refuse_other(directory, prediction.job, job)
    except EnsyncError as error:
        return LeftOut("predicted seconds", f"{error.given}; {error.action}")
    model, between = Model(prediction.calibration), prediction.calibration.wires.between
    most = max((each.ranks for each in contestants), default=0)
    shown = [each for each in contestants if each.ranks == most and each.name in axis.values]
    if between is None:
        return []
    found = [(nodes, _on(nodes, model, axis, shown)) for nodes in NODES]
    link = between.link
    return [
        PredictedTimes(nodes=nodes, seconds=seconds, latency=link.latency, bandwidth=1 / link.byte)
        for nodes, seconds in found
        if seconds and link.byte
    ]


def _on(
    nodes: int, model: Model, axis: StudyAxis, contestants: Sequence[ContestantResult]
) -> dict[str, float]:
    """Return the seconds of all steps of each contestant on so many nodes, by its name."""
    ranks = nodes * model.calibration.ranks_on_node
    found = {
        each.name: (model.predict(_contestant(axis.values[each.name]), ranks), each.cost.steps)
        for each in contestants
    }
    return {
        name: steps * prediction.step
        for name, (prediction, steps) in found.items()
        if prediction is not None and steps is not None
    }


def _contestant(every: object) -> Contestant:
    """Return what a value of communication.every is to the model."""
    if every == 1:
        return Contestant("synchronous")
    return Contestant("local SGD", math.inf if every == NEVER else float(str(every)))
