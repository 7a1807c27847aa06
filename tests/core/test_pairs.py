"""Paired differences beside scipy.stats, statsmodels, sums written out, and simulated contestants
whose true difference is known.
"""

import itertools

import numpy as np
import pytest
import simulated
from scipy import stats

from ensync.core.statistics import pairs, variances

SHARED, OWN, SEEDS = (
    simulated.Spread(0.0, 0.0, 0.5),  # images are as hard for either, seeds do not matter
    simulated.Spread(0.6, 0.1, 0.3),  # images matter most
    simulated.Spread(0.3, 0.3, 0.5),  # seeds matter most
)


@pytest.fixture(autouse=True)
def generator():
    """The same numbers for each test, whichever ran before."""
    global GENERATOR
    GENERATOR = np.random.default_rng(5)


def answers(seeds: int, images: int, difference: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    """Return right and wrong answers (seeds, images) of two contestants."""
    hard = GENERATOR.normal(size=images)
    first, second = GENERATOR.normal(size=(2, seeds, images))
    return first + hard > -1 - difference, second + hard > -1


def test_the_interval_on_these_images_is_the_paired_t_interval():
    first, second = answers(6, 400)
    found = pairs.difference(first, second, 0.9)
    peer = stats.ttest_rel(first.mean(axis=1), second.mean(axis=1))
    assert found.on_these[1:] == pytest.approx(tuple(peer.confidence_interval(0.9)))
    assert found.p_these == pytest.approx(peer.pvalue)
    assert found.value == pytest.approx(first.mean() - second.mean())
    assert found.on_these.value == found.on_new.value == found.value


def test_the_mean_squares_are_those_of_the_two_way_analysis_of_variance():
    parts = np.subtract(*answers(4, 30), dtype=np.int8)
    image, seed, both = variances.mean_squares(parts)
    grand, of_image, of_seed = parts.mean(), parts.mean(axis=0), parts.mean(axis=1)
    rest = parts - of_image - of_seed[:, None] + grand
    assert image == pytest.approx(4 * ((of_image - grand) ** 2).sum() / 29)
    assert seed == pytest.approx(30 * ((of_seed - grand) ** 2).sum() / 3)
    assert both == pytest.approx((rest**2).sum() / (29 * 3))


def test_the_mean_squares_are_those_of_statsmodels():
    formula = pytest.importorskip("statsmodels.formula.api")
    import pandas
    from statsmodels.stats.anova import anova_lm

    parts = np.subtract(*answers(3, 12), dtype=np.int8)
    seed, image = np.indices(parts.shape)
    table = {"part": parts.ravel(), "seed": seed.ravel(), "image": image.ravel()}
    model = formula.ols("part ~ C(image) + C(seed)", pandas.DataFrame(table)).fit()
    assert variances.mean_squares(parts) == pytest.approx(anova_lm(model)["mean_sq"].to_numpy())


def test_the_three_deviations_are_found_again():
    seeds, images = 60, 4000
    image, seed = GENERATOR.normal(0, 0.15, images), GENERATOR.normal(0, 0.05, (seeds, 1))
    chance = np.clip(0.5 + image + seed, 0, 1)
    first, second = GENERATOR.random((seeds, images)) < chance, np.zeros((seeds, images), bool)
    found = pairs.difference(first, second)
    assert found.sigma_image == pytest.approx(0.15, rel=0.05)
    assert found.sigma_seed == pytest.approx(seed.std(), rel=0.05)
    assert found.sigma_interaction == pytest.approx(
        np.sqrt((chance * (1 - chance)).mean()), rel=0.05
    )


def test_the_interval_on_new_images_adds_theirs_to_the_spread_of_seeds():
    """Satterthwaite's, where it is wider than the one on these images."""
    wider = []
    for _ in range(20):
        first, second = answers(5, 300)
        found = pairs.difference(first, second)
        of_seeds = stats.sem(first.mean(axis=1) - second.mean(axis=1)) ** 2
        of_images = found.sigma_image**2 / 300
        total = of_seeds + of_images
        degrees = total**2 / (of_seeds**2 / 4 + of_images**2 / 299)
        half = stats.t.ppf(0.975, degrees) * np.sqrt(total)
        wider.append(half > found.on_these.high - found.value)
        half = max(half, found.on_these.high - found.value)
        assert found.on_new.high - found.value == pytest.approx(half)
        assert found.on_new.low == pytest.approx(found.value - half)
    assert set(wider) == {True, False}


@pytest.mark.parametrize("seeds", [2, 3, 8])
def test_the_interval_on_new_images_is_never_narrower(seeds):
    for _ in range(50):
        found = pairs.difference(*answers(seeds, 40))
        assert found.on_new.low <= found.on_these.low + 1e-12
        assert found.on_new.high >= found.on_these.high - 1e-12


@pytest.mark.parametrize("seeds", [1, 2, 5])
def test_the_p_value_is_where_the_interval_on_new_images_ends_at_0(seeds):
    first, second = answers(seeds, 300, 0.2)
    found = pairs.difference(first, second)
    again = pairs.difference(first, second, 1 - found.p_new)
    nearest = min(abs(again.on_new.low), abs(again.on_new.high))
    assert 0 < found.p_new < 1 and nearest == pytest.approx(0, abs=1e-9)


def test_one_seed_knows_of_images_only():
    first, second = answers(1, 200)
    found = pairs.difference(first, second)
    only_first, only_second = (first & ~second).sum(), (second & ~first).sum()
    square = only_first + only_second - (only_first - only_second) ** 2 / 200
    assert found.images_only and found.on_these[1:] == (-np.inf, np.inf) and found.p_these == 1
    half = stats.norm.ppf(0.975) * np.sqrt(square) / 200  # McNemar's standard deviation
    assert found.on_new.high - found.value == pytest.approx(half)
    assert np.isnan([found.sigma_seed, found.sigma_interaction]).all()
    assert not pairs.difference(*answers(2, 200)).images_only


def test_contestants_that_do_the_same_have_no_difference():
    same = answers(3, 50)[0]
    found = pairs.difference(same, same)
    assert found.on_new == found.on_these == (0, 0, 0) and found.p_new == found.p_these == 1
    assert pairs.judge(found, pairs.probability_of_better([1, 1], [1, 1]), 0.003) == "equal"


def test_one_image_says_nothing_of_new_ones():
    found = pairs.difference(np.ones((3, 1), bool), np.zeros((3, 1), bool))
    assert found.on_new == (1, -np.inf, np.inf) and found.p_new == 1


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("spread", [SHARED, OWN, SEEDS])
def test_intervals_cover_the_true_difference(seeds, spread):
    """95 % intervals cover 93 to 97 %, and of equal contestants the first is rarely better."""
    abilities = (2.2, 2.0)
    true = np.subtract(*(simulated.accuracy(ability, spread) for ability in abilities))
    drawn = simulated.answers(abilities, spread, (1000, seeds, 250), seeds)
    found = [pairs.difference(*both).on_new for both in zip(*drawn)]
    covered = np.mean([low <= true <= high for _, low, high in found])
    assert 0.93 <= covered <= 0.97
    assert np.mean([value for value, _, _ in found]) == pytest.approx(true, abs=3e-3)


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_the_coverage_is_right_for_any_share_of_the_variances(seeds):
    """Exact but for the quadrature: parts of a normal difference, the images' of known size."""
    found = stats.chi2.ppf((np.arange(300) + 0.5) / 300, seeds - 1) / (seeds - 1)
    for of_seeds, of_images in [(1, 0), (10, 1), (3, 1), (1, 1), (1, 3), (1, 10), (0, 1)]:
        halves = [
            variances.MeanVariance(of_seeds * each, of_images, seeds, 1_000_000).half(0.05)
            for each in found
        ]
        covered = stats.norm.cdf(halves / np.sqrt(of_seeds + of_images)) * 2 - 1
        assert 0.94 <= covered.mean() <= 0.96, (of_seeds, of_images)


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_of_equal_contestants_hardly_any_is_better(seeds):
    drawn = simulated.answers((2.0, 2.0), SEEDS, (1000, seeds, 250), seeds)
    verdicts = [
        pairs.judge(
            pairs.difference(*both), pairs.probability_of_better(*np.mean(both, axis=2)), 0.003
        )
        for both in zip(*drawn)
    ]
    assert verdicts.count("better") < 50 and verdicts.count("worse") < 50
    assert verdicts.count("better") + verdicts.count("worse") < 60
    assert verdicts.count("unknown") > 500


def test_the_interval_on_these_images_is_blind_to_images():
    """Why there are two: where images matter, new ones are not covered by more seeds."""
    drawn = simulated.answers((2.0, 2.0), OWN, (300, 10, 250), 1)
    found = [pairs.difference(*both) for both in zip(*drawn)]
    assert np.mean([each.on_these.low <= 0 <= each.on_these.high for each in found]) < 0.85


def test_the_two_level_bootstrap_draws_seeds_and_images():
    first, second = answers(4, 150)
    found = pairs.two_level_bootstrap(first, second, 4000, np.random.default_rng(1))
    generator, means = np.random.default_rng(2), []
    parts = first.astype(int) - second
    for _ in range(4000):
        rows, columns = generator.integers(4, size=4), generator.integers(150, size=150)
        means.append(parts[rows][:, columns].mean())
    assert found[1:] == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=6e-3)
    assert found.value == pytest.approx(parts.mean())
    assert pairs.two_level_bootstrap(first, second) == pairs.two_level_bootstrap(first, second)


