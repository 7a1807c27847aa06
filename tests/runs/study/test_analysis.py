"""The analysis of simulated cells against brute force."""

import json
import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from report.scale_sample import make_scale
from runs.study.simulated import (
    CLASSES,
    JOB,
    NAMES,
    PLAIN,
    Simulated,
    cell_of,
    outputs_of,
    place,
    write_cell,
    write_simulated,
)

from ensync.core.errors import EnsyncError
from ensync.core.scaling.prediction import Contestant, Model
from ensync.report.results import from_json, to_json
from ensync.report.study_results import StudyResult
from ensync.runs.study.analysis import analyse
from ensync.runs.study.fusing import LABELS

SEEDS = (1, 2, 3)
ENSEMBLE, SOUP = PLAIN[2], PLAIN[3]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    found = tmp_path_factory.mktemp("study")
    write_simulated(found)
    return found


@pytest.fixture(scope="module")
def study(directory) -> StudyResult:
    return analyse(directory)


def answers(of: Simulated, seed: int, split: str = "test"):
    """Return labels and the members' probabilities in float64."""
    found = getattr(outputs_of(of, seed), split)
    return found.labels, found.probabilities.astype(np.float64)


def accuracy(probabilities, labels) -> float:
    right = sum(int(np.argmax(row)) == label for row, label in zip(probabilities, labels))
    return right / len(labels)


def result_of(of: Simulated, seed: int, split: str = "test"):
    """Return labels and the probabilities that the contestant's result has."""
    found = getattr(outputs_of(of, seed), split)
    if of.fusion == "weight_averaging":
        return found.labels, found.averaged.astype(np.float64)
    return found.labels, found.probabilities.mean(axis=0, dtype=np.float64)


def test_every_contestant_is_there_in_the_order_of_ranks_and_job(study):
    assert [each.key for each in study.contestants] == [
        "one_rank@1",
        "synchronous@3",
        "ensemble_full@3",
        "shared_start@3",
    ]
    assert study.cells_done == 12 and study.cells_left == 0
    assert [each.what for each in study.left_out] == ["synchronous on 1 rank"]
    assert [each.together for each in study.contestants] == [True, True, False, False]


@pytest.mark.parametrize("of", PLAIN, ids=lambda of: of.name)
def test_accuracies_and_scores_against_brute_force(study, of):
    found = next(each for each in study.contestants if each.name == of.name)
    for place_of, seed in enumerate(SEEDS):
        labels, p = result_of(of, seed)
        assert found.accuracy.values[place_of] == accuracy(p, labels)
        likelihood = np.mean([np.log(row[label]) for row, label in zip(p, labels)])
        brier = np.mean(
            [
                sum((row[k] - (k == label)) ** 2 for k in range(CLASSES))
                for row, label in zip(p, labels)
            ]
        )
        assert found.scores.log_likelihood.values[place_of] == pytest.approx(likelihood, rel=1e-6)
        assert found.scores.brier.values[place_of] == pytest.approx(brier, rel=1e-6)
    values = found.accuracy.values
    assert found.accuracy.mean == pytest.approx(sum(values) / 3)
    assert found.accuracy.sd == pytest.approx(np.std(values, ddof=1))
    half = 4.302652729911275 * np.std(values, ddof=1) / np.sqrt(3)  # t of 2 degrees of freedom
    assert found.accuracy.on_these_images.high == pytest.approx(np.mean(values) + half)
    assert found.accuracy.on_new_images.high >= found.accuracy.on_these_images.high - 1e-12
    counts = np.zeros((CLASSES, CLASSES), int)
    for seed in SEEDS:
        for row, label in zip(*result_of(of, seed)[::-1]):
            counts[label, np.argmax(row)] += 1
    assert found.confusion == counts.tolist()
    recalls = [np.mean([_recall(of, seed, label) for seed in SEEDS]) for label in range(CLASSES)]
    assert found.worst_class.name == NAMES[int(np.argmin(recalls))]
    assert found.worst_class.recall.mean == pytest.approx(min(recalls))


def _recall(of: Simulated, seed: int, label: int) -> float:
    labels, p = result_of(of, seed)
    return np.mean([np.argmax(row) == label for row in p[labels == label]])


