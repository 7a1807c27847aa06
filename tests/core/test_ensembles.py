"""What an ensemble gains beside loops over subsets, pairs and rows, and identities that hold."""

import itertools

import numpy as np
import pytest
import simulated

from ensync.core.fusion import hard_votes
from ensync.core.statistics import calibration, ensembles

MEMBERS, LABELS = simulated.members(5, 600, 4, 3)


def test_the_curve_is_the_mean_over_all_subsets():
    held = ensembles.Held(*simulated.members(5, 300, 4, 4))
    curve = ensembles.accuracy_by_size(MEMBERS, LABELS, validation=held)
    assert curve.sizes.tolist() == [1, 2, 3, 4, 5] and curve.subsets.tolist() == [5, 10, 10, 5, 1]
    for size in (1, 3, 5):
        accuracies, losses = [], []
        for members in map(list, itertools.combinations(range(5), size)):
            pool = MEMBERS[members].astype(np.float64).mean(axis=0)
            heat = calibration.temperature(
                held.probabilities[members].astype(np.float64).mean(axis=0), held.labels
            )
            tempered = calibration.with_temperature(pool, heat)
            accuracies.append((pool.argmax(axis=1) == LABELS).mean())
            losses.append(-np.log(tempered[np.arange(600), LABELS]).mean())
        for mean, sd, values in (
            (curve.accuracy, curve.accuracy_sd, accuracies),
            (curve.nll, curve.nll_sd, losses),
        ):
            assert mean[size - 1] == pytest.approx(np.mean(values))
            assert sd[size - 1] == pytest.approx(np.std(values, ddof=1) if size < 5 else 0)
    assert curve.accuracy[4] > curve.accuracy[0] and curve.nll[4] < curve.nll[0]


def test_many_subsets_are_drawn_without_repeats():
    generator = np.random.default_rng(0)
    drawn = list(map(tuple, ensembles._subsets(8, 4, 69, generator)))
    assert len(set(drawn)) == len(drawn) == 69 and all(len(set(each)) == 4 for each in drawn)
    curve = ensembles.accuracy_by_size(MEMBERS, LABELS, most_subsets=7)
    assert curve.subsets.tolist() == [5, 7, 7, 5, 1]
    again = ensembles.accuracy_by_size(MEMBERS, LABELS, most_subsets=7)
    assert all(map(np.array_equal, curve, again))


def test_without_validation_each_half_of_the_test_rows_fits_the_other():
    members, labels = MEMBERS[:, :25], LABELS[:25]
    curve = ensembles.accuracy_by_size(members, labels, generator=np.random.default_rng(2))
    order = np.random.default_rng(2).permutation(25)
    pool, total = members.astype(np.float64).mean(axis=0), 0.0
    for fitted, judged in ((order[:13], order[13:]), (order[13:], order[:13])):
        heat = calibration.temperature(pool[fitted], labels[fitted])
        tempered = calibration.with_temperature(pool[judged], heat)
        total -= np.log(tempered[np.arange(len(judged)), labels[judged]]).sum()
    assert curve.nll[4] == pytest.approx(total / 25)


def test_the_curve_takes_any_fusion():
    def majority(probabilities: np.ndarray) -> np.ndarray:
        return sum(hard_votes(member) for member in probabilities)

    curve = ensembles.accuracy_by_size(MEMBERS, LABELS, majority)
    votes = majority(MEMBERS)
    assert curve.accuracy[4] == (votes.argmax(axis=1) == LABELS).mean()
    assert np.isfinite(curve.nll).all()


def test_pairs_of_members_are_counted():
    labels = MEMBERS.argmax(axis=2)
    differ, fault = ensembles.disagreement(MEMBERS), ensembles.double_fault(MEMBERS, LABELS)
    for i, j in itertools.product(range(5), repeat=2):
        both = [
            first != own and second != own for first, second, own in zip(*labels[[i, j]], LABELS)
        ]
        assert differ[i, j] == pytest.approx(np.mean(labels[i] != labels[j]))
        assert fault[i, j] == pytest.approx(np.mean(both))
    assert (np.diag(differ) == 0).all() and (differ[np.triu_indices(5, 1)] > 0).all()


def test_the_oracle_needs_one_member_that_is_right():
    right = [
        any(row == label for row in rows) for rows, label in zip(MEMBERS.argmax(axis=2).T, LABELS)
    ]
    assert ensembles.oracle_accuracy(MEMBERS, LABELS) == np.mean(right)
    assert ensembles.oracle_accuracy(MEMBERS[:1], LABELS) == np.mean(
        MEMBERS[0].argmax(axis=1) == LABELS
    )


def test_what_members_lose_the_ensemble_gains():
    found = ensembles.ambiguity(MEMBERS, LABELS)
    double = MEMBERS.astype(np.float64)
    pool, one_hot = double.mean(axis=0), np.eye(4)[LABELS]
    assert found.member_brier == pytest.approx(((double - one_hot) ** 2).sum(axis=2).mean())
    assert found.ensemble_brier == pytest.approx(((pool - one_hot) ** 2).sum(axis=1).mean())
    assert found.brier_gain == pytest.approx(double.var(axis=0).sum(axis=1).mean())
    assert found.member_brier - found.brier_gain == pytest.approx(found.ensemble_brier, rel=1e-6)
    assert found.member_nll - found.nll_gain == pytest.approx(found.ensemble_nll)
    own = double[:, np.arange(600), LABELS]
    assert found.nll_gain == pytest.approx(np.mean(np.log(own.mean(0)) - np.log(own).mean(0)))
    assert found.nll_gain > 0 and found.brier_gain > 0
    alone = ensembles.ambiguity(MEMBERS[:1], LABELS)
    assert alone.nll_gain == alone.brier_gain == 0


def test_equivalent_members_are_read_off_the_curve():
    curve = np.array([0.90, 0.92, 0.93, 0.935])
    assert ensembles.equivalent_members(curve, 0.92) == 2
    assert ensembles.equivalent_members(curve, 0.925) == pytest.approx(2.5)
    assert ensembles.equivalent_members(curve, 0.5) == 1
    assert ensembles.equivalent_members(curve, 0.94) == np.inf
    assert ensembles.equivalent_members(np.array([0.9, 0.89, 0.91]), 0.9) == 1
    assert ensembles.equivalent_members(np.array([0.9, 0.89, 0.91]), 0.905) == pytest.approx(2.75)


@pytest.mark.parametrize("law", [(0.2, 0.3, -0.7), (0.9, -0.1, -1.5), (1.0, 0.5, -0.1)])
def test_a_power_law_is_found_again_and_predicts(law):
    law, sizes = ensembles.PowerLaw(*law), np.array([1, 2, 3, 4])
    found = ensembles.power_law(sizes, np.array([law.at(size) for size in sizes]))
    assert found == pytest.approx(law, rel=1e-3)
    assert found.at(16) == pytest.approx(law.at(16), rel=1e-5)


def test_a_power_law_is_the_best_by_least_squares():
    from scipy import optimize

    sizes = np.arange(1, 9)
    noise = np.random.default_rng(1).normal(0, 0.003, 8)
    values = 0.2 + 0.3 * sizes**-0.8 + noise
    found = ensembles.power_law(sizes, values)
    peer, _ = optimize.curve_fit(lambda k, c, b, a: c + b * k**a, sizes, values, (0.1, 0.1, -1))
    assert found == pytest.approx(peer, rel=1e-4)
    rising = ensembles.power_law(np.array([1, 2, 3]), np.array([1.0, 2.0, 3.0]))
    assert rising.exponent == pytest.approx(ensembles.FLATTEST)  # no power law: the nearest
