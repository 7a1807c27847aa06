"""The members that this rank trains: their networks, rows and optimisers, and what sums their
gradients.
"""

from functools import partial

from ensync.core.activity import tick
from ensync.core.config.parallel import Parallel
from ensync.core.config.training import Training
from ensync.core.errors import EnsyncError, plural
from ensync.core.sharding import groups
from ensync.mpi.mesh import Mesh
from ensync.mpi.stages import StageLinks
from ensync.mpi.values import ValueExchange
from ensync.nn.memory import Workspace
from ensync.nn.optimizers import Optimizer
from ensync.runs.context import RunContext
from ensync.runs.export.weights import Weights
from ensync.runs.length import parts_of
from ensync.runs.networks import build_network
from ensync.training.batches import first_images
from ensync.training.shares import Shares
from ensync.training.trainer import Trainer


def build_trainers(
    context: RunContext, mesh: Mesh, weights: Weights | None = None
) -> dict[int, Trainer]:
    """Return this rank's members with their start values, those of `weights` where there are some.
    Collective over the ranks of `mesh`.
    """
    job, loaders = context.job, context.loaders
    trainers: dict[int, Trainer] = {}

    def progress(trainer: Trainer) -> None:
        tick(trainer.optimizer.steps)
        done = sum(t.steps_done for t in trainers.values())
        context.console.step(done, trainer.loss)

    check_virtual_shards(job.training, mesh.comm.size, mesh.members)
    check_micro_batches(job.training, job.parallel, mesh.comm.size, mesh.members)
    timeline = context.profiler.timeline if context.profiler else None
    strategy, workspace = context.strategy, Workspace()
    exchange = _holders(job.parallel, mesh)
    if job.augmentation.colour_noise:
        loaders.train.find_colours()
    for member in mesh.mine:
        network = build_network(job, loaders.identity, mesh.data.size, workspace, exchange)
        optimizer = Optimizer(job.optimizer, network.layout, network.dtype)
        shards = job.training.virtual_shards
        build_replica = partial(build_network, job, loaders.identity, shards, workspace)
        reducer = strategy.reducer(mesh.data, network, optimizer, build_replica, exchange)
        rows = strategy.rows(loaders.train.labels, mesh.members, member)
        trainers[member] = Trainer(
            job,
            member,
            network,
            optimizer,
            reducer,
            loaders.train_of(rows),
            rows,
            context.stop_request,
            Shares() if job.communication.by_speed and mesh.data.size > 1 else None,
            progress,
            start_values=strategy.start_values(member),
            start_images=partial(first_images, loaders.train, loaders.identity.shape),
            start_from=weights.fill if weights else None,
            parts=parts_of(strategy, context.comm.size, loaders.train.labels, member),
            timeline=timeline,
        )
        trainers[member].restart()
        if timeline is not None:
            timeline.ranks[member] = mesh.data.size * mesh.sizes["model"]
            timeline.stages = job.parallel.stages
            timeline.micro_batches = micro_batches_of(trainers[member])
            timeline.layers = [f"{i} {each.describe()}" for i, each in enumerate(network.layers)]
            timeline.expect(sum(each.starts[-1] // each.runner.steps for each in trainers.values()))
    loaders.check_shards(mesh.comm)
    return trainers


def _holders(parallel: Parallel, mesh: Mesh) -> StageLinks | ValueExchange | None:
    """Return what passes between the ranks that hold a replica together, None where each rank has
    a whole one. Collective over them.
    """
    if parallel.ranks == 1:
        return None
    return (StageLinks if parallel.stages > 1 else ValueExchange)(mesh.along("model"))


def micro_batches_of(trainer: Trainer) -> int:
    """Return how many parts of a batch go through a network one behind the other."""
    batch = min(trainer.batch, len(trainer.rows))
    return -(-batch // trainer.job.slice_of(batch))


def check_micro_batches(training: Training, parallel: Parallel, ranks: int, members: int) -> None:
    """Refuse micro-batches of which some of the ranks that share a batch would have no sample."""
    batch, parts = training.batch, parallel.micro_batches
    most = max(len(team.ranks) for team in groups(ranks // parallel.ranks, members))
    if parallel.stages > 1 and batch != "full" and batch < parts * most:
        raise EnsyncError(
            f"parallel.micro_batches = {parts} of training.batch = {batch} on "
            f"{plural(most, 'replica')} of {parallel.stages} stages",
            "a sample of each micro-batch for each replica",
            f"set training.batch = {parts * most} or more, or fewer micro-batches",
        )


def check_virtual_shards(training: Training, ranks: int, members: int) -> None:
    """Refuse more ranks for one network than a deterministic run has virtual shards of each
    batch.
    """
    most, shards = (
        max(len(team.ranks) for team in groups(ranks, members)),
        training.virtual_shards,
    )
    if training.deterministic and most > shards:
        raise EnsyncError(
            f"training.deterministic = true with training.virtual_shards = {shards} and {most} "
            "ranks for one network",
            "no more ranks than shards, each of which one rank computes",
            f"start at most {plural(shards, 'rank')} for each network, or give --set "
            f"training.virtual_shards={most}, with which the bits are others",
        )