def test_the_temperature_is_fitted_on_validation_after_pooling(study):
    found = next(each for each in study.contestants if each.name == "ensemble_full")
    labels, p = result_of(ENSEMBLE, 1, "validation")
    tried = np.linspace(0.5, 3, 1001)

    def loss(heat: float) -> float:
        raised = p ** (1 / heat)
        return -np.mean(np.log((raised / raised.sum(axis=1, keepdims=True))[range(len(p)), labels]))

    best = tried[int(np.argmin([loss(heat) for heat in tried]))]
    assert found.temperature.values[0] == pytest.approx(best, abs=0.003)
    labels, p = result_of(ENSEMBLE, 1)
    raised = p ** (1 / found.temperature.values[0])
    raised /= raised.sum(axis=1, keepdims=True)
    likelihood = np.mean(np.log(raised[range(len(p)), labels]))
    assert found.calibrated.log_likelihood.values[0] == pytest.approx(likelihood, rel=1e-6)


def naive_fusions(of: Simulated, seed: int) -> dict[str, float]:
    labels, p = answers(of, seed)
    held, q = answers(of, seed, "validation")
    votes = np.zeros(p.shape[1:])
    for member in p:
        for row, probabilities in enumerate(member):
            votes[row, np.argmax(probabilities)] += 1
    errors = np.array([1 - (accuracy(each, held) * len(held) + 1) / (len(held) + 2) for each in q])
    weights = np.maximum(np.log((1 - errors) / errors) + np.log(CLASSES - 1), 0)
    return {
        "soft_voting": accuracy(p.mean(axis=0), labels),
        "hard_voting": accuracy(votes, labels),
        "weighted_voting": accuracy(np.einsum("m,mrc->rc", weights, p), labels),
        "median_voting": accuracy(np.median(p, axis=0), labels),
    }


@pytest.mark.parametrize("of", [ENSEMBLE, SOUP], ids=lambda of: of.name)
def test_every_fusion_is_there_with_its_value_or_its_reason(study, of):
    found = next(each for each in study.contestants if each.name == of.name)
    fusions = {each.name: each for each in found.fusions}
    assert list(fusions) == list(LABELS)
    for place_of, seed in enumerate(SEEDS):
        for name, value in naive_fusions(of, seed).items():
            assert fusions[name].accuracy.values[place_of] == pytest.approx(value)
    assert fusions["hard_voting"].log_likelihood is None
    assert "at least 1,040 validation rows" in fusions["stacking"].refused
    assert fusions["greedy_selection"].accuracy is not None
    for name in ("weight_averaging", "greedy_soup"):
        if of is SOUP:
            whole = outputs_of(of, 2).test
            wanted = whole.averaged if name == "weight_averaging" else whole.greedy_soup
            assert fusions[name].accuracy.values[1] == accuracy(wanted, whole.labels)
        else:
            assert "started from different weights" in fusions[name].refused
            assert fusions[name].accuracy is None
    assert all(not each.fusions for each in study.contestants if each.members == 1)


def test_figures_of_members_against_brute_force(study):
    found = next(each for each in study.contestants if each.name == "ensemble_full").member_figures
    for place_of, seed in enumerate(SEEDS):
        labels, p = answers(ENSEMBLE, seed)
        said = p.argmax(axis=2)
        pairs = list(combinations(said, 2))
        differ = np.mean([np.mean(a != b) for a, b in pairs])
        both = np.mean([np.mean((a != labels) & (b != labels)) for a, b in pairs])
        oracle = np.mean([any(m[row] == label for m in said) for row, label in enumerate(labels)])
        assert found.disagreement.values[place_of] == pytest.approx(differ)
        assert found.double_fault.values[place_of] == pytest.approx(both)
        assert found.oracle.values[place_of] == pytest.approx(oracle)
        own = -np.mean([np.log(m[range(len(labels)), labels]).mean() for m in p])
        fused = -np.log(p.mean(axis=0)[range(len(labels)), labels]).mean()
        assert found.member_loss.values[place_of] == pytest.approx(own, rel=1e-6)
        assert found.ambiguity.values[place_of] == pytest.approx(own - fused, rel=1e-5)
    sizes = [
        np.mean(
            [
                np.mean([accuracy(p[list(some)].mean(axis=0), labels) for some in subsets])
                for labels, p in (answers(ENSEMBLE, seed) for seed in SEEDS)
            ]
        )
        for subsets in (list(combinations(range(3), size)) for size in (1, 2, 3))
    ]
    assert [each.accuracy for each in found.by_size] == pytest.approx(sizes)
    means = np.mean(
        [[accuracy(m, labels) for m in p] for labels, p in (answers(ENSEMBLE, s) for s in SEEDS)],
        axis=0,
    )
    assert found.accuracies == pytest.approx(means.tolist())


