"""What the replicas of a network differ in, between meetings of their ranks (strategies.local), in
a checkpoint and back.

A checkpoint holds the mean of the replicas as the member's own vectors. Beside it lies what is each
rank's alone, as "members/0000/replicas/0001/name"; it is of use on as many ranks only, but for what
the ranks have not sent yet of their gradients (strategies.compression), of which the sum counts.
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
from ensync.strategies.compression import ERROR
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
) -> list[str]:
    """Give each rank what was its alone, from the `arrays` of a checkpoint that rank 0 has; return
    on every rank a sentence for each kind of what other ranks had. Collective.
    """
    ranks, names = on_root(mesh.comm, lambda: _held(arrays))
    moved = False
    for target, members in enumerate(
        share(mesh.comm, {m: (mesh.data.rank, mesh.data.size) for m in trainers})
    ):
        for member, (place, size) in members.items():
            if member not in ranks:
                continue
            if ranks[member] == size:
                part = _named(arrays, _prefix(member, place))
            else:
                moved, part = True, _shared_out(arrays, member, ranks[member], size)
            received = arrays_between(mesh.comm, 0, target, part)
            if mesh.comm.rank == target:
                _restore(path, received or {}, trainers[member])
    return _moved(names, mesh.data.size) if moved else []


def _shared_out(arrays: Mapping[str, np.ndarray], member: int, ranks: int, size: int) -> Arrays:
    """Return what each of `size` ranks goes on from after as many others as `ranks`: an equal part
    of what these had not sent yet, which one rank has no use for.
    """
    found = [arrays[name] for k in range(ranks) if (name := _prefix(member, k) + ERROR) in arrays]
    return {ERROR: sum(found[1:], found[0].copy()) / size} if found and size > 1 else {}


def _moved(names: set[str], size: int) -> list[str]:
    """Return what became of replicas' vectors of these names on another number of ranks."""
    said = []
    if names - {ERROR}:
        said.append(
            "the replicas of the run were on other ranks: these go on from the mean of the replicas"
        )
    if ERROR in names:
        rest = "what other ranks had not sent yet of their gradients (error feedback)"
        shared = f"{rest} is shared out among {size}"
        said.append(shared if size > 1 else f"{rest} is left out: one rank sends nothing")
    return said


def on_these_ranks(targets: Arrays, found: Arrays) -> tuple[Arrays, Arrays]:
    """Return both without vectors of a reducer that only one of them has."""
    both = targets.keys() & found.keys()

    def cut(arrays: Arrays) -> Arrays:
        return {k: v for k, v in arrays.items() if k in both or not k.startswith(COMMUNICATION)}

    return cut(targets), cut(found)


def _prefix(member: int, place: int) -> str:
    return f"members/{member:04d}/{REPLICAS}{place:04d}/"


def _held(arrays: Mapping[str, np.ndarray]) -> tuple[dict[int, int], set[str]]:
    """Return how many replicas there are of each member that has any, and the names of their
    vectors.
    """
    found = [(m, name[m.end() :]) for name in arrays if (m := _NAME.match(name))]
    places = {(int(m[1]), int(m[2])) for m, _ in found}
    return dict(Counter(member for member, _ in places)), {name for _, name in found}


def _named(arrays: Mapping[str, np.ndarray], prefix: str) -> Arrays:
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def _restore(path: Path, part: Arrays, trainer: Trainer) -> None:
    """Check one rank's own against what such a rank has, and have its reducer begin from it."""
    like = trainer.reducer.differing
    targets = {name: np.empty_like(values) for name, values in like.items() if name in part}
    fill_arrays(path, part, targets)
    trainer.reducer.restore(targets)