def test_the_probability_of_better_is_the_bootstrap_of_all_draws():
    for seeds in (1, 3, 5):
        for ahead in itertools.combinations_with_replacement((0, 0.5, 1), seeds):
            draws = [np.mean(drawn) for drawn in itertools.product(ahead, repeat=seeds)]
            expected = np.quantile(draws, [0.025, 0.975], method="inverted_cdf")
            found = pairs.probability_of_better(ahead, [0.5] * seeds)
            assert found == pytest.approx((np.mean(ahead), *expected))  # a tie counts half
            low, high = pairs.probability_of_better([0.5] * seeds, ahead)[1:]
            assert (low, high) == pytest.approx((1 - found.high, 1 - found.low))
    assert pairs.probability_of_better([2, 3], [1, 1]) == (1, 1, 1)


def test_splits_drawn_anew_widen_the_interval():
    differences = GENERATOR.normal(size=10)
    mean, low, high = pairs.corrected_interval(differences, 0.1)
    error = np.sqrt((1 / 10 + 1 / 9) * differences.var(ddof=1))  # 1 row tests for 9 that train
    peer = stats.t.interval(0.95, 9, differences.mean(), error)
    assert (low, high) == pytest.approx(peer) and mean == pytest.approx(differences.mean())


def test_holm_looks_at_the_smallest_first():
    assert pairs.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert pairs.holm([0.6, 0.7]).tolist() == [1, 1] and pairs.holm([]).size == 0


