"""Every kernel in obvious numpy: the oracle of the tests. float64 throughout, no speed."""

import math

import numpy as np

# --- dense


def activation(name: str, z: np.ndarray) -> np.ndarray:
    """f(z)."""
    if name == "relu":
        return np.where(z < 0, 0, z)
    if name == "tanh":
        return np.tanh(z)
    if name == "logistic":
        return 1 / (1 + np.exp(-z))
    if name == "gelu":
        return z * normal_share(z)
    return z.copy()


def normal_share(z: np.ndarray) -> np.ndarray:
    """The share of the standard normal distribution below each z."""
    return np.vectorize(lambda x: math.erfc(-x / math.sqrt(2)) / 2, otypes=[float])(z)


def activation_slope(name: str, outputs: np.ndarray) -> np.ndarray:
    """f'(z), as a function of f(z); of GELU, as one of z."""
    if name == "relu":
        return np.where(outputs > 0, 1.0, 0.0)
    if name == "tanh":
        return 1 - outputs**2
    if name == "logistic":
        return outputs * (1 - outputs)
    if name == "gelu":
        density = np.exp(-(outputs**2) / 2) / math.sqrt(2 * math.pi)
        return normal_share(outputs) + outputs * density
    return np.ones_like(outputs)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Rows of e**z / sum e**z."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def one_hot(labels: np.ndarray, classes: int, low: float = 0.0, high: float = 1.0) -> np.ndarray:
    """Rows of `low`, with `high` at the label."""
    return np.where(np.arange(classes) == labels[:, None], high, low)


def cross_entropy(logits: np.ndarray, labels: np.ndarray, smoothing: float = 0.0) -> float:
    """Sum over rows of - sum_j t_j log softmax_j, with smoothed targets."""
    classes = logits.shape[1]
    target = one_hot(labels, classes, smoothing / classes, 1 - smoothing + smoothing / classes)
    return float(-(target * np.log(softmax(logits))).sum())


def squared_error(
    outputs: np.ndarray, labels: np.ndarray, low: float, high: float, factor: float
) -> float:
    """Sum over rows of factor * sum_j (o_j - t_j)**2."""
    return float(factor * ((outputs - one_hot(labels, outputs.shape[1], low, high)) ** 2).sum())


def finite_differences(function, point: np.ndarray, step: float = 1e-6) -> np.ndarray:
    """The gradient of a scalar function, one coordinate at a time, central differences in
    float64.
    """
    gradient = np.empty_like(point)
    for index in np.ndindex(point.shape):
        kept = point[index]
        point[index] = kept + step
        above = function(point)
        point[index] = kept - step
        gradient[index] = (above - function(point)) / (2 * step)
        point[index] = kept
    return gradient


def sgd(p, g, rate, decay):
    """Plain steps."""
    return p - rate * (g + decay * p)


def momentum(p, g, v, rate, keep, decay, nesterov):
    """(p, v) after one step of PyTorch's SGD with momentum."""
    g = g + decay * p
    v = keep * v + g
    return p - rate * (g + keep * v if nesterov else v), v


def adam(p, g, m, v, step, rate, beta1, beta2, epsilon, decay, decoupled):
    """(p, m, v) after one step of PyTorch's Adam or AdamW."""
    if decoupled:
        p = p - rate * decay * p
    else:
        g = g + decay * p
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    return p - rate * (m / (1 - beta1**step)) / (np.sqrt(v / (1 - beta2**step)) + epsilon), m, v


# --- online


