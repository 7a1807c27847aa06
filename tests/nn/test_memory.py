"""The bytes of a network are known without making it, and making it takes time in proportion to
its layers.
"""

import sys

import numpy as np
import pytest

from ensync.core.config.job import job_from_dict
from ensync.nn.memory import counted, empty
from ensync.nn.models import zoo

NETWORKS = {
    "mlp": ({"name": "mlp", "hidden": [300, 20], "dropout": 0.1}, (28, 28, 1)),
    "lenet": ({"name": "lenet"}, (28, 28, 1)),
    "alexnet": ({"name": "alexnet"}, (64, 64, 3)),
    "resnet": ({"name": "resnet", "depth": 8}, (32, 32, 3)),
    "minixception": ({"name": "minixception"}, (32, 32, 3)),
}


def build(settings, shape, rows, workspace=None):
    job = job_from_dict(
        {"data": {"path": "none.h5"}, "network": settings, "output": {"directory": "none"}}
    )
    return zoo.build(job, shape, 10, rows, workspace)


def arrays(item, seen=None):
    """Yield all arrays below an object of nn, each once."""
    seen = set() if seen is None else seen
    if id(item) in seen:
        return
    seen.add(id(item))
    if isinstance(item, np.ndarray):
        yield item
    elif isinstance(item, (dict, list, tuple)):
        for part in item.values() if isinstance(item, dict) else item:
            yield from arrays(part, seen)
    elif type(item).__module__.startswith("ensync.nn"):
        yield from arrays(vars(item), seen)


def held(network):
    """Return the bytes of all arrays of a network but its scratch, each by the array that owns its
    memory.
    """
    scratch = {id(array) for array in network.workspace.arrays.values()}
    found = [array for array in arrays(network) if id(array) not in scratch]
    owners = [array if array.base is None else array.base for array in found]
    return sum({id(owner): owner.nbytes for owner in owners}.values())


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_counted_is_what_is_held(name):
    with counted() as count:
        network = build(*NETWORKS[name], 16)
    assert held(network) < 1e6, "counting takes memory"
    made = build(*NETWORKS[name], 16)
    scratch = sum(array.nbytes for array in made.workspace.arrays.values())
    assert count.bytes == pytest.approx(held(made) + scratch, rel=0.002)


def test_networks_share_scratch_only_where_their_owner_says_so():
    settings, shape = NETWORKS["resnet"]
    one, other = build(settings, shape, 4), build(settings, shape, 4)
    together = build(settings, shape, 400, one.workspace)
    (scratch,), (own,) = one.workspace.arrays.values(), other.workspace.arrays.values()
    assert together.workspace is one.workspace and scratch.size > own.size
    assert not np.shares_memory(scratch, own)
    for array in arrays(one):
        assert array is scratch or not any(np.shares_memory(array, x) for x in arrays(other))


def test_more_than_any_memory_is_counted_too():
    with counted() as count:
        assert (
            build({"name": "mlp", "hidden": [10**9, 10**7]}, (28, 28, 1), 16).parameters.size
            > 10**16
        )
    assert count.bytes > 8 * 10**16
    with pytest.raises(MemoryError), counted():
        empty((1 << 31, 1 << 31), np.float32)
    assert empty((3,), np.float32).flags.writeable, "counting goes on after its block"


def test_deep_networks_are_made_in_time_proportional_to_their_depth():
    def calls(depth):
        made = [0]

        def note(*_):
            made[0] += 1

        sys.setprofile(note)
        try:
            build({"name": "mlp", "hidden": [2] * depth}, (2, 2, 1), 1)
        finally:
            sys.setprofile(None)
        return made[0]

    calls(2)
    assert calls(400) < 2.2 * calls(200)
