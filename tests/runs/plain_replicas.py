"""Replicas of softmax regression on the digits in plain numpy, float64: what runs whose ranks train
apart are compared with.
"""

import numpy as np

from ensync.core.sharding import block, epoch_order

RATE, MOMENTUM = 0.05, 0.9
PIXELS, CLASSES = 64, 10
OPTIMIZER = {"name": "momentum", "learning_rate": RATE}


class Softmax:
    """The data and the order of a run's training, and the gradient."""

    def __init__(self, trained):
        loader = trained.loaders.train
        pixels = trained.loaders.dataset.read("train", 0, len(loader)).astype(float)
        self.inputs = (pixels - np.float64(loader.mean)) * np.float64(loader.inverse_std)
        self.targets = np.eye(CLASSES)[loader.labels]
        self.seed = trained.job.training.seed

    def gradient(self, w, rows):
        """Return that of the mean loss of rows (n,), given weights and biases (650,)."""
        weights = w[: PIXELS * CLASSES].reshape(PIXELS, CLASSES)
        outputs = self.inputs[rows] @ weights + w[PIXELS * CLASSES :]
        shares = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        slope = shares / shares.sum(axis=1, keepdims=True) - self.targets[rows]
        return np.append((self.inputs[rows].T @ slope).ravel(), slope.sum(axis=0)) / len(rows)

    def batches(self, epochs, batch):
        """Yield the rows of each step."""
        for epoch in range(epochs):
            order = epoch_order(len(self.inputs), self.seed, epoch)
            yield from (order[i : i + batch] for i in range(0, len(order), batch))


class Replica:
    """The parameters of one rank, its velocity, and its samples since the last meeting."""

    def __init__(self, w):
        self.w, self.velocity, self.samples = w.copy(), np.zeros_like(w), 0

    def step(self, gradient, rate, samples):
        self.velocity = MOMENTUM * self.velocity + gradient
        self.w = self.w - rate * self.velocity
        self.samples += samples


def local(plain, w, settings, shape, rates):
    """Return the mean of replicas that meet as the settings say, from the parameters w.

    shape: ranks, epochs, batch. rates: the learning rate of each step.
    """
    s, (ranks, epochs, batch), outer = settings, shape, np.zeros_like(w)
    apart, peak, interval, since = [Replica(w) for _ in range(ranks)], 0.0, s.every, 0
    for step, rows in enumerate(plain.batches(epochs, batch)):
        together = step < s.start
        if s.growth and not since:
            grown = int((s.growth / rates[step]) ** 2 + 1e-6)
            interval = s.every if rates[step] > peak else max(s.every, grown)
            peak = max(peak, rates[step])
        for k, each in enumerate(apart):
            part = rows if together else rows[slice(*block(len(rows), ranks, k))]
            if len(part):
                each.step(plain.gradient(each.w, part), rates[step], len(part))
        since += 1
        if together or (s.every != "never" and since == interval):
            rate, mu = (1, 0) if together else (s.outer_learning_rate, s.outer_momentum)
            total, since = sum(each.samples for each in apart), 0
            shares = [each.samples / total for each in apart]
            d = w - sum(share * each.w for share, each in zip(shares, apart, strict=True))
            outer = mu * outer + d
            w = w - rate * (d + mu * outer)
            velocity = sum(s * each.velocity for s, each in zip(shares, apart, strict=True))
            for each in apart:
                each.w, each.samples = w.copy(), 0
                each.velocity = velocity if s.average_optimizer else each.velocity
    if not since:
        return w
    return sum(each.samples * each.w for each in apart) / sum(each.samples for each in apart)


def gossip(plain, w, pairs, shape, rates):
    """Return the mean of replicas that average with one partner after each step, from w.

    pairs: of a step, the partners of all ranks. shape, rates: as in `local`.
    """
    ranks, epochs, batch = shape
    apart = [Replica(w) for _ in range(ranks)]
    for step, rows in enumerate(plain.batches(epochs, batch)):
        before = [each.w for each in apart]
        for k, each in enumerate(apart):
            part = rows[slice(*block(len(rows), ranks, k))]
            share = ranks * len(part) / len(rows)
            gradient = share * plain.gradient(each.w, part) if len(part) else np.zeros_like(w)
            each.step(gradient, rates[step], len(part))
            each.w = each.w + (before[pairs(step)[k]] - before[k]) / 2
    return sum(each.w for each in apart) / ranks
