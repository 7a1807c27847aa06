"""Two contestants on the same images, paired by seed: differences with two intervals, the
probability that one is better, tests, verdicts, and how many seeds they need.

`first` and `second` are bool (seeds, images): whether a contestant's run with a seed has an image
right. A difference is first minus second, of accuracies between 0 and 1.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from enum import StrEnum
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from ensync.core.statistics.intervals import Interval, mean_interval
from ensync.core.statistics.variances import MeanVariance, mean_squares

Values = Sequence[float] | np.ndarray
LIKELY_BETTER = 0.75  # P(A > B) from which on a difference matters (Bouthillier et al. 2021)
LEAST_SEEDS = 3  # fewer show no spread that could be relied on
MOST_SEEDS = 10_000


class Difference(NamedTuple):
    """The difference of two contestants' accuracies, and how sure it is.

    on_these: the interval on these test images, whatever the seed; on_new: on new images, too, and
    never narrower. sigma_image, sigma_seed, sigma_interaction: standard deviations of an image's, a
    seed's, and both's part in one right or wrong answer's difference. p_these, p_new: p-values of
    no difference that belong to the intervals.

    Of one seed `on_these` holds all numbers, `on_new` knows of images only (`images_only`),
    sigma_image includes the interaction, and the other two are nan.
    """

    value: float
    on_these: Interval
    on_new: Interval
    sigma_image: float
    sigma_seed: float
    sigma_interaction: float
    p_these: float
    p_new: float
    seeds: int
    images: int

    @property
    def images_only(self) -> bool:
        """Whether there was one seed, so that nothing is known of other seeds."""
        return self.seeds == 1


def difference(first: np.ndarray, second: np.ndarray, confidence: float = 0.95) -> Difference:
    """Return the difference of two contestants' accuracies with the interval on these images and
    the one on new images.

    The difference d (-1, 0 or 1) of one image with one seed is taken as mean + image + seed +
    interaction: two-way random effects without replication (Scheffe 1959, The Analysis of
    Variance). With n seeds and m images the mean has the variance image^2 / m + seed^2 / n +
    interaction^2 / (n m). The paired t interval over n seeds, n - 1 degrees of freedom, is the one
    on these images: it is blind to the first term, since every seed meets the same images.

    The one on new images adds an estimate of that term, (MS_image - MS_interaction) / (n m), not
    below 0, with m - 1 degrees of freedom. Student's quantile is taken at Satterthwaite's degrees
    of freedom of the sum (Satterthwaite 1946, Biometrics Bulletin 2). They alone cover too little
    with few seeds (92.2 % with 3), where a small spread of seeds by luck also makes them many; so
    the interval is never narrower than the one on these images. Integrated over the shares of
    normal parts, 95 % intervals then cover 94.9 to 95.5 % with 3 seeds, 94.3 to 95.0 % with 5, 94.8
    to 95.0 % with 10.

    One seed: images alone, with McNemar's standard deviation, sqrt(b + c - (b - c)^2 / m) / m of b
    and c images that only one contestant has right.
    """
    parts = first.astype(np.int8) - second.astype(np.int8)
    seeds, images = parts.shape
    of_seeds = parts.sum(axis=1, dtype=np.int64) / images
    on_these = mean_interval(of_seeds, confidence)
    if min(parts.shape) == 1:
        return _without_interaction(parts, on_these, confidence)
    image, seed, both = mean_squares(parts)
    of_image, of_seed, of_both = (
        max(square, 0.0) ** 0.5 for square in ((image - both) / seeds, (seed - both) / images, both)
    )
    variance = MeanVariance(seed / parts.size, of_image**2 / images, seeds, images)
    value, half = on_these.value, variance.half(1 - confidence)
    on_new = Interval(value, value - half, value + half)
    p_these, p_new = paired_t_p(of_seeds), variance.p_value(value)
    return Difference(
        value, on_these, on_new, of_image, of_seed, of_both, p_these, p_new, seeds, images
    )


def _without_interaction(parts: np.ndarray, on_these: Interval, confidence: float) -> Difference:
    """Return the difference of one seed, or on one image, where seeds and images can't be told
    apart; see `difference`.
    """
    seeds, images = parts.shape
    value, sigma, half, p_new = on_these.value, np.nan, np.inf, 1.0
    if seeds == 1 and images > 1:
        sigma = float(np.std(parts))
        error, normal = sigma / np.sqrt(images), NormalDist()
        half = normal.inv_cdf((1 + confidence) / 2) * error
        p_new = 2 * normal.cdf(-abs(value) / error) if error else float(value == 0)
    on_new = Interval(value, value - half, value + half)
    p_these = paired_t_p(parts.mean(axis=1))
    return Difference(value, on_these, on_new, sigma, np.nan, np.nan, p_these, p_new, seeds, images)


def two_level_bootstrap(
    first: np.ndarray,
    second: np.ndarray,
    draws: int = 10_000,
    generator: np.random.Generator | None = None,
    confidence: float = 0.95,
) -> Interval:
    """Return the difference with its percentile interval when seeds, and then images, are drawn
    again with replacement (Owen 2007, The pigeonhole bootstrap, Annals of Applied Statistics 1(2)).

    A check of `difference`, which does better with few seeds. In simulations 95 % intervals cover
    as little as 83 % with 3 seeds, 88 % with 5, 91 % with 10 where seeds matter, and more than
    99 % where the interaction does, which drawing twice counts up to three times.
    """
    generator = np.random.default_rng(0) if generator is None else generator
    parts = first.astype(np.int8) - second.astype(np.int8)
    seeds, images = parts.shape
    columns, counts = np.unique(parts, axis=1, return_counts=True)  # images that went alike
    of_images = generator.multinomial(images, counts / images, size=draws) @ columns.T
    of_seeds = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=draws)
    means = (of_images * of_seeds).sum(axis=1) / parts.size
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(parts.mean()), float(low), float(high))


def probability_of_better(
    first: Values,
    second: Values,
    confidence: float = 0.95,
) -> Interval:
    """Return P(A > B), the share of seeds with which the first has the higher accuracy, equal ones
    counted half, from accuracies (seeds,) of paired seeds; with its percentile bootstrap interval
    (Bouthillier et al. 2021, Accounting for variance in machine learning benchmarks).

    The bootstrap is exact: the sum of draws of wins, ties and losses has a known distribution, so
    that nothing is drawn. Where all seeds agree the interval is one point, however few they are.
    """
    ahead = np.sign(np.asarray(first) - np.asarray(second)).astype(np.int64)
    share = np.bincount(ahead + 1, minlength=3) / len(ahead)  # of losses, ties, wins
    chance = np.ones(1)
    for _ in ahead:
        chance = np.convolve(chance, share)
    reached = np.cumsum(chance)  # of at most k halves of a win
    ends = [(1 - confidence) / 2, (1 + confidence) / 2]
    low, high = np.searchsorted(reached, np.array(ends) - 1e-12) / (2 * len(ahead))
    return Interval(float(share[2] + share[1] / 2), float(low), float(high))


def corrected_interval(
    differences: Values, test_share: float, confidence: float = 0.95
) -> Interval:
    """Return the mean difference with the interval of Nadeau and Bengio (2003, Inference for the
    generalization error, Machine Learning 52): for seeds that each draw the split into training
    and test rows anew, so that their training rows overlap.

    test_share: the share of all rows that a split keeps for the test. The variance of the mean of n
    differences is (1 / n + test rows / training rows) s^2, n - 1 degrees of freedom.
    """
    mean, _, high = mean_interval(differences, confidence)
    ratio = test_share / (1 - test_share)
    half = (high - mean) * np.sqrt(1 + len(differences) * ratio)
    return Interval(mean, float(mean - half), float(mean + half))


def paired_t_p(differences: Values) -> float:
    """Return the two-sided p-value of Student's paired t test over seeds; 1 of one seed, which
    shows nothing.
    """
    from scipy.special import stdtr

    count, mean = len(differences), float(np.mean(differences))
    if count < 2 or mean == 0:
        return 1.0
    error = float(np.std(differences, ddof=1) / np.sqrt(count))
    return 2 * float(stdtr(count - 1, -abs(mean) / error)) if error else 0.0


def holm(p_values: Values) -> np.ndarray:
    """Return the p-values adjusted for how many there are, float64 in the same order: one below 5 %
    is so with at most 5 % chance that any such is by luck (Holm 1979, Scandinavian Journal of
    Statistics 6).
    """
    given = np.asarray(p_values, np.float64)
    order = np.argsort(given, kind="stable")
    adjusted = np.empty_like(given)
    factors = np.arange(len(given), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(given[order] * factors), 1)
    return adjusted


class PairedTest(NamedTuple):
    """On how many of the same images only the first, or only the second classifier is right, and
    the chance of that by luck.
    """

    only_first: int
    only_second: int
    p_value: float


def paired_counts(labels: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return (only first right, only second right) int64 (2,) of two predictions of the same
    rows; ranks may add them.
    """
    first, second = first == labels, second == labels
    return np.array(
        [np.count_nonzero(first & ~second), np.count_nonzero(second & ~first)], np.int64
    )