def train_online(
    parameters, sizes, activations, cross_entropy_loss, inputs, labels, rate, low, high, factor
):
    """Plain SGD, one step per row of `inputs`; `parameters` is flat and changed in place. Return
    (sum of losses, correct).
    """
    layers, start = [], 0
    for height, width in zip(sizes[:-1], sizes[1:], strict=True):
        weights = parameters[start : start + height * width].reshape(height, width)
        bias = parameters[start + height * width : start + (height + 1) * width]
        layers.append((weights, bias))
        start += (height + 1) * width
    total, correct = 0.0, 0
    for x, label in zip(inputs, labels, strict=True):
        values = [x]
        for (weights, bias), name in zip(layers, activations, strict=True):
            values.append(activation(name, values[-1] @ weights + bias))
        outputs, target = values[-1], one_hot(np.array([label]), sizes[-1], low, high)[0]
        correct += int(outputs.argmax() == label)
        if cross_entropy_loss:
            total += cross_entropy(outputs[None], np.array([label]))
            delta = softmax(outputs[None])[0] - one_hot(np.array([label]), sizes[-1])[0]
        else:
            total += factor * ((outputs - target) ** 2).sum()
            delta = 2 * factor * (outputs - target) * activation_slope(activations[-1], outputs)
        for index in reversed(range(len(layers))):
            weights, bias = layers[index]
            gradient = weights @ delta
            weights -= rate * np.outer(values[index], delta)
            bias -= rate * delta
            if index:
                delta = gradient * activation_slope(activations[index - 1], values[index])
    return total, correct


# --- convolution: images (n, h, w, c), filters (kh, kw, c / groups, k); padding = (top, left) zeros
# before the image


def windows(
    inputs: np.ndarray, size: tuple, stride: int, padding: tuple, outputs: tuple, fill: float = 0.0
) -> np.ndarray:
    """What each output sees: (n, oh, ow, kh, kw, c)."""
    (n, h, w, c), (kh, kw), (oh, ow) = inputs.shape, size, outputs
    framed = np.full(
        (n, padding[0] + h + oh * stride + kh, padding[1] + w + ow * stride + kw, c), fill
    )
    framed[:, padding[0] : padding[0] + h, padding[1] : padding[1] + w] = inputs
    seen = np.empty((n, oh, ow, kh, kw, c))
    for y in range(oh):
        for x in range(ow):
            seen[:, y, x] = framed[:, y * stride : y * stride + kh, x * stride : x * stride + kw]
    return seen


def convolution(
    inputs: np.ndarray,
    weights: np.ndarray,
    bias: np.ndarray,
    stride: int,
    padding: tuple,
    groups: int,
    outputs: tuple,
) -> np.ndarray:
    """Each group of outputs from its own group of channels: (n, oh, ow, k)."""
    seen = windows(inputs, weights.shape[:2], stride, padding, outputs)
    parts = zip(
        np.split(seen, groups, axis=-1),
        np.split(weights.astype(float), groups, axis=-1),
        strict=True,
    )
    return (
        np.concatenate([np.tensordot(part, filters, 3) for part, filters in parts], axis=-1) + bias
    )


def depthwise(
    inputs: np.ndarray,
    weights: np.ndarray,
    bias: np.ndarray,
    stride: int,
    padding: tuple,
    outputs: tuple,
) -> np.ndarray:
    """A filter for each channel: (n, oh, ow, c)."""
    return (
        np.einsum(
            "nyxabc,abc->nyxc",
            windows(inputs, weights.shape[:2], stride, padding, outputs),
            weights.astype(float),
        )
        + bias
    )


def max_pool(
    inputs: np.ndarray, size: tuple, stride: int, padding: tuple, outputs: tuple
) -> np.ndarray:
    """The largest pixel of each window."""
    return windows(inputs, size, stride, padding, outputs, -np.inf).max(axis=(3, 4))


def max_pool_gradient(
    inputs: np.ndarray, gradient: np.ndarray, size: tuple, stride: int, padding: tuple
) -> np.ndarray:
    """The gradient of the inputs, given that of the outputs: each goes to the first largest
    pixel of its window.
    """
    out = np.zeros(inputs.shape)
    for n, y, x, c in np.ndindex(gradient.shape):
        top, left = max(0, y * stride - padding[0]), max(0, x * stride - padding[1])
        seen = inputs[
            n, top : y * stride - padding[0] + size[0], left : x * stride - padding[1] + size[1], c
        ]
        row, column = np.unravel_index(seen.argmax(), seen.shape)
        out[n, top + row, left + column, c] += gradient[n, y, x, c]
    return out


