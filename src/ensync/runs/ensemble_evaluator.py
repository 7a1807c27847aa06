"""The scores of all members of a run on its test and validation images, and their fusions."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from ensync.core.activity import Doing, doing
from ensync.core.config.job import Job
from ensync.core.fusion import FUSIONS, OF_ONE, Fusion, winners
from ensync.mpi.allreduce import Allreduce
from ensync.mpi.world import Comm
from ensync.nn.network import Network
from ensync.report.results import FusionFigures, Refused
from ensync.runs.data import SplitLoaders
from ensync.runs.exits import no_counts
from ensync.runs.networks import build_network, rows_together
from ensync.runs.scores import OnRoot, SplitScores, average, figures, voting_weights
from ensync.training.evaluation import Estimate, estimate_statistics
from ensync.training.reducers import WHOLE, Part
from ensync.training.views import views_of

Vectors = tuple[np.ndarray, np.ndarray]
NOT_SELECTED = "not selected"  # why a member that nobody asked for is in no fusion


@dataclass
class Member:
    """One member on this rank: its network, and the block of the rows, `rank` of `size`, that this
    rank evaluates.

    vectors: its parameters and statistics where this rank adds them to an average. counts: whether
    the scores are this rank's; not where another one has the same, of another part of the network.
    """

    member: int
    network: Network
    size: int
    rank: int
    vectors: Vectors | None
    counts: bool = True


@dataclass
class EnsembleEvaluator:
    """The scores of all members on the test and the validation split, ready to be fused. Every
    rank must make the same calls.
    """

    comm: Comm
    job: Job
    loaders: SplitLoaders
    test: SplitScores
    validation: SplitScores
    vectors: list[tuple[int, np.ndarray, np.ndarray]]
    network: Network  # like-built, free to be overwritten
    ended: dict[int, str]  # why training ended, by member
    # how many validation images each member had right, and of how many, by the checkpoint, where
    # the images are not at hand
    saved_validation: tuple[np.ndarray, int] | None = None
    sent: dict[str, int] = field(default_factory=dict)  # bytes that a fusion passed between ranks
    predictions: dict[str, np.ndarray] = field(
        default_factory=dict
    )  # on rank 0, labels int64 (rows,) by fusion

    def fuse(self, method: str, upto: int | None = None) -> FusionFigures | Refused | None:
        """Return on rank 0 the test figures of the fusion of members below `upto`, or why it is
        refused; None elsewhere. Collective.
        """
        fusion = FUSIONS[method]
        if why := self.refusal(fusion):
            return Refused(why) if self.comm.rank == 0 else None
        votes, self.sent[method] = self.votes(fusion, upto)
        if votes is None:
            return None
        self.predictions[method] = winners(votes)
        return figures(
            votes,
            self.test.loader.labels,
            self.network.loss.is_cross_entropy and fusion.yields_probabilities,
        )

    def votes(self, fusion: Fusion, upto: int | None = None) -> OnRoot:
        """Return on rank 0 the votes float64 `(rows, classes)` for the test images, of members
        below `upto`. Collective.
        """
        weights = voting_weights(fusion, self.test, *self.validated)
        if not fusion.of_parameters:
            return self.test.votes(self.comm, fusion, weights, upto)
        averaged, sent = self._averaged(weights)
        votes = averaged.votes(self.comm, FUSIONS[OF_ONE], np.ones(1))
        return OnRoot(votes.values, votes.sent + sent)

    @property
    def left_out(self) -> list[str]:
        """A line for each member that is in no fusion, but for those that nobody asked for."""
        return [
            f"member {member} is left out: {why}"
            for member, why in self.test.excluded.items()
            if why != NOT_SELECTED
        ]

    def refusal(self, fusion: Fusion) -> str:
        """Return why the members cannot be fused so, "" where they can."""
        if not len(self.test.loader):
            return "the dataset has no test images"
        if not self.test.present:
            return "no member is left: " + "; ".join(
                f"{m}: {why}" for m, why in self.test.excluded.items()
            )
        right, rows = self.validated
        if fusion.needs_validation and self.test.members > 1 and not rows:
            return "the dataset has no validation images to weigh the members by"
        if fusion.needs_validation and (right[self.test.present] < 0).any():
            return (
                "the checkpoint does not tell how the members did on the validation images, "
                "and these are not at hand"
            )
        if (
            fusion.of_parameters
            and len(self.network.statistics)
            and len(self.test.present) > 1
            and not len(self.loaders.train)
        ):
            return (
                "batch normalisation takes its statistics anew from the training images, and "
                "these are not at hand"
            )
        if fusion.of_parameters and self.test.members > 1 and self.job.ensemble.start == "own":
            return (
                "the members started from different weights, whose mean is no network; set "
                "ensemble.start = 'shared' or 'synchronous'"
            )
        return ""

    @property
    def validated(self) -> tuple[np.ndarray, int]:
        """How many validation images each member has right, int64 (members,), and how many there
        are.
        """
        return self.saved_validation or (self.validation.correct, len(self.validation.loader))

    def _averaged(self, weights: np.ndarray) -> tuple[SplitScores, int]:
        """Return the scores of the network with the mean of the members' parameters, and the bytes
        sent for that mean. Collective.
        """
        sent = self.average(weights)
        return self.scores_of_network(self.test), sent

    def average(self, weights: np.ndarray) -> int:
        """Give `network` the mean of the members' parameters by these weights float64
        `(members,)`, on every rank, and return the bytes sent for it. Collective.
        """
        deterministic = self.job.training.deterministic
        sent = average(self.comm, self.vectors, weights, self.network, deterministic)
        if np.count_nonzero(weights) > 1:
            rows = np.arange(len(self.loaders.train), dtype=np.int64)
            alone = deterministic or self.comm.size == 1
            together = rows_together(self.job, self.network, len(rows))
            estimate_statistics(
                self.network,
                self.loaders.train,
                Estimate(rows, together, self.job.training.seed),
                WHOLE if alone else Part(self.comm.size, self.comm.rank, Allreduce(self.comm)),
            )
        return sent

    def scores_of_network(self, like: SplitScores) -> SplitScores:
        """Return the scores of `network` for the images of `like`, each rank's block of them.
        Collective.
        """
        scores = SplitScores(like.loader, 1, like.classes, like.deterministic, like.views)
        scores.evaluate(0, self.network, self.comm.size, self.comm.rank)
        return scores

    @property
    def member_accuracies(self) -> list[float | None]:
        """Test accuracy of each member, None of those left out."""
        return self._accuracies(self.test, self.test.correct)

    @property
    def accuracies_alone(self) -> list[float | None]:
        """Test accuracy of each member by the images alone, where others are by several views; else
        none.
        """
        return self._accuracies(self.test, self.test.alone) if self.test.views else []

    @property
    def exits(self) -> np.ndarray:
        """Where the test images left the members that are not left out (training.exits)."""
        return self.test.exits[self.test.present] if len(self.test.exits) else self.test.exits

    @property
    def validation_accuracies(self) -> list[float | None]:
        """Validation accuracy of each member, None of those left out."""
        return self._accuracies(self.validation, self.validation.correct)

    def _accuracies(self, scores: SplitScores, correct: np.ndarray) -> list[float | None]:
        rows, out = len(scores.loader), self.test.excluded
        return [
            None if m in out or not rows else float(correct[m] / rows)
            for m in range(scores.members)
        ]


def gather_evaluator(
    comm: Comm,
    job: Job,
    loaders: SplitLoaders,
    ended: dict[int, str],
    mine: Iterable[Member],
    failed: dict[int, str],
) -> EnsembleEvaluator:
    """Evaluate the members of this rank on test and validation, and sum the counts over the ranks.
    Collective.
    """
    members = len(ended)
    method, spare = job.evaluation.augmentation, build_network(job, loaders.identity, comm.size)
    test, validation = (
        SplitScores(loader, members, loaders.identity.classes, job.training.deterministic, views)
        for loader, views in (
            (loaders.test, views_of(method, spare.shape, loaders.identity.shape)),
            (loaders.validation, ()),
        )
    )
    if loaders.file is not None:  # of pictures alone nobody knows what is right
        test.exits = no_counts(spare, members)
    vectors = []
    for each in mine:
        with doing(Doing.EVALUATING):
            for scores in (test, validation):
                scores.evaluate(each.member, each.network, each.size, each.rank, each.counts)
        if each.vectors:
            vectors.append((each.member, *each.vectors))
    test.reduce(comm, failed)
    validation.reduce(comm, failed)
    return EnsembleEvaluator(comm, job, loaders, test, validation, vectors, spare, ended)