def test_pairs_against_brute_force(study):
    pairs = {(each.first, each.second): each for each in study.pairs}
    keys = [each.key for each in study.contestants]
    assert set(pairs) == set(combinations(keys, 2))
    found = pairs["synchronous@3", "ensemble_full@3"]
    right = {
        of.name: [
            np.array([np.argmax(row) for row in p]) == labels
            for labels, p in (result_of(of, seed) for seed in SEEDS)
        ]
        for of in PLAIN
    }
    ours, theirs = right["synchronous"], right["ensemble_full"]
    differences = [a.mean() - b.mean() for a, b in zip(ours, theirs)]
    assert found.difference == pytest.approx(np.mean(differences))
    assert found.sd == pytest.approx(np.std(differences, ddof=1))
    assert [(each.only_first, each.only_second) for each in found.mcnemar] == [
        (int((a & ~b).sum()), int((b & ~a).sum())) for a, b in zip(ours, theirs)
    ]
    wins = sum(d > 0 for d in differences) + sum(d == 0 for d in differences) / 2
    assert found.better == pytest.approx(wins / 3)
    ordered = sorted(study.pairs, key=lambda each: each.p_value)
    running = 0.0
    for place_of, each in enumerate(ordered):  # Holm, step by step
        running = max(running, min(1, each.p_value * (len(ordered) - place_of)))
        assert each.p_holm == pytest.approx(running)
    assert all(each.corrected is None for each in study.pairs)
    d = np.array(ours, float) - np.array(theirs, float)
    rest = d - d.mean(axis=0) - d.mean(axis=1, keepdims=True) + d.mean()
    squares = (rest**2).sum() / (2 * (len(d[0]) - 1))  # of the interaction, 2 = seeds - 1
    assert found.deviations.interaction == pytest.approx(np.sqrt(squares))
    images = 3 * d.mean(axis=0).var(ddof=1)
    assert found.deviations.image == pytest.approx(np.sqrt(max(images - squares, 0) / 3))


def test_reliability_has_all_images_of_all_seeds(study):
    for each in study.contestants:
        assert sum(one.share for one in each.reliability) == pytest.approx(1)
        right = sum(one.share * one.accuracy for one in each.reliability)
        assert right == pytest.approx(each.accuracy.mean)


def test_the_result_survives_its_file(study):
    assert from_json(StudyResult, json.loads(to_json(study))) == study


def test_the_deep_ensemble_equals_itself_and_others_part_of_it(study):
    of = {each.name: each.member_figures for each in study.contestants}
    assert of["ensemble_full"].equivalent == 3
    assert 1 <= of["shared_start"].equivalent < 3
    assert of["synchronous"] is None


def test_a_power_law_is_checked_on_sizes_it_has_not_seen(tmp_path):
    write_simulated(tmp_path, (Simulated("ensemble_full", 5),), seeds=(1, 2))
    found = analyse(tmp_path).contestants[0].member_figures
    assert found.fitted_on == [1, 2, 3]
    assert [each.members for each in found.by_size] == list(range(1, 11))
    seen = [each for each in found.by_size if each.log_likelihood is not None]
    assert len(seen) == 5
    for each in seen:
        assert each.predicted == pytest.approx(each.log_likelihood, abs=0.02)
    predicted = [each.predicted for each in found.by_size]
    assert predicted == sorted(predicted), "more members are never predicted to be worse"


