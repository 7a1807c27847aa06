"""A run's state on disk and back: members gathered on rank 0, one file, any number of ranks."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np

from ensync import __version__
from ensync.core.config.job import Job, job_from_dict, plain_settings
from ensync.core.errors import EnsyncError
from ensync.mpi.allreduce import gather_to_root
from ensync.mpi.exchange import arrays_from_root, arrays_to_root
from ensync.mpi.mesh import Mesh
from ensync.mpi.world import Comm, on_root
from ensync.report.history import thin
from ensync.runs.content import VERSION, check
from ensync.runs.identity import Identity, same
from ensync.runs.replicas import REPLICAS, gather_replicas, on_these_ranks
from ensync.runs.schema import EpochRecord, MemberPosition, RunAttributes
from ensync.storage.checkpoint import (
    Found,
    checkpoint_name,
    fill_arrays,
    load_checkpoint,
    load_newest_valid,
    prune,
    save_checkpoint,
)
from ensync.storage.dataset import Dataset
from ensync.storage.lock import confirm, describe_holder
from ensync.training.position import Position
from ensync.training.trainer import Trainer

# whose records a run keeps in memory and in its checkpoints; beyond it the older ones are thinned
# out
LIMIT_EPOCHS = 2_000


@dataclass
class RunState:
    """What rank 0 knows of a run besides the members' vectors; the same on all ranks after
    loading.
    """

    job: Job
    members: int
    fingerprint: str  # of the dataset
    identity: Identity | None  # of the dataset; None in a checkpoint of version 1
    history: list[EpochRecord] = field(default_factory=list)
    elapsed: float = 0.0  # seconds of the run before this start
    best_checkpoint: str = ""
    best_accuracy: float = -1.0

    def attributes(self, positions: list[MemberPosition]) -> RunAttributes:
        """Plain values for the checkpoint's attributes, with where the members stand."""
        return {
            "kind": "run",
            "version": VERSION,
            "creator": f"ensync {__version__}",
            "job": {**plain_settings(self.job)},
            "members": self.members,
            "fingerprint": self.fingerprint,
            "dataset": self.identity.as_dict() if self.identity else None,
            "history": self.history,
            "elapsed": self.elapsed,
            "best_checkpoint": self.best_checkpoint,
            "best_accuracy": self.best_accuracy,
            "positions": positions,
        }


def gather_members(
    mesh: Mesh, trainers: dict[int, Trainer]
) -> tuple[dict[str, np.ndarray], list[MemberPosition]]:
    """Return on rank 0 all members' vectors as "members/0000/name" and their positions; empty
    elsewhere. Collective.
    """
    for trainer in trainers.values():
        trainer.reducer.gather_state(trainer.optimizer)
    mine = {
        m: cast(MemberPosition, t.position.as_dict() | {"updates": t.optimizer.steps})
        for m, t in trainers.items()
        if mesh.owns(m)
    }
    comm = mesh.comm
    gathered = gather_to_root(comm, mine)
    arrays: dict[str, np.ndarray] = {}
    for member, owner in enumerate(mesh.owners):
        here = trainers.get(member) if mesh.coordinates["data"] == 0 else None
        whole = here.reducer.whole(here.vectors) if here else None
        part = arrays_to_root(comm, owner, whole if comm.rank == owner else None)
        if comm.rank == 0 and part is not None:
            arrays |= {f"members/{member:04d}/{name}": values for name, values in part.items()}
    arrays |= gather_replicas(mesh, trainers)
    if gathered is None:
        return {}, []
    positions = {member: position for part in gathered for member, position in part.items()}
    return arrays, [positions[member] for member in range(mesh.members)]


def save(mesh: Mesh, directory: Path, state: RunState, trainers: dict[int, Trainer]) -> str:
    """Write the run's checkpoint and remove the oldest ones; return its file name. Collective:
    all ranks hear of a full disk.
    """
    arrays, positions = gather_members(mesh, trainers)
    if len(state.history) > LIMIT_EPOCHS * state.members:
        state.history = _thinned(state.history, positions)

    def write() -> str:
        name = checkpoint_name(
            min(p["epoch"] for p in positions), sum(p["updates"] for p in positions)
        )
        if state.history:
            _note_best(state, name)
        confirm(directory.parent)
        save_checkpoint(directory / name, state.attributes(positions), arrays)
        prune(
            directory,
            state.job.checkpoint.keep,
            [state.best_checkpoint] if state.best_checkpoint else [],
        )
        return name

    return on_root(mesh.comm, write)


def _thinned(history: list[EpochRecord], positions: list[MemberPosition]) -> list[EpochRecord]:
    """Return fewer records of older epochs; those of the members' best epochs stay."""
    best = {(member, position["best_epoch"]) for member, position in enumerate(positions)}
    kept = {(r["member"], r["epoch"]) for r in thin(history)} | best
    return [r for r in history if (r["member"], r["epoch"]) in kept]


def _note_best(state: RunState, name: str) -> None:
    """The best checkpoint is that of the best mean validation accuracy at the end of an epoch."""
    last = max(record["epoch"] for record in state.history)
    found = [
        r["validation_accuracy"]
        for r in state.history
        if r["epoch"] == last and r["validation_accuracy"] is not None
    ]
    if len(found) == state.members and sum(found) / len(found) > state.best_accuracy:
        state.best_accuracy, state.best_checkpoint = sum(found) / len(found), name


