"""Start values of weights.

fan_in and fan_out are Keras': size * size * channels / groups and size * size * filters of a
convolution, inputs and units of a dense layer; of a depthwise one, whose filters Keras keeps as
(size, size, channels, 1), size * size * channels and size * size. PyTorch keeps them as (channels,
1, size, size) and counts the size * size values that an output sees: `pytorch` does so.
"""

import math
from collections.abc import Callable

import numpy as np

Initializer = Callable[[np.random.Generator, tuple[int, ...], int, int], np.ndarray]


def glorot_uniform(
    random: np.random.Generator, shape: tuple[int, ...], fan_in: int, fan_out: int
) -> np.ndarray:
    """Uniform in +-sqrt(6 / (fan_in + fan_out)); Glorot and Bengio 2010, equation 16."""
    bound = math.sqrt(6.0 / (fan_in + fan_out))
    return random.uniform(-bound, bound, shape)


def glorot_normal(
    random: np.random.Generator, shape: tuple[int, ...], fan_in: int, fan_out: int
) -> np.ndarray:
    """Normal with variance 2 / (fan_in + fan_out); Glorot and Bengio 2010, equation 12."""
    return random.normal(0.0, math.sqrt(2.0 / (fan_in + fan_out)), shape)


def he_uniform(
    random: np.random.Generator, shape: tuple[int, ...], fan_in: int, fan_out: int
) -> np.ndarray:
    """Uniform in +-sqrt(6 / fan_in); He et al. 2015."""
    bound = math.sqrt(6.0 / fan_in)
    return random.uniform(-bound, bound, shape)


def he_normal(
    random: np.random.Generator, shape: tuple[int, ...], fan_in: int, fan_out: int
) -> np.ndarray:
    """Normal with variance 2 / fan_in; He et al. 2015, equation 10."""
    return random.normal(0.0, math.sqrt(2.0 / fan_in), shape)


def uniform_0_1(
    random: np.random.Generator, shape: tuple[int, ...], fan_in: int, fan_out: int
) -> np.ndarray:
    """Uniform in [0, 1), as C programs write rand() / RAND_MAX."""
    return random.uniform(0.0, 1.0, shape)


def uniform_pm_half(
    random: np.random.Generator, shape: tuple[int, ...], fan_in: int, fan_out: int
) -> np.ndarray:
    """Uniform in [-0.5, 0.5), as C programs write rand() / RAND_MAX - 0.5."""
    return random.uniform(-0.5, 0.5, shape)


def pytorch(
    random: np.random.Generator, shape: tuple[int, ...], fan_in: int, fan_out: int
) -> np.ndarray:
    """Uniform in +-1 / sqrt(values that an output sees), weights and biases: what torch.nn.Linear
    and Conv2d do unasked.

    Those are all of an array of weights but its last axis, the outputs; of a bias (outputs,), the
    fan_in of its weights.
    """
    bound = 1.0 / math.sqrt(math.prod(shape[:-1]) if len(shape) > 1 else fan_in)
    return random.uniform(-bound, bound, shape)


def dirac(
    random: np.random.Generator, shape: tuple[int, ...], fan_in: int, fan_out: int
) -> np.ndarray:
    """As `pytorch`, but the first filters of a convolution hand on one channel each, as many as a
    filter sees channels.

    Filter i has a 1 in the middle (of an even size, the pixel behind it) of channel i, and zeros:
    torch.nn.init.dirac_ of these filters, as in the programs of Jordan 2024 (arXiv 2404.00498).
    """
    values = pytorch(random, shape, fan_in, fan_out)
    if len(shape) == 4:
        height, width, channels, filters = shape
        count = min(channels, filters)
        values[..., :count] = 0.0
        values[height // 2, width // 2, range(count), range(count)] = 1.0
    return values


def unit_variance(
    random: np.random.Generator, shape: tuple[int, ...], fan_in: int, fan_out: int
) -> np.ndarray:
    """Uniform with variance 1: in +-sqrt(3), whatever the fans."""
    return random.uniform(-math.sqrt(3.0), math.sqrt(3.0), shape)


def normal_0_01(
    random: np.random.Generator, shape: tuple[int, ...], fan_in: int, fan_out: int
) -> np.ndarray:
    """Normal with mean 0 and deviation 0.01, whatever the fans; Krizhevsky et al. 2012, section
    5.
    """
    return random.normal(0.0, 0.01, shape)


INITIALIZERS: dict[str, Initializer] = {
    f.__name__: f
    for f in (
        glorot_uniform,
        glorot_normal,
        he_uniform,
        he_normal,
        pytorch,
        dirac,
        unit_variance,
        normal_0_01,
        uniform_0_1,
        uniform_pm_half,
    )
}
BIASES_TOO = (
    "pytorch",
    "dirac",
    "uniform_0_1",
    "uniform_pm_half",
)  # PyTorch and the C programs draw biases like weights
