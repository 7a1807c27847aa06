import copy

import pytest

from ensync.report import verdict as words
from ensync.report.results import Comparison, Sweep, from_json


def verdict(comparison: dict) -> list[str]:
    return words.verdict(from_json(Comparison, comparison))


def sweep_verdict(sweep: dict) -> list[str]:
    return words.sweep_verdict(from_json(Sweep, sweep))


def row(comparison: dict, name: str) -> dict:
    return next(row for row in comparison["rows"] if row["name"] == name)


def with_accuracy(comparison: dict, **right: int) -> dict:
    """Return the comparison with so many of 10,000 images right in the rows named by their first
    word or fusion.
    """
    changed = copy.deepcopy(comparison)
    for entry in changed["rows"]:
        count = right.get((entry["fusion"] or entry["name"]).replace(" ", "_"))
        if count is not None:
            entry["test_accuracy"] = count / 10_000
            changed["confusions"][entry["name"]] = [[count, 10_000 - count], [0, 0]]
    return changed


def test_the_more_accurate_wins_and_its_price_is_told(comparison):
    advice, found, reason, price, _ = verdict(
        with_accuracy(comparison, synchronous=9000, soft_voting=8700, hard_voting=8600)
    )
    assert advice == "Train together: it is better by 3.00 points than training apart."
    assert (
        found == "Synchronous training reached 90.00 % in 4.71 s; the ensemble (soft voting, 4 "
        "members) 87.00 % in 3.62 s; one rank alone 89.33 % in 14.2 s."
    )
    assert "3.00 points" in reason and "do not overlap" in reason
    assert price.startswith("It takes 1.30x the time")


def test_the_ensemble_can_win(comparison):
    lines = verdict(with_accuracy(comparison, synchronous=8700, soft_voting=8600, hard_voting=9000))
    assert "(hard voting, 4 members) 90.00 %" in lines[1]
    assert lines[0] == (
        "Train apart: it is better by 3.00 points than training together, and is 1.30x as fast."
    )
    assert len(lines) == 4, "the faster one has no price"


@pytest.mark.parametrize("data", ["shards", "full"])
def test_one_seed_and_equal_epochs_are_named(comparison, data):
    comparison["job"]["ensemble"] = {"data": data}
    last = verdict(comparison)[-1]
    assert "--seeds 5" in last and ("saw 4 times the samples" in last) is (data == "full")


def test_overlapping_intervals_are_admitted_and_time_is_told(comparison):
    lines = verdict(with_accuracy(comparison, synchronous=8990, soft_voting=8970, hard_voting=8000))
    assert lines[0] == "Train apart: too close to call in accuracy, and 1.30x as fast."
    assert "intervals overlap" in lines[2] and "0.20 points" in lines[2]


def test_alike_in_both_either_will_do(comparison):
    same = with_accuracy(comparison, synchronous=8990, soft_voting=8970, hard_voting=8000)
    row(same, "synchronous")["seconds"] = 3.65
    assert (
        verdict(same)[0]
        == "Train together or apart: too close to call in accuracy, and alike in time."
    )


def test_equal_accuracy_is_called_equal(comparison):
    lines = verdict(with_accuracy(comparison, synchronous=8990, soft_voting=8990, hard_voting=8000))
    assert (
        lines[0] == "Train apart: equally accurate, and 1.30x as fast."
        and lines[2] == "Both have the same number of test images right."
    )


@pytest.mark.parametrize(
    ("only_first", "only_second", "told", "advice"),
    [
        (140, 60, "more than luck gives", "Train together: it is better"),
        (110, 100, "no more than luck may give", "too close to call"),
    ],
)
def test_a_paired_test_on_the_same_images_goes_before_intervals(
    comparison, only_first, only_second, told, advice
):
    close = with_accuracy(comparison, synchronous=8990, soft_voting=8970, hard_voting=8000)
    close["paired"] = [
        {
            "rows": ["synchronous", "ensemble: soft voting"],
            "only_first": only_first,
            "only_second": only_second,
        }
    ]
    lines = verdict(close)
    assert told in lines[2] and "McNemar" in lines[2] and advice in lines[0]


