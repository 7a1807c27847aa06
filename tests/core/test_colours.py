"""Filters whose share of colour is known, and random ones."""

import numpy as np
import pytest

from ensync.core.colours import chromatic_shares

GREY, RED, OPPONENT = (1.0, 1.0, 1.0), (1.0, 0.0, 0.0), (1.0, -1.0, 0.0)


def filters(*colours, size=3):
    """Return filters `(size, size, 3, filters)`, of a colour each, with other numbers at each
    place.
    """
    places = np.random.default_rng(0).normal(size=(size, size, 1, 1))
    return places * np.array(colours).T[None, None]


def test_grey_has_none_and_what_answers_to_no_grey_image_is_all_colour():
    weights = filters(GREY, RED, OPPONENT, (0, 0, 0))
    found = chromatic_shares(weights)
    assert found[:3] == pytest.approx([0.0, 2 / 3, 1.0]) and np.isnan(found[3])
    flat = np.repeat(np.random.default_rng(1).normal(size=(3, 3, 1)), 3, axis=2)  # a grey image
    answers = np.einsum("hwc,hwcf->f", flat, weights)
    assert answers[2] == pytest.approx(0, abs=1e-12) and abs(answers[0]) > 0.1


def test_the_share_knows_no_scale_no_turn_of_channels_and_adds_up_over_places():
    weights = np.random.default_rng(2).normal(size=(5, 5, 3, 4)).astype(np.float32)
    found = chromatic_shares(weights)
    assert found.dtype == np.float64
    assert chromatic_shares(-7 * weights[:, :, [2, 0, 1]]) == pytest.approx(found)
    w = weights[..., 1].astype(float)  # by the definition: what is left without its mean over RGB
    left = w - w.mean(axis=2, keepdims=True)
    assert found[1] == pytest.approx((left**2).sum() / (w**2).sum())


def test_random_weights_have_two_thirds():
    weights = np.random.default_rng(3).normal(size=(5, 5, 3, 4000))
    assert chromatic_shares(weights).mean() == pytest.approx(2 / 3, abs=0.003)


def test_what_is_not_finite_has_none():
    weights = filters(RED, RED)
    weights[0, 0, 0, 0] = np.inf
    assert np.isnan(chromatic_shares(weights)).tolist() == [True, False]
