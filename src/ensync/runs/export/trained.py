"""What is exported of a run: its networks with the parameters that a test takes, the weight of each
in the fusion, and what its images and classes are.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ensync.core.fusion import FUSIONS, Fusion
from ensync.nn.network import Network
from ensync.runs.ensemble_evaluator import EnsembleEvaluator
from ensync.runs.identity import Identity
from ensync.runs.scores import voting_weights
from ensync.training.views import View


@dataclass(frozen=True)
class Trained:
    """The networks of a run, and how they become one answer.

    weights float64 (networks,): of each in the fusion, summing to 1. name: of the run.
    """

    evaluator: EnsembleEvaluator
    fusion: Fusion
    weights: np.ndarray
    name: str

    def networks(self) -> Iterator[Network]:
        """Yield each network; the next one overwrites it."""
        network = self.evaluator.network
        if self.fusion.of_parameters:
            yield network
            return
        for member, parameters, statistics in self.evaluator.vectors:
            if member in self.evaluator.test.present:
                network.parameters[:], network.statistics[:] = parameters, statistics
                yield network

    @property
    def notes(self) -> list[str]:
        """Sentences on what differs from the run."""
        found = self.evaluator.left_out
        if self.evaluator.job.training.precision == "bf16":
            found.append(
                "the run computes with operands in bf16, other programs compute in float32: their "
                "answers differ by what bf16 rounds"
            )
        return found

    @property
    def identity(self) -> Identity:
        """What the run was trained on."""
        return self.evaluator.loaders.identity

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an image."""
        return self.identity.shape

    @property
    def class_names(self) -> list[str]:
        """Of the labels 0, 1, ..."""
        return self.identity.class_names

    @property
    def mean(self) -> np.ndarray:
        """What is taken off the pixels of each channel, (channels,)."""
        return self.evaluator.test.loader.mean

    @property
    def inverse_std(self) -> np.ndarray:
        """What they are multiplied by then, (channels,)."""
        return self.evaluator.test.loader.inverse_std

    @property
    def views(self) -> tuple[View, ...]:
        """The views of an image that a test takes the mean over; none: the image alone."""
        return tuple(self.evaluator.test.views)


def trained_of(evaluator: EnsembleEvaluator, method: str, name: str) -> Trained:
    """Return the networks of an evaluator, whose members can be fused by `method`."""
    fusion = FUSIONS[method]
    weights = voting_weights(fusion, evaluator.test, *evaluator.validated)
    if fusion.of_parameters:
        evaluator.average(weights)
        return Trained(evaluator, fusion, np.ones(1), name)
    return Trained(evaluator, fusion, weights[evaluator.test.present], name)
