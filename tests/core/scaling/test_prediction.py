"""Predictions of steps, by hand on round numbers."""

import math
from dataclasses import replace

import pytest

from ensync.core.scaling.advice import limit_of
from ensync.core.scaling.links import Link, Network
from ensync.core.scaling.passing import STRATEGIES, Passed, Pattern, Sizes, cost_of
from ensync.core.scaling.prediction import Calibration, Contestant, Model, largest_share, place_of
from ensync.core.scaling.steps import StepTimes
from ensync.core.scaling.wires import KINDS, PIECE_BYTES, Cost, NodeSum, Overlap, Place, Wires

MPI = "MPICH 5.0.2"
BETWEEN = Network(Link(latency=0.5, byte=0.001), MPI)
INSIDE = Network(Link(latency=0.1, byte=0.0), MPI)
WIRES = Wires(NodeSum(ranks=2, fixed=0.25, byte=0.0005), INSIDE, BETWEEN)
SIZES = Sizes(
    rows=6400,
    batch=64,
    slice=512,
    itemsize=4,
    parameters=996,
    statistics=10,
    exact=4,
    slots=2,
)
TOGETHER = Contestant("synchronous")


def steps(threads=1):
    """Seconds of a step: 2 and a quarter of one for each row, half of that on two threads."""
    return tuple(
        StepTimes(threads, rows, 1, (2 + rows / 4) / threads, ((2 + rows / 4) / threads,))
        for rows in (1, 8, 64)
    )


@pytest.fixture
def calibration():
    return Calibration(
        sizes=SIZES,
        threads=1,
        ranks_on_node=1,
        cores_of_node=2,
        steps=steps(),
        freely=1.0,
        update=1.0,
        loop=0.0,
        meeting=3.0,
        wires=WIRES,
    )


def test_one_rank(calibration):
    found = Model(calibration).predict(TOGETHER, 1)
    assert found.step == 18.0 and found.epoch == 1800.0 and found.bytes == 0
    assert found.efficiency == 1.0 and found.samples == pytest.approx(64 / 18)
    assert vars(found.parts) == {
        **dict(shared=17.0, small=0.0, update=1.0, waiting=0.0),
        **dict(node=0.0, latency=0.0, bandwidth=0.0),
    }


def test_the_loop_is_not_divided(calibration):
    found = Model(replace(calibration, loop=0.5)).predict(TOGETHER, 4)
    assert found.parts.update == 1.5 and found.step == pytest.approx(14.5)
    assert found.efficiency == pytest.approx(18.5 / 14.5 / 4)


def test_synchronous_ranks_of_their_own_nodes(calibration):
    """4,000 bytes over 4 nodes: 4 messages and 1.5 times the bytes by halving and doubling."""
    found = Model(calibration).predict(TOGETHER, 4)
    assert (found.nodes, found.rows) == (4, 16)
    assert vars(found.parts) == pytest.approx(
        {
            **dict(shared=17 / 4, small=5.0 - 17 / 4, update=1.0, waiting=0.0),
            **dict(node=0.0, latency=4 * 0.5, bandwidth=1.5 * 4.0),
        }
    )
    assert found.step == pytest.approx(14.0) and found.bytes == 4 * 6000 * 100
    assert found.efficiency == pytest.approx(18 / 14 / 4)


def test_ranks_that_share_nodes(calibration):
    """Blocks in the memory of a node, then each rank's block between nodes, both ranks over one
    link, by recursive doubling; before it what is behind the gradient; and half of the update.
    """
    found = Model(replace(calibration, ranks_on_node=2)).predict(TOGETHER, 8)
    assert (found.nodes, found.rows) == (4, 8)
    assert found.parts.update == 0.5 and found.parts.node == 0.25 + 4000 * 0.0005
    assert found.parts.latency == 2 * 0.5 + 2 * 0.5
    assert found.parts.bandwidth == pytest.approx(2 * 2 * 2.0 + 2 * 0.032)


def test_long_vectors_of_shared_nodes_go_piece_by_piece():
    nbytes = 2 * 3 * PIECE_BYTES
    found = KINDS["node first"].cost(WIRES, Place(2, 2), nbytes)
    assert found.latency == 3 * 2 * 0.5 and found.bandwidth == pytest.approx(nbytes / 1000)


def test_more_ranks_of_a_node_take_its_memory_longer():
    assert WIRES.node.seconds(4, 1000) == 2 * 0.25 + 2 * 0.5
    assert WIRES.node.seconds(1, 1000) == 0.0