@dataclass
class Loaded:
    """A checkpoint as read: attributes on every rank, arrays on rank 0."""

    path: Path
    attributes: RunAttributes
    arrays: dict[str, np.ndarray] | None
    rejected: list[tuple[str, str]]

    @property
    def state(self) -> RunState:
        """The run's state, checked."""
        a = self.attributes
        check(self.path, a)
        return RunState(
            job_from_dict(a["job"], str(self.path)),
            a["members"],
            a["fingerprint"],
            self.identity,
            a["history"],
            a["elapsed"],
            a["best_checkpoint"],
            a["best_accuracy"],
        )

    @property
    def identity(self) -> Identity | None:
        """What the run was trained on; None in a checkpoint of version 1, which knows no more
        than the fingerprint.
        """
        found = self.attributes.get("dataset")
        return Identity.from_dict(found) if found else None

    def accept(self, dataset: Dataset) -> Identity:
        """Return the identity of what the run was trained on; EnsyncError when `dataset` is
        another.
        """
        return same(self.path, self.identity, self.attributes["fingerprint"], dataset)

    def normalizes(self, comm: Comm) -> bool:
        """Whether the networks have batch normalisation. Collective."""
        return on_root(
            comm,
            lambda: any(
                len(v) for k, v in (self.arrays or {}).items() if k.endswith("/statistics")
            ),
        )

    def validated(self, comm: Comm) -> np.ndarray:
        """Return how many validation images each member had right with what it is tested with,
        int64 (members,), -1 of those unknown. Collective.

        That is the last epoch's, or the best epoch's where its parameters are kept.
        """

        def read() -> np.ndarray:
            rows = self.identity.sizes["validation"] if self.identity else 0
            accuracy = {
                (r["member"], r["epoch"]): r["validation_accuracy"]
                for r in self.attributes["history"]
            }
            found = np.full(self.attributes["members"], -1, np.int64)
            for member, position in enumerate(self.attributes["positions"]):
                kept = (
                    self.arrays is not None
                    and f"members/{member:04d}/best/parameters" in self.arrays
                )
                value = accuracy.get((member, position["best_epoch" if kept else "epoch"]))
                found[member] = -1 if value is None else round(value * rows)
            return found

        return on_root(comm, read)

    def member(self, comm: Comm, member: int) -> dict[str, np.ndarray]:
        """Return a member's vectors by name on every rank. Collective."""
        prefix = f"members/{member:04d}/"
        part = (
            {
                k.removeprefix(prefix): v
                for k, v in self.arrays.items()
                if k.startswith(prefix) and not k.startswith(prefix + REPLICAS)
            }
            if self.arrays is not None
            else None
        )
        return arrays_from_root(comm, part)

    def restore(self, trainer: Trainer, found: dict[str, np.ndarray]) -> None:
        """Fill a like-built trainer, position included, but for what its replicas differ in."""
        trainer.best.vectors = {}
        trainer.reducer.restart()
        if parts := trainer.network.parts:
            found = {name: parts.own(name, values) for name, values in found.items()}
        targets, found = on_these_ranks(trainer.vectors, found)
        last = {k: v for k, v in found.items() if not k.startswith("best/")}
        best = (
            {
                k: np.empty_like(targets[k.removeprefix("best/")])
                for k in ("best/parameters", "best/statistics")
            }
            if len(last) < len(found)
            else {}
        )
        fill_arrays(self.path, found, targets | best)
        trainer.best.vectors = {k.removeprefix("best/"): v for k, v in best.items()}
        position = self.attributes["positions"][trainer.member]
        trainer.optimizer.steps = position["updates"]
        trainer.position = Position.from_dict(position)


def load_newest(comm: Comm, run: Path) -> Loaded:
    """Load the newest valid checkpoint of a run directory (or the checkpoint file itself).
    Collective.
    """
    arrays: dict[str, np.ndarray] = {}

    def read() -> tuple[Path, RunAttributes, list[tuple[str, str]]]:
        found, rejected = (
            (Found(run, *load_checkpoint(run)), []) if run.is_file() else find_newest(run)
        )
        arrays.update(found.arrays)
        attributes = cast(RunAttributes, found.attributes)  # checked where they are used
        return found.path, attributes, [(str(p), why) for p, why in rejected]

    path, attributes, rejected = on_root(comm, read)
    return Loaded(path, attributes, arrays if comm.rank == 0 else None, rejected)


def find_newest(run: Path) -> tuple[Found, list[tuple[Path, str]]]:
    """Return the newest valid checkpoint of a run directory, read, and newer ones with what is
    wrong with each.
    """
    found, rejected = load_newest_valid(run / "checkpoints")
    if found is None:
        why = f" ({json.dumps(rejected[0][1])})" if rejected else ""
        action = "give the directory of a run that was started, or train again"
        if holder := describe_holder(run):
            why, action = f"{why}, and is in use by {holder}", "wait for its first checkpoint"
        raise EnsyncError(
            f"'{run}' holds no valid checkpoint{why}", "the output.directory of a run", action
        )
    return found, rejected


def has_checkpoint(run: Path) -> bool:
    """Whether a run directory holds any checkpoint, valid or not."""
    return any((run / "checkpoints").glob("checkpoint-*.h5"))