def test_tests_agree_with_statsmodels():
    several = pytest.importorskip("statsmodels.stats.multitest")
    from statsmodels.stats import contingency_tables
    from statsmodels.stats.power import TTestPower

    p_values = GENERATOR.random(12) ** 3
    assert pairs.holm(p_values) == pytest.approx(several.multipletests(p_values, method="holm")[1])
    peer = contingency_tables.mcnemar([[5, 7], [19, 2]], exact=True)
    assert pairs.mcnemar(7, 19).p_value == pytest.approx(peer.pvalue)
    for effect in (0.3, 0.8, 2.0):
        exact = TTestPower().solve_power(effect, power=0.8, alpha=0.05)
        assert pairs.seeds_needed(1, effect) == np.ceil(exact)


def test_the_paired_test_is_that_of_scipy():
    differences = [0.3, 0.1, -0.2, 0.4]
    assert pairs.paired_t_p(differences) == pytest.approx(stats.ttest_1samp(differences, 0).pvalue)
    assert pairs.paired_t_p([0.3]) == 1 and pairs.paired_t_p([0.5, 0.5]) == 0


def test_the_seeds_needed_are_the_fewest_that_reach_the_power():
    def reached(seeds: int, effect: float) -> float:
        end, shift = stats.t.ppf(0.975, seeds - 1), effect * np.sqrt(seeds)
        return stats.nct.sf(end, seeds - 1, shift) + stats.nct.cdf(-end, seeds - 1, shift)

    for effect in (0.2, 0.5, 1, 3):
        seeds = pairs.seeds_needed(1, effect)
        assert reached(seeds, effect) >= 0.8 > reached(seeds - 1, effect)
        assert pairs.seeds_needed(0.25, 0.25 * effect) == seeds
        assert pairs.seeds_needed(1, effect, power=0.99) > seeds
    seeds = pairs.seeds_needed(1, 0.05, power=0.06)  # of which the wrong side has a part
    assert reached(seeds, 0.05) >= 0.06 > reached(seeds - 1, 0.05)
    assert pairs.seeds_needed(1, 100) == pairs.seeds_needed(0, 0.1) == 2
    assert pairs.seeds_needed(1, 1e-4) is None and pairs.seeds_needed(1, 0) is None


