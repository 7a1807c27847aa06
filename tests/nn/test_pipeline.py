"""A network in stages, each on a rank of its own, beside the whole one on one rank: every kind of
layer, forward and back; and the order in which a stage does its work.
"""

import numpy as np
import pytest
from nn.test_split import CASES, CONVOLUTIONS, ROWS, job_of
from played_ranks import play_stages

from ensync.core.errors import EnsyncError
from ensync.nn.layers.base import Step
from ensync.nn.memory import counted
from ensync.nn.models import zoo
from ensync.nn.network import Piece
from ensync.nn.optimizers import Optimizer
from ensync.nn.split.exchange import StandInLinks
from ensync.nn.split.pipeline import one_forward_one_backward
from ensync.nn.split.stages import balanced, stages_of

PIECES, STEPS = (3, 0, 4, 1), 2  # rows of the parts of a batch, one of them empty
WHOLE = {"parallel": {}}
NETWORKS = {name: case | WHOLE for name, case in CASES.items() if not name.startswith("rows")}


def trained(job, shape, links=None):
    """Return a network after some steps in several parts, what it was at the start, the message of
    the last step, and scores.
    """
    network = zoo.build(job, shape, 10, max(PIECES), exchange=links)
    network.initialize(3)
    start, random = network.parameters.copy(), np.random.default_rng(0)
    optimizer = Optimizer(job.optimizer, network.layout, network.dtype)
    for key in range(STEPS):
        pieces = []
        for first, rows in enumerate(PIECES):
            inputs = random.standard_normal((rows, int(np.prod(shape))))
            step = Step(training=True, key=key, first_row=10 * first)
            pieces.append(Piece(inputs, random.integers(0, 10, rows), step))
        network.accumulate(iter(pieces), len(PIECES), sum(PIECES))
        message = network.message.copy()
        optimizer.step(network.parameters, network.gradient)
    inputs = random.standard_normal((ROWS, int(np.prod(shape))))
    scores = network.evaluate(inputs, random.integers(0, 10, ROWS))[0].copy()
    return network, start, message, scores


@pytest.mark.parametrize("stages", [2, 3])
@pytest.mark.parametrize("case", NETWORKS)
def test_stages_are_the_whole(case, stages):
    """With the same sums over the parts of a batch, in the same order: the same bits."""
    parallel = {"stages": stages, "micro_batches": 4}
    settings = NETWORKS[case] | {"optimizer": {"name": "momentum", "learning_rate": 0.01}}
    whole, start, message, scores = trained(job_of(**settings), (6, 6, 3))
    if sum("weights" in name for name, _ in whole.layout) < stages:
        pytest.skip(f"{case} has fewer layers with weights than stages")
    job = job_of(**settings | {"parallel": parallel, "training": BATCH | training_of(settings)})
    found = play_stages(stages, lambda links: trained(job, (6, 6, 3), links))
    networks = [each[0] for each in found]
    size = len(whole.parameters)
    for own, same in (
        ([each[1] for each in found], start),
        ([each[2][: len(each[1])] for each in found], message[:size]),
        ([network.parameters for network in networks], whole.parameters),
        ([network.statistics for network in networks], whole.statistics),
    ):
        np.testing.assert_allclose(np.concatenate(own), same, rtol=1e-10, atol=1e-10)
    for network, _, own, other in found:
        np.testing.assert_allclose(own[len(network.parameters) :], message[size:], rtol=1e-10)
        np.testing.assert_allclose(other, scores, rtol=1e-10, atol=1e-10)
    assert np.abs(message[:size]).max() > 1e-3 and min(len(n.parameters) for n in networks) > 0


BATCH = {"batch": 8}


def training_of(settings):
    return settings.get("training", {})


