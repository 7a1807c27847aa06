"""The shapes of the learning rate beside PyTorch's schedulers, and exact in parts of epochs."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from ensync.core.config.schedules import Schedule
from ensync.nn.schedules import learning_rate_factor


def found(steps, epochs, **given):
    schedule = Schedule(**given)
    return [learning_rate_factor(schedule, step, steps, epochs) for step in range(steps * epochs)]


def theirs(count, build):
    """Return the rates of a scheduler in so many steps, from a rate of 1."""
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler, rates = build(torch.optim.lr_scheduler, optimizer), []
    for _ in range(count):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_polynomial_is_pytorchs(power):
    expected = theirs(60, lambda shapes, o: shapes.PolynomialLR(o, 60, power))
    np.testing.assert_allclose(found(6, 10, name="polynomial", power=power), expected, rtol=1e-9)
    if power == 1:
        assert found(6, 10, name="linear") == found(6, 10, name="polynomial", power=1.0)


def test_multi_step_is_pytorchs():
    ours = found(7, 10, name="multi_step", milestones=[2, 5.0, 9], factor=0.3)
    expected = theirs(70, lambda shapes, o: shapes.MultiStepLR(o, [14, 35, 63], 0.3))
    np.testing.assert_allclose(ours, expected, rtol=1e-12)


def test_milestones_between_epochs_fall_on_the_first_step_after_them():
    ours = found(10, 2, name="multi_step", milestones=[0.1, 0.35, 1.7], factor=0.5)
    assert ours == [1.0] + [0.5] * 3 + [0.25] * 13 + [0.125] * 3


@pytest.mark.parametrize("milestones", [[], [3, 2], [2, 2]])
def test_milestones_rise_and_are_there(milestones):
    with pytest.raises(ValueError, match="milestones"):
        Schedule(name="multi_step", milestones=milestones)


@pytest.mark.parametrize("peak,start,end", [(0.3, 0.04, 4e-6), (0.5, 0.2, 0.01), (0.25, 0.5, 0)])
@pytest.mark.parametrize("steps", [1, 7, 40])
def test_one_cycle_is_pytorchs(peak, start, end, steps):
    def build(shapes, optimizer):
        divisor = start / end if end else 1e300
        return shapes.OneCycleLR(
            optimizer,
            1.0,
            12 * steps,
            pct_start=peak,
            cycle_momentum=False,
            div_factor=1 / start,
            final_div_factor=divisor,
        )

    ours = found(steps, 12, name="one_cycle", peak=peak, start=start, minimum=end)
    np.testing.assert_allclose(ours, theirs(12 * steps, build), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("growth", [1, 2, 3])
def test_cosine_restarts_are_pytorchs(growth):
    expected = theirs(
        70, lambda shapes, o: shapes.CosineAnnealingWarmRestarts(o, 14, growth, eta_min=0.1)
    )
    ours = found(
        7, 10, name="cosine_restarts", restart_epochs=2, restart_growth=growth, minimum=0.1
    )
    np.testing.assert_allclose(ours, expected, rtol=1e-9)
    assert ours[0] == ours[14] == 1.0 and ours[13] < 0.2


def test_restarts_fall_on_the_step_that_a_decimal_number_names():
    ours = found(10, 3, name="cosine_restarts", restart_epochs=0.3)
    assert [step for step, factor in enumerate(ours) if factor == 1.0] == list(range(0, 30, 3))
    warm = found(10, 3, name="cosine_restarts", restart_epochs=0.7, warmup_epochs=0.2)
    assert [step for step, factor in enumerate(warm) if factor == 1.0] == [1, 2, 9, 16, 23]


@pytest.mark.parametrize("steps", [1, 7, 49])
@pytest.mark.parametrize("start,peak,end", [("0.2", "0.23", "0.07"), ("0", "0.5", "0"), "101"])
def test_triangular_is_the_lines_through_its_corners(steps, start, peak, end):
    """By step; between the corners exact to rounding."""
    ours = found(
        steps, 10, name="triangular", start=float(start), peak=float(peak) % 1, minimum=float(end)
    )
    n, s, p, e = 10 * steps, Fraction(start), Fraction(peak) % 1, Fraction(end)
    expected = [
        s + (1 - s) * k / (p * n) if k < p * n else 1 + (e - 1) * (k - p * n) / (n - p * n)
        for k in range(n)
    ]
    np.testing.assert_allclose(ours, np.array(expected, float), rtol=1e-14)
    if peak == "0.5":
        assert max(ours) == ours[n // 2] == 1.0 and ours[0] == 0.0


@pytest.mark.parametrize("name", ["linear", "polynomial", "triangular", "one_cycle"])
def test_a_warm_up_goes_before_and_the_end_stays(name):
    schedule = Schedule(name=name, warmup_epochs=2, minimum=0.1)
    factors = [learning_rate_factor(schedule, step, 5, 8) for step in range(60)]
    assert factors[:10] == [(k + 1) / 10 for k in range(10)]
    plain = found(5, 6, name=name, minimum=0.1)
    assert factors[10:40] == plain
    assert set(factors[40:]) == {0.1}
    after = factors[20:]
    assert all(one >= two for one, two in pairwise(after))


def test_few_steps_are_no_mistake():
    for name in ("linear", "polynomial", "triangular", "one_cycle", "cosine_restarts"):
        for peak in (0.0, 0.3, 0.99):
            for epochs in (1, 2, 3):
                ours = found(1, epochs, name=name, peak=peak, warmup_epochs=1.5 * (epochs > 1))
                assert all(0 <= factor <= 1 for factor in ours)
