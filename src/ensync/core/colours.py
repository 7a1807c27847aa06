"""How much of a filter is about colour."""

import numpy as np

COLOURS = 3  # red, green and blue, in any order


def chromatic_shares(weights: np.ndarray) -> np.ndarray:
    """Return of each filter the share of its energy that answers to colour alone, float64
    `(filters,)`, from 0 to 1; NaN of one that is all zeros or not finite.

    weights: `(height, width, 3, filters)`. At each place a filter weighs the three channels by a
    vector w. Its part along (1, 1, 1) / sqrt(3) is what it answers to a grey image; the rest, at
    right angles to that, answers to every grey image with 0. So the share is

        1 - sum <w, (1, 1, 1) / sqrt(3)>^2 / sum |w|^2,

    both sums over places. 0: the filter sees grey alone (colour-agnostic); 1: colour alone
    (colour-specific). Nothing is taken off beforehand: a mean that the channels have in common is
    an answer to brightness, and any other mean is one to colour. Independent weights of equal
    variances, as a network starts with, have 2/3 in the mean, for two of three directions.

    That one tower's filters are colour-agnostic and the other's colour-specific is an observation
    of Krizhevsky et al. (2012, section 6.1 and figure 3), who looked and did not measure.
    """
    values = weights.astype(np.float64)
    energy = (values**2).sum(axis=(0, 1, 2))
    grey = (values.sum(axis=2) ** 2).sum(axis=(0, 1)) / COLOURS
    with np.errstate(divide="ignore", invalid="ignore"):
        shares: np.ndarray = 1 - grey / energy
    return np.where(np.isfinite(shares), np.clip(shares, 0, 1), np.nan)