def test_cost_is_a_mean_over_seeds_and_marks_what_is_no_measure(study, tmp_path):
    synchronous = study.contestants[1].cost
    assert synchronous.seconds.values == pytest.approx([10 / 3 + 0.1 * s for s in SEEDS])
    assert synchronous.core_seconds.mean == pytest.approx(3 * (10 / 3 + 0.2))
    assert synchronous.timed
    write_simulated(tmp_path, PLAIN[:2], ranks=(16,), seeds=(1,))
    cell = cell_of(PLAIN[0], 1, 1, packed=True)
    write_cell(tmp_path, cell, outputs_of(PLAIN[0], 1))
    one, many = analyse(tmp_path).contestants
    assert one.cost.packed and not one.cost.oversubscribed
    assert many.cost.oversubscribed and not many.cost.timed


def test_bytes_of_a_sample_are_a_mean_over_seeds_that_know_them(tmp_path):
    """A continued cell does not know what an earlier start sent."""
    for seed, sent in ((1, 3000), (2, None), (3, 9000)):
        of = PLAIN[1]
        write_cell(tmp_path, cell_of(of, 2, seed, bytes_sent=sent), outputs_of(of, seed))
    cost = analyse(tmp_path).contestants[0].cost
    assert cost.bytes_sent is None
    assert (cost.bytes_per_sample.mean, cost.bytes_per_sample.values) == (2.0, [1.0, None, 3.0])


def test_the_setting_that_makes_contestants_is_told(tmp_path, study):
    of = (Simulated("every_4"), Simulated("every_never"), Simulated("every_1"))
    write_simulated(tmp_path, of, over="communication.every=1,4,never")
    found = analyse(tmp_path)
    assert found.over.setting == "communication.every"
    assert list(found.over.values.items()) == [
        *(("every_1", 1), ("every_4", 4), ("every_never", "never"))
    ]
    assert [each.name for each in found.contestants] == ["every_1", "every_4", "every_never"]
    assert from_json(StudyResult, json.loads(to_json(found))) == found
    assert study.over is None


def test_times_on_more_nodes_are_those_of_the_scale_model(tmp_path):
    """Steps of each contestant times the seconds of its step; of another job they are left out."""
    of = tuple(Simulated(f"every_{value}") for value in ("1", "4", "never"))
    write_simulated(tmp_path, of, over="communication.every=1,4,never")
    assert analyse(tmp_path).predicted == []
    sample = make_scale()
    (tmp_path / "scale.json").write_text(to_json(replace(sample, job=JOB)))
    model, found = Model(sample.calibration), analyse(tmp_path).predicted
    assert [each.nodes for each in found] == [10, 100, 1000]
    for each in found:
        ranks = each.nodes * sample.calibration.ranks_on_node
        ways = [Contestant("synchronous"), *(Contestant("local SGD", n) for n in (4, math.inf))]
        assert each.seconds == {
            of.name: 93 * model.predict(way, ranks).step for of, way in zip(of, ways, strict=True)
        }
        link = sample.calibration.wires.between.link
        assert (each.latency, each.bandwidth) == (link.latency, 1 / link.byte)
    other = JOB | {"network": {"name": "resnet"}}
    (tmp_path / "scale.json").write_text(to_json(replace(sample, job=other)))
    refused = analyse(tmp_path)
    assert refused.predicted == [] and refused.left_out[-1].what == "predicted seconds"
    assert "network is not that of the prediction" in refused.left_out[-1].reason


def test_one_seed_gives_no_interval_over_seeds(tmp_path):
    write_simulated(tmp_path, PLAIN[:2], seeds=(1,))
    found = analyse(tmp_path)
    assert found.contestants[0].accuracy.on_these_images is None
    assert found.contestants[0].accuracy.on_new_images is not None
    pair = found.pairs[0]
    assert (pair.on_these_images, pair.better, pair.p_holm, pair.verdict) == (
        None,
        None,
        None,
        "unknown",
    )
    assert len(pair.mcnemar) == 1


def test_an_unfinished_study_says_what_is_missing(tmp_path):
    write_simulated(tmp_path)
    for of, seed in ((PLAIN[1], 2), (PLAIN[1], 3), (PLAIN[2], 1)):
        (place(tmp_path, cell_of(of, 3, seed)) / "cell.json").unlink()
    found = analyse(tmp_path)
    assert (found.cells_done, found.cells_left) == (9, 3)
    told = {each.what: each.reason for each in found.left_out}
    assert told["synchronous on 3 ranks, seeds 2, 3"] == "not done yet"
    assert told["ensemble_full on 3 ranks, seed 1"] == "not done yet"
    pairs = {(each.first, each.second): each.seeds for each in found.pairs}
    assert pairs["one_rank@1", "synchronous@3"] == [1]
    assert ("synchronous@3", "ensemble_full@3") not in pairs, "no seed in common"