def test_meetings(calibration):
    """A meeting every 8 steps: its arithmetic, its sum, and that of its metrics."""
    found = Model(calibration).predict(Contestant("local SGD", 8), 2)
    replica, metrics = 4 * (996 + 4 + 10), 32
    assert found.parts.update == 1.0 + 3.0 / 8
    assert found.parts.latency == pytest.approx((2 * 0.5 + 0.5) / 8)
    assert found.parts.bandwidth == pytest.approx((replica + metrics) / 1000 / 8)
    assert found.bytes == pytest.approx(2 * 100 * (replica + metrics) / 8)


def test_replicas_that_never_meet_and_networks_apart(calibration):
    model = Model(replace(calibration, freely=0.5))
    never = model.predict(Contestant("local SGD", math.inf), 4)
    assert never.step == 0.5 * (2 + 16 / 4) and never.bytes == 0 and never.epoch == 100 * never.step
    apart = model.predict(Contestant("apart"), 4)
    assert apart.step == 0.5 * 18 and apart.rows == 64 and apart.efficiency == 1.0
    assert apart.epoch == 25 * apart.step  # each network has a quarter of the rows


def test_waiting_grows_as_the_root_of_the_steps_between_meetings(calibration):
    uneven = tuple(replace(each, slowest=(each.mean, each.mean + 4)) for each in steps())
    model = Model(replace(calibration, steps=uneven))
    every = model.predict(TOGETHER, 2).parts.waiting
    assert every == 3.0  # the larger of two draws from {mean, mean + 4}
    assert model.predict(Contestant("local SGD", 9), 2).parts.waiting == pytest.approx(1.0)
    assert model.predict(Contestant("apart"), 2).parts.waiting == 0.0


def test_sums_of_batch_normalisation_cost_messages(calibration):
    sizes = replace(SIZES, sums=(80, 80))
    found = Model(replace(calibration, sizes=sizes)).predict(TOGETHER, 2)
    assert found.parts.latency == 2 * 0.5 + 2 * 0.5  # the gradient by halving, two short sums
    assert found.bytes == 2 * 100 * (4000 + 160)
    averaged = replace(SIZES, averages=True)
    assert averaged.gradient == SIZES.gradient + 40


def test_what_is_not_known_is_not_predicted(calibration):
    model = Model(replace(calibration, wires=Wires(WIRES.node, INSIDE), ranks_on_node=2))
    assert model.predict(TOGETHER, 2) is not None
    assert model.predict(TOGETHER, 4) is None
    assert model.predict(Contestant("apart"), 4) is not None
    alone = Model(replace(calibration, wires=Wires(), ranks_on_node=2))
    assert alone.predict(TOGETHER, 2) is None
    table = alone.table([TOGETHER, Contestant("apart")], [1, 2, 4])
    assert [(each.contestant.strategy, each.ranks) for each in table] == [
        *[("synchronous", 1)],
        *[("apart", count) for count in (1, 2, 4)],
    ]


def test_the_fastest_threads_are_taken_up_to_those_of_a_rank(calibration):
    both = replace(calibration, steps=steps() + steps(2))
    assert Model(both).predict(TOGETHER, 1).threads == 1
    assert Model(replace(both, threads=2)).predict(TOGETHER, 1).threads == 2


def test_shapes_of_cores(calibration):
    """2 cores: one rank of two threads takes 9 seconds; two ranks take 10 and half the update."""
    both = replace(calibration, steps=steps() + steps(2))
    best, other = Model(both).shapes(2)
    assert (best.ranks, best.threads, best.step) == (1, 2, 9.0)
    assert (other.ranks, other.threads, other.nodes) == (2, 1, 1)
    assert other.step == pytest.approx(10 - 0.5 + 0.25 + 2.0)
    (four, *_) = Model(both).shapes(4)
    assert four.ranks * four.threads == 4 and four.nodes == 2


@pytest.mark.parametrize("batch,ranks,share", [(64, 3, 22), (1025, 4, 257), (64, 100, 1)])
def test_the_largest_share_of_a_batch(batch, ranks, share):
    """1,025 rows: two slices of 512, 128 each, and one row."""
    assert largest_share(replace(SIZES, batch=batch), ranks) == share


def test_places():
    assert [tuple(place_of(ranks, 4)) for ranks in (1, 3, 4, 5, 8)] == [
        *[(1, 1), (1, 3), (1, 4)],
        *[(2, 4), (2, 4)],
    ]


def limit(calibration, ranks=(1, 2, 4, 8, 16, 32, 64, 128)):
    model = Model(calibration)
    return limit_of([model.predict(TOGETHER, count) for count in ranks])


def test_the_reason_why_more_do_not_pay(calibration):
    """A slow link is latency's or bandwidth's fault; with a perfect one only the batch ends it."""

    def linked(latency, byte):
        network = Network(Link(latency, byte), MPI)
        return replace(calibration, wires=replace(WIRES, between=network))

    assert limit(linked(0.5, 0.0)).reason == "latency"
    assert limit(linked(0.0, 0.02)).reason == "bandwidth"
    perfect = limit(linked(0.0, 0.0))
    assert (perfect.fastest, perfect.reason) == (64, "rows")
    assert limit(linked(0.0, 0.0), (1, 2, 4)) == type(perfect)(4, "", 4, "update")
    assert perfect.worthwhile == 8  # of 16 each takes 3 seconds where 18 / 16 would be whole


