"""Links fitted to times that known links would take."""

import numpy as np
import pytest

from ensync.core.scaling.collectives import Terms, rabenseifner, recursive_doubling
from ensync.core.scaling.links import Link, MeasuredSum, Network, Timed, fit_link

ETHERNET = Link(latency=30e-6, byte=1 / 1.1e9, add=1e-10)


def timed(link, noise=0.0, seed=1):
    """Messages and sums over 4 ranks as the link takes them, to a relative error."""
    random = np.random.default_rng(seed)
    terms = [Terms(1, 8**k, 0) for k in range(1, 9)]
    terms += [recursive_doubling(4, 8**k) for k in range(1, 4)]
    terms += [rabenseifner(4, 8**k) for k in range(4, 9)]
    return [Timed(each, link.seconds(each) * (1 + noise * random.normal())) for each in terms]


@pytest.mark.parametrize(
    "link", [ETHERNET, Link(2e-6, 1 / 11e9, 0.0), Link(2e-3, 8e-8, 3e-10), Link(1e-5, 0.0, 0.0)]
)
def test_a_known_link_is_found(link):
    found = fit_link(timed(link))
    for name, value in vars(link).items():
        assert getattr(found, name) == pytest.approx(value, rel=1e-6, abs=1e-18), name


def test_noise_moves_it_little_and_nothing_becomes_negative():
    for seed in range(20):
        found = fit_link(timed(ETHERNET, noise=0.05, seed=seed))
        assert found.latency == pytest.approx(ETHERNET.latency, rel=0.1)
        assert found.byte == pytest.approx(ETHERNET.byte, rel=0.15)
        assert found.add >= 0


def test_a_fit_is_the_best_without_negative_numbers():
    """Times that fall with the length would fit best with a negative rate."""
    found = fit_link([Timed(Terms(1, 10, 0), 2.0), Timed(Terms(1, 1000, 0), 1.9)])
    assert found.byte == 0 and 1.9 < found.latency < 2.0


def test_sums_are_corrected_by_what_was_measured():
    """Twice the model's time at 1 kB and half of it at 1 MB: as measured there and outside, and
    the geometric mean in the middle.
    """
    model = Network(ETHERNET, "MPICH 5.0.2")
    sums = tuple(
        MeasuredSum(4, nbytes, factor * ETHERNET.seconds(model.terms(4, nbytes)))
        for nbytes, factor in ((1000, 2.0), (1_000_000, 0.5))
    )
    found = Network(ETHERNET, "MPICH 5.0.2", sums)
    for nbytes, factor in ((8, 2.0), (1000, 2.0), (31_623, 1.0), (1_000_000, 0.5), (1e9, 0.5)):
        assert found.correction(nbytes) == pytest.approx(factor, rel=1e-4)
    assert sum(found.split(4, 1000)) == pytest.approx(sums[0].seconds)
    messages, sent = found.split(16, 1_000_000)
    assert messages == pytest.approx(0.5 * 8 * 30e-6)
    assert messages + sent == pytest.approx(0.5 * ETHERNET.seconds(rabenseifner(16, 1_000_000)))


def test_a_wild_measurement_is_not_believed():
    wild = Network(ETHERNET, "MPICH", (MeasuredSum(2, 1000, 1.0),))
    assert wild.correction(1000) == 4.0
    assert Network(ETHERNET, "MPICH").correction(1000) == 1.0