def mcnemar(only_first: int, only_second: int) -> PairedTest:
    """Return McNemar's exact two-sided test (McNemar 1947): are two classifiers equally good on
    the same images?
    """
    from scipy.special import bdtr

    both = only_first + only_second
    p_value = min(1.0, 2 * float(bdtr(min(only_first, only_second), both, 0.5)))  # of no images: 1
    return PairedTest(int(only_first), int(only_second), p_value)


class Verdict(StrEnum):
    """What is known of the first of two contestants."""

    BETTER = "better"
    WORSE = "worse"
    EQUAL = "equal"  # practically: any difference left is too small to matter
    UNKNOWN = "unknown"


def judge(difference: Difference, probability: Interval, practically_equal: float) -> Verdict:
    """Return what a difference, and `probability_of_better` of the same seeds, say of the first
    contestant; practically_equal: the largest difference of accuracies that does not matter (0.003
    for 0.3 points).

    equal: the interval on new images lies within practically_equal around 0, so that whatever
    difference there is, it does not matter. better: that interval lies above 0, and P(A > B) is
    above 0.75 with an interval above 0.5. worse: the same of the second. Else unknown.

    The interval bounds the rate of a false better to half of 1 - confidence, 2.5 %, and of a false
    better or worse to 5 %; the rule on P(A > B) only lowers it. That
    rule alone would not do with few seeds: all 3 seeds of two equal contestants agree by luck in 1
    of 4 cases. Without ties it asks for all of up to 6 seeds, 6 of 7, 9 of 10, 16 of 20.

    Fewer than 3 seeds are always unknown. One shows two trained networks, not two ways to train.
    Two agree to the image by luck (in 6 % of simulations with 360 images), with an interval of no
    width.
    """
    low, high = difference.on_new.low, difference.on_new.high
    if difference.seeds < LEAST_SEEDS:
        return Verdict.UNKNOWN
    if -practically_equal <= low and high <= practically_equal:
        return Verdict.EQUAL
    if low > 0 and probability.value > LIKELY_BETTER and probability.low > 0.5:
        return Verdict.BETTER
    if high < 0 and probability.value < 1 - LIKELY_BETTER and probability.high < 0.5:
        return Verdict.WORSE
    return Verdict.UNKNOWN