def test_cells_that_are_not_asked_for_now_are_left_out(tmp_path):
    write_simulated(tmp_path, PLAIN[:2], seeds=(1, 2, 3))
    write_simulated(tmp_path, PLAIN[:2], seeds=(1, 2))
    found = analyse(tmp_path)
    assert found.contestants[0].seeds == [1, 2] and found.cells_done == 4
    assert any("seed 3" in each.what and "not asked" in each.reason for each in found.left_out)


def test_a_cell_without_usable_networks_is_left_out_with_its_reason(tmp_path):
    write_simulated(tmp_path, PLAIN[:3])
    lost = {str(m): "its outputs are not finite" for m in range(3)}
    write_cell(tmp_path, cell_of(PLAIN[2], 3, 2, excluded=lost), None)
    found = analyse(tmp_path)
    assert found.contestants[2].seeds == [1, 3]
    assert any("seed 2" in each.what and "not finite" in each.reason for each in found.left_out)


def test_a_member_that_is_left_out_is_named(tmp_path):
    write_simulated(tmp_path, PLAIN[:3])
    whole = outputs_of(PLAIN[2], 2)
    some = replace(
        whole,
        members=whole.members[1:],
        test=replace(whole.test, probabilities=whole.test.probabilities[1:]),
        validation=replace(whole.validation, probabilities=whole.validation.probabilities[1:]),
    )
    write_cell(tmp_path, cell_of(PLAIN[2], 3, 2, excluded={"0": "diverged"}), some)
    found = analyse(tmp_path).contestants[2]
    assert "seed 2, member 0 left out: diverged" in found.notes
    assert len(found.member_figures.accuracies) == 3
    assert found.member_figures.by_size[2].accuracy == pytest.approx(
        np.mean(
            [
                accuracy(answers(ENSEMBLE, s)[1].mean(axis=0), answers(ENSEMBLE, s)[0])
                for s in (1, 3)
            ]
        )
    )


def test_without_validation_images_nothing_is_fitted_on_them(tmp_path):
    write_simulated(tmp_path, PLAIN[:4], seeds=(1,))
    for of in PLAIN[:4]:
        whole = outputs_of(of, 1)
        none = replace(
            whole.validation,
            labels=whole.validation.labels[:0],
            probabilities=whole.validation.probabilities[:, :0],
            averaged=whole.validation.averaged[:0] if of.shared_start else None,
            greedy_soup=None,
        )
        test = replace(whole.test, greedy_soup=None)
        cell = cell_of(of, 1 if of.name == "one_rank" else 3, 1, validation_accuracy=None)
        write_cell(
            tmp_path,
            cell,
            replace(whole, validation=none, test=test, soup_members=whole.soup_members[:0]),
        )
    found = analyse(tmp_path)
    for each in found.contestants:
        assert each.calibrated is None and each.temperature is None and each.scores is not None
    fusions = {each.name: each.refused for each in found.contestants[2].fusions}
    for name in ("weighted_voting", "greedy_selection", "stacking"):
        assert "no validation images" in fusions[name]


def test_redrawn_validation_images_get_the_corrected_interval(tmp_path):
    write_simulated(tmp_path, PLAIN[:2], redraw_validation=True)
    found = analyse(tmp_path)
    pair, one, other = found.pairs[0], *found.contestants
    differences = np.subtract(one.validation_accuracy.values, other.validation_accuracy.values)
    half = 4.302652729911275 * np.sqrt(1 / 3 + 200 / 1000) * np.std(differences, ddof=1)
    assert pair.corrected.high == pytest.approx(differences.mean() + half)
    assert found.redraw_validation


def test_trials_have_no_part(tmp_path, directory):
    write_simulated(tmp_path, PLAIN[:2])
    cell = cell_of(PLAIN[1], 3, 1, trial=1, learning_rate_factor=0.5)
    where = place(tmp_path, cell).with_name("trial_1")
    where.mkdir()
    (where / "cell.json").write_text(to_json(cell))
    assert analyse(tmp_path).cells_done == 6