@pytest.mark.parametrize(("stages", "count"), [(1, 3), (2, 1), (3, 2), (4, 9)])
def test_stages_never_wait_for_each_other_in_a_circle(stages, count):
    """All orders together can be done, none has more parts on their way than stages that follow,
    and each part goes forward, then back, once.
    """
    orders = [list(one_forward_one_backward(stage, stages, count)) for stage in range(stages)]
    done, places = set(), [0] * stages
    while sum(places) < 2 * stages * count:
        before = sum(places)
        for stage, order in enumerate(orders):
            if places[stage] == len(order):
                continue
            ahead, number = order[places[stage]]
            near = stage - 1 if ahead else stage + 1
            if not 0 <= near < stages or (near, ahead, number) in done:
                done.add((stage, ahead, number))
                places[stage] += 1
        assert sum(places) > before, "nobody gets on"
    for stage, order in enumerate(orders):
        way = np.cumsum([1 if ahead else -1 for ahead, _ in order])
        assert max(way) == min(stages - stage, count) and way[-1] == 0
        for direction in (True, False):
            assert [n for ahead, n in order if ahead == direction] == list(range(count))


@pytest.mark.parametrize(
    ("costs", "count", "starts"),
    [
        ([1, 1, 1, 1], 2, [0, 2]),
        ([5, 1, 1, 1], 2, [0, 1]),
        ([1, 2, 3, 4, 5], 3, [0, 3, 4]),
        ([0, 0, 9], 3, [0, 1, 2]),
        ([7], 1, [0]),
    ],
)
def test_the_largest_stage_is_as_small_as_can_be(costs, count, starts):
    assert balanced(costs, count) == starts


def test_any_cut_is_no_better():
    random = np.random.default_rng(5)
    costs = random.integers(1, 50, 9).tolist()
    starts = balanced(costs, 3)
    best = max(sum(costs[a:b]) for a, b in zip(starts, [*starts[1:], 9], strict=True))
    assert best == min(
        max(sum(costs[:a]), sum(costs[a:b]), sum(costs[b:]))
        for a in range(1, 8)
        for b in range(a + 1, 9)
    )


def test_a_stage_begins_with_weights():
    """So that what follows a convolution, and makes its outputs smaller, stays with it."""
    network = zoo.build(job_of(network={"layers": CONVOLUTIONS}), (6, 6, 3), 10, 2)
    stages = stages_of(network.layers, network.shapes, 3)
    assert stages[0].first == 0 and stages[-1].stop == len(network.layers)
    assert [a.stop for a in stages[:-1]] == [b.first for b in stages[1:]]
    kinds = [network.layers[stage.first].describe().split()[0] for stage in stages]
    assert set(kinds) <= {"Convolution", "Dense", "Flatten,"}
    assert sum(stage.parameters for stage in stages) == len(network.parameters)
    assert sum(stage.share for stage in stages) == pytest.approx(1)
    assert "of the arithmetic" in str(stages[0])


def test_more_stages_than_layers_are_refused():
    job = job_of(network={"hidden": [8]}, parallel={"stages": 3})
    with pytest.raises(EnsyncError, match="parallel.stages = 3 .* 2 layers with weights") as found:
        zoo.build(job, (6, 6, 3), 10, 2, exchange=StandInLinks(3, 0))
    assert found.value.action == "set parallel.stages = 2"


def test_a_stage_keeps_values_for_those_that_follow():
    """Of four equal layers on two stages, the first has buffers for two parts, the last for one,
    and neither the parameters of the other.
    """
    layers = [{"kind": "dense", "units": 64} for _ in range(3)]
    job = job_of(
        network={"layers": [*layers, {"kind": "dense", "units": 64}]},
        parallel={"stages": 2, "micro_batches": 8},
    )
    made = []
    for stage in range(2):
        with counted() as count:
            network = zoo.build(job, (8, 8, 1), 64, 400, exchange=StandInLinks(2, stage))
        made.append((network, count.bytes))
    (first, more), (last, less) = made
    assert len(first.slots) == 2 and len(last.slots) == 1 and more > less
    assert len(first.parameters) == len(last.parameters) == 2 * (64 * 64 + 64)