def average_pool(
    inputs: np.ndarray, size: tuple, stride: int, padding: tuple, outputs: tuple
) -> np.ndarray:
    """The mean of each window's pixels inside the image."""
    return np.nanmean(windows(inputs, size, stride, padding, outputs, np.nan), axis=(3, 4))


def batch_normalization(
    inputs: np.ndarray, gamma: np.ndarray, beta: np.ndarray, epsilon: float
) -> np.ndarray:
    """Rows (rows, c) normalised by their own mean and biased variance."""
    return gamma * (inputs - inputs.mean(axis=0)) / np.sqrt(inputs.var(axis=0) + epsilon) + beta


def group_normalization(
    inputs: np.ndarray, groups: int, gamma: np.ndarray, beta: np.ndarray, epsilon: float
) -> np.ndarray:
    """Samples (n, rows, c) normalised by the mean and biased variance of each group of channels."""
    parts = inputs.reshape(*inputs.shape[:2], groups, -1)
    mean, variance = (f(parts, axis=(1, 3), keepdims=True) for f in (np.mean, np.var))
    return gamma * ((parts - mean) / np.sqrt(variance + epsilon)).reshape(inputs.shape) + beta


def local_response(inputs: np.ndarray, n: int, k: float, alpha: float, beta: float) -> np.ndarray:
    """Rows (rows, c) over (k + alpha * the squares of the n channels around each) ** beta."""
    framed = np.pad(inputs**2, ((0, 0), (n // 2, (n - 1) // 2)))
    return (
        inputs
        * (k + alpha * np.lib.stride_tricks.sliding_window_view(framed, n, axis=1).sum(axis=-1))
        ** -beta
    )


def lamb_moments(g, m, v, beta1, beta2):
    """Update the first and second moments in place."""
    m[:] = beta1 * m + (1 - beta1) * g
    v[:] = beta2 * v + (1 - beta2) * g**2


def lamb_step(p, m, v, step, numbers):
    """The step of LAMB before its trust ratio (You et al. 2020, algorithm 2)."""
    beta1, beta2, epsilon, decay = numbers
    return m / (1 - beta1**step) / (np.sqrt(v / (1 - beta2**step)) + epsilon) + decay * p


def newton_schulz(matrix, steps):
    """Bring the singular values of a matrix (outputs, others) near 1 (K. Jordan 2024)."""
    x = matrix / (np.sqrt((matrix**2).sum()) + 1e-7)
    a, b, c = 3.4445, -4.7750, 2.0315
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


# --- random changes of images


def chance(key: int, row: int, number: int) -> float:
    """The number in [0, 1) that a change of a dataset row is drawn from: two rounds of splitmix64's
    finaliser, then "lowbias32" twice.
    """

    def mixed(word: int) -> int:
        word = (word ^ word >> 16) * 0x7FEB352D % 2**32
        word = (word ^ word >> 15) * 0x846CA68B % 2**32
        return word ^ word >> 16

    z = (key + (row + 1) * 0x9E3779B97F4A7C15) % 2**64
    for _ in range(2):
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
        z ^= z >> 31
    return mixed(mixed(number ^ z % 2**32) ^ z >> 32) / 2**32


def three_normal(key: int, row: int) -> np.ndarray:
    """The three standard normal numbers of a dataset row, by the formula of Box and Muller."""
    a, b, c, d = (chance(key, row, number) for number in (11, 12, 13, 14))
    first, second = (math.sqrt(-2 * math.log(1 - each)) for each in (a, c))
    one, other = 2 * math.pi * b, 2 * math.pi * d
    return np.array([first * math.cos(one), first * math.sin(one), second * math.cos(other)])