def test_a_study_without_its_plan_is_made_from_its_cells(tmp_path):
    write_simulated(tmp_path, PLAIN[:2])
    (tmp_path / "plan.json").unlink()
    found = analyse(tmp_path)
    assert found.budget.name == "unknown" and found.cells_done == 6 and not found.class_names


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"code": "other"}, "2 different sources of Ensync"),
        ({"dataset": replace(cell_of(PLAIN[0], 1, 1).dataset, fingerprint="sha256:2")}, "datasets"),
    ],
)
def test_cells_of_other_code_or_data_are_refused(tmp_path, more, words):
    write_simulated(tmp_path, PLAIN[:2])
    write_cell(tmp_path, cell_of(PLAIN[1], 3, 2, **more), outputs_of(PLAIN[1], 2))
    with pytest.raises(EnsyncError, match=words):
        analyse(tmp_path)


def test_cells_with_other_test_labels_are_refused(tmp_path):
    write_simulated(tmp_path, PLAIN[:2])
    whole = outputs_of(PLAIN[1], 2)
    other = replace(whole.test, labels=np.roll(whole.test.labels, 1))
    write_cell(tmp_path, cell_of(PLAIN[1], 3, 2), replace(whole, test=other))
    with pytest.raises(EnsyncError, match="synchronous/ranks_3/seed_2 .* others than before"):
        analyse(tmp_path)


def test_many_members_have_fewer_subsets_of_each_size(monkeypatch):
    from ensync.core.statistics import ensembles
    from ensync.runs.study import member_figures

    seen = []
    real = ensembles.accuracy_by_size

    def spy(*arguments, **named):
        seen.append(named["most_subsets"])
        return real(*arguments, **named)

    monkeypatch.setattr(ensembles, "accuracy_by_size", spy)
    for members in (3, 16, 100):
        member_figures.of_cell(outputs_of(Simulated("ensemble_full", members), 1))
    assert seen == [20, 12, 3]


@pytest.mark.parametrize("content", ["{", "[]", '{"format": "ensync-result"}', ""])
def test_a_damaged_cell_is_refused_by_name(tmp_path, content):
    write_simulated(tmp_path, PLAIN[:1])
    path = place(tmp_path, cell_of(PLAIN[0], 1, 2)) / "cell.json"
    path.write_text(content)
    with pytest.raises(EnsyncError, match="seed_2/cell.json cannot be used"):
        analyse(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        '{"format": "x", "job": {}}',
        "[]",
        '{"job": {}, "cells": ["one_rank/seed_1"]}',
        '{"job": {"study": {"seeds": 0}}, "cells": ["one_rank/ranks_1/seed_1"]}',
    ],
)
def test_a_damaged_plan_is_refused(tmp_path, content):
    write_simulated(tmp_path, PLAIN[:1], seeds=(1,))
    (tmp_path / "plan.json").write_text(content)
    with pytest.raises(EnsyncError, match="plan.json cannot be used"):
        analyse(tmp_path)


def test_no_study_is_refused(tmp_path):
    with pytest.raises(EnsyncError, match="no cell of a study is done"):
        analyse(tmp_path)
    write_simulated(tmp_path, PLAIN[:1], seeds=(1,))
    (place(tmp_path, cell_of(PLAIN[0], 1, 1)) / "outputs.h5").unlink()
    with pytest.raises(EnsyncError, match=r"outputs\.h5"):
        analyse(tmp_path)


def test_a_fusion_without_probabilities_has_accuracies_alone(tmp_path):
    from ensync.report.study_page import study_page

    votes = (Simulated("one_rank"), Simulated("ensemble_shards", 3, fusion="hard_voting"))
    write_simulated(tmp_path, votes, seeds=(1, 2))
    found = analyse(tmp_path)
    ensemble = found.contestants[1]
    for place_of, seed in enumerate((1, 2)):
        naive = naive_fusions(votes[1], seed)["hard_voting"]
        assert ensemble.accuracy.values[place_of] == pytest.approx(naive)
    assert (ensemble.scores, ensemble.temperature, ensemble.reliability) == (None, None, [])
    assert ensemble.member_figures.equivalent is None
    assert "no ensemble_full" in ensemble.member_figures.equivalent_note
    assert "ensemble_shards" in study_page(found)