def test_one_rank_is_named_when_more_ranks_do_not_pay(comparison):
    slow = with_accuracy(
        comparison, one_rank=9000, synchronous=9000, soft_voting=8700, hard_voting=8600
    )
    row(slow, "one rank")["seconds"] = 2.0
    lines = verdict(slow)
    assert lines[0] == (
        "One rank is enough here: training together on 4 ranks took no less time and is not shown "
        "to be more accurate."
    )
    assert "one rank alone 90.00 % in 2.00 s" in lines[1]
    assert not any("It takes" in line for line in lines), "the price of another row"


def test_one_rank_that_is_better_but_slower_is_told(comparison):
    lines = verdict(
        with_accuracy(comparison, one_rank=9300, synchronous=9000, soft_voting=8700, hard_voting=1)
    )
    assert lines[0].startswith("Train together")
    assert lines[-2] == "One rank alone is better than that by 3.00 points, in 3.01x the time."


def test_seconds_of_more_threads_than_cores_decide_nothing(comparison):
    close = with_accuracy(comparison, synchronous=8990, soft_voting=8970, hard_voting=8000)
    close["machine"]["cores"] = 3
    lines = verdict(close)
    assert lines[0] == (
        "Train together or apart: too close to call in accuracy, and no times can be compared."
    )
    assert "4.71" not in lines[1] and lines[-2].startswith("Seconds are not compared")


@pytest.mark.parametrize(
    ("lost", "named"), [("synchronous", "synchronous training"), ("ensemble", "the ensemble")]
)
def test_a_strategy_without_a_result_is_named(comparison, lost, named):
    for entry in comparison["rows"]:
        if entry["strategy"] == lost and entry["name"] != "one rank":
            entry["test_accuracy"] = None
    assert verdict(comparison) == [f"There is nothing to compare: {named} has no result."]


def test_a_comparison_made_on_one_rank_takes_it_for_synchronous(comparison):
    comparison["rows"] = [entry for entry in comparison["rows"] if entry["name"] != "synchronous"]
    lines = verdict(with_accuracy(comparison, one_rank=9000, soft_voting=8700, hard_voting=8600))
    assert lines[1].startswith("Synchronous training reached 90.00 % in 14.2 s;") and not any(
        "ne rank alone" in line for line in lines
    )


def test_an_ensemble_of_one_is_no_ensemble(comparison):
    for entry in comparison["rows"]:
        entry["members"] = 1
    assert len(verdict(comparison)) == 1 and "mpirun -n 2" in verdict(comparison)[0]


def test_missing_seconds_and_counts_are_no_obstacle(comparison):
    for entry in comparison["rows"]:
        entry["seconds"] = None
    comparison["confusions"] = {}
    lines = verdict(comparison)
    assert "89.69 %; the ensemble" in lines[1] and "cannot be told" in lines[2]


def test_an_interval_needs_counts(comparison):
    found = from_json(Comparison, comparison)
    rows = {row.name: row for row in found.rows}
    low, high = words.interval_of(found, rows["synchronous"])[1:]
    assert low < rows["synchronous"].test_accuracy < high
    assert words.interval_of(found, rows["ensemble: weight averaging"]) is None


def test_a_sweep_is_judged_by_validation(sweep):
    sweep["rows"][3]["validation_accuracy"] = 0.95
    lines = verdict_lines = sweep_verdict(sweep)
    assert (
        lines[0]
        == "optimizer.learning_rate = 0.003 has the best validation accuracy, 95.00 % (test "
        "88.00 %)."
    )
    assert verdict_lines[-1] == "No result at 0.03."


def test_a_sweep_without_results(sweep):
    for entry in sweep["rows"]:
        entry["validation_accuracy"] = None
    assert sweep_verdict(sweep) == ["No value of optimizer.learning_rate gave a result."]
