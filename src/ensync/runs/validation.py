"""What is judged after an epoch: a member's validation loss, and that its replicas are equal."""

import math

from ensync.core.errors import EnsyncError
from ensync.mpi.allreduce import replicas_equal
from ensync.mpi.world import Comm, share
from ensync.nn.network import Network
from ensync.runs.networks import rows_together
from ensync.training.batches import BatchLoader
from ensync.training.callbacks import VALIDATED
from ensync.training.evaluation import Estimate, estimate_statistics, evaluate_block
from ensync.training.trainer import Trainer


def estimate_average_statistics(trainer: Trainer) -> None:
    """Give an average of weights the statistics that belong to it: that of the last steps, where
    those of the network in training stay, and that of replicas. Collective over the member's ranks.
    """
    if not trainer.network.normalizes:
        return
    if trainer.average.vectors:
        with trainer.using(VALIDATED) as network:
            _estimate(trainer, network)
            trainer.average.vectors["statistics"][:] = network.statistics
    elif trainer.reducer.estimates:
        _estimate(trainer, trainer.network)


def _estimate(trainer: Trainer, network: Network) -> None:
    """Set the network's moving statistics to those of the member's rows."""
    job, rows = trainer.job, trainer.rows
    estimate = Estimate(rows, rows_together(job, network, len(rows)), job.training.seed)
    estimate_statistics(network, trainer.loader, estimate, trainer.reducer.part)


def validate(trainer: Trainer, loader: BatchLoader, ranks: Comm) -> tuple[float, float]:
    """Return a member's loss and accuracy on the images of `loader`, the same bits on all `ranks`
    that train it. Collective over them.
    """
    deterministic = trainer.job.training.deterministic
    with trainer.using(VALIDATED):
        found = evaluate_block(trainer.network, loader, ranks.size, ranks.rank, deterministic)
    blocks = share(ranks, (found.losses, found.correct))
    loss = math.fsum(loss for losses, _ in blocks for loss in losses)  # exact, so of no order
    return loss / len(loader), sum(correct for _, correct in blocks) / len(loader)


def check_replicas(trainer: Trainer, ranks: Comm, when: str) -> None:
    """Refuse replicas of a member that differ by a bit. Collective over its ranks."""
    network = trainer.network
    if not all(
        [replicas_equal(ranks, vector) for vector in (network.parameters, network.statistics)]
    ):
        raise EnsyncError(
            f"the replicas of member {trainer.member} differ {when}",
            "the same bits on all its ranks",
            "look for ranks of different CPU types or library versions (`ensync doctor`)",
        )
