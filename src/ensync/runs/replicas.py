"""What the replicas of a network differ in, between meetings of their ranks (strategies.local), in
a checkpoint and back.

A checkpoint holds the mean of the replicas as the member's own vectors. Beside it lies what is each
rank's alone, as "members/0000/replicas/0001/name"; it is of use on as many ranks only.
"""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ensync.mpi.exchange import arrays_between, arrays_to_root
from ensync.mpi.mesh import Mesh
from ensync.mpi.world import on_root, share
from ensync.storage.checkpoint import fill_arrays
from ensync.training.trainer import Trainer

REPLICAS = "replicas/"
COMMUNICATION = "communication/"  # vectors of a reducer, which not every number of ranks has
_NAME = re.compile(rf"members/(\d+)/{REPLICAS}(\d+)/")
Arrays = dict[str, np.ndarray]


def gather_replicas(mesh: Mesh, trainers: Mapping[int, Trainer]) -> Arrays:
    """Return on rank 0 what is each rank's alone; nothing elsewhere. Collective, after
    Reducer.gather_state.
    """
    own = {m: found for m, t in trainers.items() if (found := t.reducer.replica)}
    arrays: Arrays = {}
    for source, members in enumerate(share(mesh.comm, dict.fromkeys(own, mesh.data.rank))):
        for member, place in members.items():
            part = arrays_to_root(mesh.comm, source, own.get(member))
            prefix = _prefix(member, place)
            arrays |= {prefix + name: values for name, values in (part or {}).items()}
    return arrays if mesh.comm.rank == 0 else {}


def restore_replicas(
    path: Path, arrays: Mapping[str, np.ndarray], mesh: Mesh, trainers: Mapping[int, Trainer]
) -> bool:
    """Give each rank what was its alone, from the `arrays` of a checkpoint that rank 0 has; return
    on every rank whether there were others of other ranks. Collective.
    """
    held: dict[int, int] = on_root(mesh.comm, lambda: _held(arrays))
    left_out = False
    for target, members in enumerate(
        share(mesh.comm, {m: (mesh.data.rank, mesh.data.size) for m in trainers})
    ):
        for member, (place, size) in members.items():
            if held.get(member, size) != size:
                left_out = True
            elif member in held:
                part = arrays_between(mesh.comm, 0, target, _named(arrays, _prefix(member, place)))
                if mesh.comm.rank == target:
                    _restore(path, part or {}, trainers[member])
    return left_out


def on_these_ranks(targets: Arrays, found: Arrays) -> tuple[Arrays, Arrays]:
    """Return both without vectors of a reducer that only one of them has."""
    both = targets.keys() & found.keys()

    def cut(arrays: Arrays) -> Arrays:
        return {k: v for k, v in arrays.items() if k in both or not k.startswith(COMMUNICATION)}

    return cut(targets), cut(found)


def _prefix(member: int, place: int) -> str:
    return f"members/{member:04d}/{REPLICAS}{place:04d}/"


def _held(arrays: Mapping[str, np.ndarray]) -> dict[int, int]:
    """Return how many replicas there are of each member that has any."""
    places = {(int(m[1]), int(m[2])) for name in arrays if (m := _NAME.match(name))}
    return dict(Counter(member for member, _ in places))


def _named(arrays: Mapping[str, np.ndarray], prefix: str) -> Arrays:
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def _restore(path: Path, part: Arrays, trainer: Trainer) -> None:
    """Check one rank's own against what such a rank has, and have its reducer begin from it."""
    like = trainer.reducer.differing
    targets = {name: np.empty_like(values) for name, values in like.items() if name in part}
    fill_arrays(path, part, targets)
    trainer.reducer.restore(targets)
