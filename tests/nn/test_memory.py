"""The bytes of a network are known without making it, and making it takes time in proportion to
its layers.
"""

import sys

import numpy as np
import pytest

from ensync.core.config.job import job_from_dict
from ensync.nn.memory import Workspace, counted, empty
from ensync.nn.models import zoo

NETWORKS = {
    "mlp": ({"name": "mlp", "hidden": [300, 20], "dropout": 0.1}, (28, 28, 1)),
    "lenet": ({"name": "lenet"}, (28, 28, 1)),
    "alexnet": ({"name": "alexnet"}, (64, 64, 3)),
    "resnet": ({"name": "resnet", "depth": 8}, (32, 32, 3)),
    "minixception": ({"name": "minixception"}, (32, 32, 3)),
}


def build(settings, shape, rows):
    job = job_from_dict(
        {"data": {"path": "none.h5"}, "network": settings, "output": {"directory": "none"}}
    )
    return zoo.build(job, shape, 10, rows)


def held(item, found):
    """Collect the bytes of all arrays below an object, each by the array that owns its memory."""
    if isinstance(item, np.ndarray):
        owner = item if item.base is None else item.base
        found[id(owner)] = owner.nbytes
    elif isinstance(item, (dict, list, tuple)):
        for part in item.values() if isinstance(item, dict) else item:
            held(part, found)
    elif type(item).__module__.startswith("ensync.nn") and id(item) not in found:
        found[id(item)] = 0
        held(vars(item), found)
    return sum(found.values())


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_counted_is_what_is_held(name, monkeypatch):
    monkeypatch.setattr(Workspace, "arrays", {})
    with counted() as count:
        network = build(*NETWORKS[name], 16)
    assert Workspace.arrays == {} and held(network, {}) < 1e6, "counting takes memory"
    made = held(build(*NETWORKS[name], 16), {}) + sum(
        array.nbytes for array in Workspace.arrays.values()
    )
    assert count.bytes == pytest.approx(made, rel=0.002)


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