def seeds_needed(sd: float, effect: float, power: float = 0.8, alpha: float = 0.05) -> int | None:
    """Return how many paired seeds, at least 2, show a true difference `effect` on the same test
    images with chance `power`, when the differences of single seeds have the standard deviation sd;
    None: more than MOST_SEEDS.

    The power of the two-sided paired t test is exact, by the noncentral t distribution with
    noncentrality sqrt(n) effect / sd (Cohen 1988, Statistical Power Analysis).
    """
    return _fewest(lambda seeds: MeanVariance(sd**2 / seeds, 0.0, seeds, 2), effect, power, alpha)


def seeds_to_tell(
    found: Difference, effect: float, power: float = 0.8, alpha: float = 0.05
) -> int | None:
    """Return how many seeds in all, at least the 3 of `judge`, let the interval on new images
    exclude 0 with chance `power` when the true difference is `effect`, by the variances that
    `difference` found; None: more than MOST_SEEDS, or no number of them, because the test images
    are too few. None of one seed, too.

    The noncentral t distribution with Satterthwaite's degrees of freedom, as of `difference`.
    """
    if not np.isfinite(found.sigma_seed):
        return None
    of_images = found.sigma_image**2 / found.images
    of_one = found.sigma_seed**2 + found.sigma_interaction**2 / found.images
    fewest = _fewest(
        lambda seeds: MeanVariance(of_one / seeds, of_images, seeds, found.images),
        effect,
        power,
        alpha,
    )
    return None if fewest is None else max(fewest, LEAST_SEEDS)


def _fewest(
    variance: Callable[[int], MeanVariance], effect: float, power: float, alpha: float
) -> int | None:
    """Return the fewest seeds, 2 to MOST_SEEDS, that reach the power, which grows with them."""
    tried = range(2, MOST_SEEDS + 1)
    place = bisect_left(tried, power, key=lambda seeds: _power(variance(seeds), effect, alpha))
    return tried[place] if place < len(tried) else None


def _power(variance: MeanVariance, effect: float, alpha: float) -> float:
    """Return the chance that the interval of confidence 1 - alpha excludes 0, on either side."""
    from scipy.special import nctdtr

    if variance.total == 0 or effect == 0:
        return float(effect != 0)
    error = np.sqrt(variance.total)
    end, shift, degrees = variance.half(alpha) / error, abs(effect) / error, variance.degrees
    return float(1 - nctdtr(degrees, shift, end) + nctdtr(degrees, shift, -end))