def test_a_strategy_is_an_entry_of_a_table(calibration, monkeypatch):
    """Two sums of all parameters in each step."""
    twice = Pattern((Passed("all", 4 * 996, 2.0),), 1)
    monkeypatch.setitem(STRATEGIES, "twice", lambda sizes, every: twice)
    found = Model(calibration).predict(Contestant("twice"), 2)
    assert (found.parts.latency, found.parts.bandwidth) == (2.0, pytest.approx(2 * 3.984))
    assert cost_of(twice, WIRES, Place(1, 1)) == Cost()


def test_gossip_costs_one_message_whatever_the_ranks(calibration):
    """And waits for one partner, not for all."""
    uneven = tuple(replace(each, slowest=(each.mean, each.mean + 4)) for each in steps())
    model = Model(replace(calibration, steps=uneven))
    found = model.predict(Contestant("gossip"), 1024)
    assert (found.parts.latency, found.parts.bandwidth) == (0.5, pytest.approx(3.984))
    assert found.parts.waiting == 3.0 < model.predict(TOGETHER, 1024).parts.waiting
    assert found.bytes == 1024 * 3984 * 100


def test_compressed_sums_pass_what_was_noted(calibration):
    """Words of half the bytes in two hops, and metrics whole: with 4 ranks 3 messages a hop."""
    words = (Passed("blocks", 1992), Passed("blocks", 1992))
    model = Model(replace(calibration, compression="bf16", coding=0.25, compressed=words))
    found = model.predict(Contestant("synchronous", 1, "bf16"), 4)
    assert found.contestant.label == "synchronous, bf16"
    assert found.parts.update == 1.0 + 0.25
    assert found.parts.latency == 2 * 3 * 0.5 + 2 * 0.5
    assert found.parts.bandwidth == pytest.approx(2 * 0.75 * 1.992 + 2 * 0.016)
    assert found.bytes == 4 * (2 * 1494 + 24) * 100
    rare = model.predict(Contestant("local SGD", 8, "bf16"), 4)
    assert rare.parts.update == 1.0 + (0.25 + 3.0) / 8
    assert rare.contestant.label == "local SGD, H = 8, bf16"


def test_sums_hide_behind_the_arithmetic(calibration):
    """8 seconds of sums take 10 in buckets; of 4 seconds of arithmetic 2 hide as many of them."""
    plain = Model(calibration).predict(TOGETHER, 4)
    assert plain.parts.latency + plain.parts.bandwidth == 8.0
    assert plain.parts.shared + plain.parts.small == 5.0
    found = Model(replace(calibration, overlap=Overlap(1.25, 0.4))).predict(TOGETHER, 4)
    assert found.parts.latency + found.parts.bandwidth == pytest.approx(10.0 - 2.0)
    assert found.parts.latency == pytest.approx(plain.parts.latency)
    hidden = Model(replace(calibration, overlap=Overlap(1.0, 5.0)))
    assert hidden.predict(TOGETHER, 4).step == pytest.approx(plain.step - 8.0)
    for other in (Contestant("local SGD", 4), Contestant("gossip")):
        assert hidden.predict(other, 4) == Model(calibration).predict(other, 4)
    shared = replace(calibration, ranks_on_node=2, overlap=Overlap(1.0, 5.0))
    assert Model(shared).predict(TOGETHER, 4).parts.latency > 0


def test_sums_of_batch_normalisation_do_not_hide(calibration):
    sizes = replace(SIZES, sums=(80, 80))
    hidden = replace(calibration, sizes=sizes, overlap=Overlap(1.0, 5.0))
    found = Model(hidden).predict(TOGETHER, 2)
    assert found.parts.latency == 2 * 0.5 and found.parts.bandwidth == pytest.approx(0.16)


def test_ranks_of_a_node_share_its_link_when_all_pass_to_all():
    found = KINDS["blocks"].cost(WIRES, Place(2, 2), 1000)
    assert found.latency == 3 * 0.5
    assert found.bandwidth == pytest.approx(2 * 2 / 4 * 1.0)  # 2 ranks, 2 of 4 blocks each
    inside = KINDS["whole"].cost(WIRES, Place(1, 4), 1000)
    assert inside.latency == pytest.approx(3 * 0.1) and inside.bandwidth == 0.0
    assert KINDS["whole"].bytes(1000, 4) == 3000 and KINDS["blocks"].bytes(1000, 4) == 750