def test_the_seeds_to_tell_on_new_images_reach_the_power():
    spread = simulated.Spread(0.1, 0.1, 0.3)
    abilities, images = (2.28, 2.0), 500
    effect = np.subtract(*(simulated.accuracy(ability, spread) for ability in abilities))
    known = [
        pairs.difference(*both)
        for both in zip(*simulated.answers(abilities, spread, (15, 60, 2000), 3))
    ]
    squares = np.square([each[3:6] for each in known]).mean(axis=0)
    found = known[0]._replace(
        images=images, **dict(zip(known[0]._fields[3:6], np.sqrt(squares), strict=True))
    )
    seeds = pairs.seeds_to_tell(found, effect)

    def reached(seeds: int) -> float:
        drawn = simulated.answers(abilities, spread, (600, seeds, images), 4)
        return np.mean([pairs.difference(*both).on_new.low > 0 for both in zip(*drawn)])

    assert reached(seeds) > 0.77 and reached(seeds - 2) < 0.77 and seeds > 4


def test_few_images_are_not_made_up_for_by_seeds():
    found = pairs.difference(*answers(5, 100))._replace(sigma_image=0.3)
    assert pairs.seeds_to_tell(found, 0.05) is None  # 0.3 / sqrt(100) hides it
    assert pairs.seeds_to_tell(found._replace(images=100_000), 0.05) is not None
    assert pairs.seeds_to_tell(found, 10) == pairs.LEAST_SEEDS
    assert pairs.seeds_to_tell(pairs.difference(*answers(1, 100)), 0.05) is None


@pytest.mark.parametrize(
    "ends, seeds, probability, verdict",
    [
        ((0.001, 0.009), 5, (1, 1, 1), "better"),
        ((-0.009, -0.001), 5, (0, 0, 0), "worse"),
        ((0.001, 0.009), 5, (0.7, 0.6, 1), "unknown"),  # not often enough
        ((0.001, 0.009), 5, (0.8, 0.5, 1), "unknown"),
        ((-0.009, -0.001), 5, (0.3, 0, 0.4), "unknown"),
        ((-0.009, -0.001), 5, (0.2, 0, 0.5), "unknown"),
        ((-0.001, 0.009), 5, (1, 1, 1), "unknown"),
        ((0.001, 0.003), 5, (1, 1, 1), "equal"),
        ((-0.003, 0.003), 5, (0.5, 0, 1), "equal"),
        ((-0.004, 0.002), 5, (0.5, 0, 1), "unknown"),
        ((0.001, 0.009), 2, (1, 1, 1), "unknown"),  # seeds enough to know their spread?
        ((0.001, 0.002), 1, (1, 1, 1), "unknown"),
    ],
)
def test_a_verdict_needs_the_interval_and_the_probability(ends, seeds, probability, verdict):
    found = pairs.difference(*answers(2, 20))._replace(
        on_new=pairs.Interval(sum(ends) / 2, *ends), seeds=seeds
    )
    assert pairs.judge(found, pairs.Interval(*probability), 0.003) == verdict
