"""Every row exactly once, the same for everybody, for any number of rows, ranks and members."""

import numpy as np
import pytest

from ensync.core import sharding
from ensync.core.errors import EnsyncError
from ensync.core.sharding import (
    Group,
    Purpose,
    block,
    epoch_order,
    groups,
    local_rows,
    local_span,
    member_rows,
)

SIZES = [0, 1, 2, 3, 7, 8, 100, 1797]
LABELS = np.random.default_rng(0).integers(10, size=1000)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
def test_blocks_cover_every_row_once_and_differ_by_one(n, size):
    spans = [block(n, size, rank) for rank in range(size)]
    assert [row for start, stop in spans for row in range(start, stop)] == list(range(n))
    lengths = [stop - start for start, stop in spans]
    assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize("n", SIZES[1:])
@pytest.mark.parametrize("window", [None, (4, 2), (64, 3), (1, 5), (5000, 2)])
def test_an_epoch_visits_every_row_once(n, window):
    order = epoch_order(n, seed=3, epoch=2, window=window)
    assert order.dtype == np.int64 and np.array_equal(np.sort(order), np.arange(n))


def test_the_order_is_a_function_of_seed_epoch_and_member():
    first = epoch_order(1000, 1, 1)
    assert np.array_equal(first, epoch_order(1000, 1, 1))
    others = [
        epoch_order(1000, 2, 1),
        epoch_order(1000, 1, 2),
        epoch_order(1000, 1, 1, member=1),
        epoch_order(1000, 1, 1, (50, 4)),
    ]
    assert all(not np.array_equal(first, other) for other in others)


def test_a_window_reads_whole_blocks_into_a_bounded_buffer():
    rows, blocks = 16, 4
    order = epoch_order(1000, 5, 0, sharding.Window(rows, blocks))
    while len(order):
        held = np.unique(
            order[: rows * blocks - rows + 1] // rows
        )  # what the stretch at the front needs at least
        stretch = np.isin(order // rows, held)
        assert (
            len(held) <= blocks and stretch[: stretch.sum()].all()
        )  # all rows of these blocks, then none of them again
        assert not np.array_equal(order[: stretch.sum()], np.sort(order[: stretch.sum()]))
        order = order[stretch.sum() :]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
@pytest.mark.parametrize(("n", "batch"), [(100, 32), (7, 3), (5, 100), (64, 64), (9, 1)])
def test_local_batches_make_up_the_global_batches(n, batch, size):
    order = epoch_order(n, 1, 0)
    steps = sharding.steps_per_epoch(n, batch)
    seen = [
        local_rows(order, step, batch, size, rank) for step in range(steps) for rank in range(size)
    ]
    assert np.array_equal(np.concatenate(seen), order)
    for step in range(steps):
        first, last = sharding.global_span(n, step, batch)
        spans = [local_span(n, step, batch, size, rank) for rank in range(size)]
        assert spans[0][0] == first and spans[-1][1] == last and 0 < last - first <= batch
        assert all(left[1] == right[0] for left, right in zip(spans, spans[1:], strict=False))


@pytest.mark.parametrize("mode", ["shards", "label_skew"])
@pytest.mark.parametrize("members", [1, 2, 3, 7, 40])
def test_disjoint_modes_cover_every_row_once_and_leave_nobody_empty(mode, members):
    parts = [member_rows(mode, LABELS, members, member, 4) for member in range(members)]
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(len(LABELS)))
    assert all(
        len(part) > 0 and part.dtype == np.int64 and np.all(np.diff(part) > 0) for part in parts
    )
    if mode == "shards":
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_label_skew_leaves_nobody_empty_with_as_many_members_as_rows():
    parts = [
        member_rows("label_skew", LABELS[:12], 12, member, 4, alpha=0.05) for member in range(12)
    ]
    assert [len(part) for part in parts] == [1] * 12


def test_label_skew_is_stronger_with_a_small_alpha():
    def imbalance(alpha):
        counts = [
            np.bincount(
                LABELS[member_rows("label_skew", LABELS, 5, member, 4, alpha=alpha)], minlength=10
            )
            for member in range(5)
        ]
        return np.std(counts)

    assert imbalance(0.1) > 2 * imbalance(100.0)


def test_bootstrap_draws_with_replacement_another_sample_for_each_member():
    first, second = (member_rows("bootstrap", LABELS, 2, member, 4) for member in range(2))
    assert len(first) == len(LABELS) and not np.array_equal(first, second)
    assert 0.6 < len(np.unique(first)) / len(LABELS) < 0.67  # 1 - 1/e = 0.632


def test_full_gives_every_member_everything():
    assert np.array_equal(member_rows("full", LABELS, 3, 2, 4), np.arange(len(LABELS)))


def test_more_disjoint_members_than_rows_is_refused():
    with pytest.raises(EnsyncError, match="5 members for 3 training images"):
        member_rows("shards", LABELS[:3], 5, 0, 1)
    assert len(member_rows("bootstrap", LABELS[:3], 5, 0, 1)) == 3


def test_an_unknown_mode_is_refused_with_the_nearest():
    with pytest.raises(EnsyncError, match="did you mean 'shards'"):
        member_rows("shard", LABELS, 2, 0, 1)


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 7, 8])
@pytest.mark.parametrize("members", [1, 2, 3, 4, 5, 8, 13])
def test_groups_use_every_rank_and_train_every_member_once(ranks, members):
    found = groups(ranks, members)
    assert [rank for group in found for rank in group.ranks] == list(range(ranks))
    assert [member for group in found for member in group.members] == list(range(members))
    assert all(len(group.ranks) == 1 or len(group.members) == 1 for group in found)
    for rank in range(ranks):
        assert rank in found[sharding.group_index(ranks, members, rank)].ranks


def test_groups_of_eight_ranks_and_four_members_are_pairs():
    assert groups(8, 4) == [Group(range(2 * i, 2 * i + 2), range(i, i + 1)) for i in range(4)]


def test_streams_of_random_numbers_differ_by_purpose_and_key():
    keys = [
        (Purpose.INITIAL,),
        (Purpose.ORDER,),
        (Purpose.INITIAL, 0),
        (Purpose.INITIAL, 1),
        (Purpose.INITIAL, 0, 1),
    ]
    draws = {sharding.generator(7, *key).integers(2**63) for key in keys} | {
        int(sharding.key64(7, *key)) for key in keys
    }
    assert len(draws) == 2 * len(keys)
    assert sharding.key64(7, Purpose.DROPOUT, 1).dtype == np.uint64
