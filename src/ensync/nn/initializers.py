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


INITIALIZERS: dict[str, Initializer] = {
    f.__name__: f
    for f in (
        glorot_uniform,
        glorot_normal,
        he_uniform,
        he_normal,
        pytorch,
        uniform_0_1,
        uniform_pm_half,
    )
}
BIASES_TOO = (
    "pytorch",
    "uniform_0_1",
    "uniform_pm_half",
)  # PyTorch and the C programs draw biases like weights
