"""Networks of all layer kinds, drawn from a number."""

import random

import numpy as np


class Draw(random.Random):
    """A network drawn layer by layer.

    A careless one may hold layers that do not fit; a large one has whole vectors of channels.
    """

    def __init__(self, number):
        super().__init__(number)
        self.careless, self.large = self.random() < 0.25, self.random() < 0.15

    def network(self):
        """Return the tables of a job, the shape of its images and how many rows, classes."""
        shape = (
            self.choice([1, 2, 3, 4, 5, 7, 8, 11, 13]),
            self.choice([1, 2, 3, 5, 6, 9, 12]),
            self.choice([1, 2, 3, 4, 5, 8, 16]),
        )
        if self.large:
            shape = self.choice([6, 17, 20]), self.choice([7, 18]), self.choice([16, 32, 33])
        classes = self.choice([2, 3, 10, 17])
        layers = self.layers(self.randint(1, 5), shape, 2)
        training = {
            "loss": self.choice(
                ["cross_entropy", "cross_entropy", "mean_squared_error", "half_squared_error"]
            )
        }
        network = {"layers": [*layers, {"kind": "dense"}]}
        if training["loss"] == "cross_entropy":
            training["label_smoothing"] = self.choice([0.0, 0.1])
        else:
            training["targets"] = self.choice([[0.0, 1.0], [-0.5, 0.9]])
            network["output_activation"] = self.choice(
                ["auto", "softmax", "tanh", "logistic", "relu", "gelu"]
            )
        return {"network": network, "training": training}, shape, self.randint(1, 9), classes

    def layers(self, count, shape, depth):
        """Return so many layers on inputs of this shape; composites at most so deep."""
        found = []
        for _ in range(count):
            layer, shape = self.layer(shape, depth)
            found.append(layer)
        return found

    def layer(self, shape, depth):
        """Return a layer and the shape of its outputs, which is a guess where it is a composite."""
        image = [
            "convolution",
            "convolution",
            "depthwise",
            "separable",
            "max_pooling",
            "average_pooling",
            "global_average_pooling",
            "flatten",
        ]
        anywhere = [
            "dense",
            "batch_normalization",
            "batch_normalization",
            "group_norm",
            "local_response_normalization",
            "scaling",
            "dropout",
            *["residual", "parallel"] * (depth > 0),
        ]
        kinds = (
            anywhere + 2 * image
            if len(shape) == 3 or (self.careless and self.random() < 0.3)
            else anywhere
        )
        kind = self.choice(kinds)
        settings, after = getattr(self, kind)(shape, depth) if hasattr(self, kind) else ({}, shape)
        return {"kind": kind, **settings}, after

    def dense(self, shape, depth):
        units = self.choice([1, 2, 5, 16, 31])
        use_bias = self.random() < 0.7
        return {"units": units, "activation": self.activation(), "use_bias": use_bias}, (units,)

    def activation(self):
        return self.choice(["identity", "relu", "gelu", "tanh", "logistic"])

    def window(self, shape, most):
        """Return size, stride and padding that fit, mostly."""
        h, w = shape[:2] if len(shape) == 3 else (5, 5)
        size, padding = (
            self.choice([1, 2, 3, 3, 3, 4, 5, 7, *[11, 17] * self.large]),
            self.choice(["same", "valid", 0, 1, 2]),
        )
        zeros = {"same": size, "valid": 0}.get(padding, padding)
        if not self.careless:
            size = max(1, min(size, h + 2 * zeros, w + 2 * zeros))
        if isinstance(padding, int) and most == "half" and not self.careless:
            padding = min(padding, size // 2)
        stride = self.choice([1, 1, 2, 3])
        zeros = 0 if padding == "valid" else padding
        after = [
            -(-n // stride) if padding == "same" else max(0, n + 2 * zeros - size) // stride + 1
            for n in (h, w)
        ]
        return {"size": size, "stride": stride, "padding": padding}, tuple(after)

    def convolution(self, shape, depth):
        window, after = self.window(shape, "any")
        filters, groups = (
            self.choice([16, 32, 48] if self.large else [1, 2, 3, 4, 6, 16, 24]),
            self.choice([1, 1, 2, 3]),
        )
        if not self.careless and (shape[-1] % groups or filters % groups):
            groups = 1
        return {
            **window,
            "filters": filters,
            "groups": groups,
            "activation": self.activation(),
            "use_bias": self.random() < 0.7,
        }, (*after, filters)

    def depthwise(self, shape, depth):
        window, after = self.window(shape, "any")
        return window, (*after, shape[-1])

    def separable(self, shape, depth):
        window, after = self.window(shape, "any")
        filters = self.choice([1, 2, 5, 16, 32])
        return {**window, "filters": filters, "activation": self.activation()}, (*after, filters)

    def max_pooling(self, shape, depth):
        window, after = self.window(shape, "half")
        return window, (*after, shape[-1])

    average_pooling = max_pooling

    def global_average_pooling(self, shape, depth):
        return {}, (shape[-1],)

    def flatten(self, shape, depth):
        return {}, (int(np.prod(shape)),)

    def batch_normalization(self, shape, depth):
        return {
            "activation": self.choice(["identity", "relu", "gelu"]),
            "momentum": self.choice([0.0, 0.9, 0.99]),
            "epsilon": self.choice([1e-3, 1e-5]),
            "unbiased": self.random() < 0.5,
            "scale": self.random() < 0.7,
        }, shape

    def group_norm(self, shape, depth):
        groups = self.choice([n for n in range(1, shape[-1] + 1) if shape[-1] % n == 0])
        return {
            "groups": groups + (self.careless and self.random() < 0.2),
            "activation": self.choice(["identity", "relu", "gelu"]),
            "epsilon": self.choice([1e-3, 1e-5]),
        }, shape

    def local_response_normalization(self, shape, depth):
        return {
            "k": self.choice([1.0, 2.0]),
            "n": self.choice([1, 2, 3, 4, 5, 9]),
            "alpha": self.choice([1e-4, 0.1]),
            "beta": self.choice([0.5, 0.75, 1.0]),
        }, shape

    def scaling(self, shape, depth):
        return {"factor": self.choice([1 / 9, -2.0])}, shape

    def dropout(self, shape, depth):
        return {"rate": self.choice([0.0, 0.2, 0.6])}, shape

    def way(self, shape, depth, count):
        """Return layers and the shape behind them."""
        layers = []
        for _ in range(count):
            layer, shape = self.layer(shape, depth)
            layers.append(layer)
        return layers, shape

    def to(self, shape, wanted):
        """Return layers that make the wanted shape of another."""
        if shape == wanted:
            return []
        if len(wanted) == 1:
            return [{"kind": "dense", "units": wanted[0]}]
        if shape[:2] == wanted[:2]:
            return [{"kind": "convolution", "filters": wanted[2], "size": 1}]
        return None

    def residual(self, shape, depth):
        norm, _ = self.batch_normalization(shape, depth)
        norm["activation"] = self.choice(["identity", "identity", "relu", "gelu"])
        main, after = self.way(shape, depth - 1, self.randint(0, 3))
        shortcut, around = self.way(shape, depth - 1, self.choice([0, 0, 1, 2]))
        fit = self.to(around, after)
        if fit is None and not self.careless:
            main, shortcut, after, fit = [], [], shape, []
        end = {"kind": "batch_normalization", **norm}
        return {
            "layers": main if main and self.random() < 0.4 else [*main, end],
            "shortcut": [*shortcut, *(fit or [])],
            "activation": self.choice(["identity", "relu", "gelu"]),
        }, after

    def parallel(self, shape, depth):
        first, after = self.way(shape, depth - 1, self.randint(0, 2))
        branches, channels = [first], after[-1]
        for _ in range(self.randint(0, 2)):
            branch, end = self.way(shape, depth - 1, self.randint(0, 2))
            fit = self.to(end, after) if len(end) != len(after) or end[:-1] != after[:-1] else []
            if fit is None and not self.careless:
                continue
            branches.append([*branch, *(fit or [])])
            channels += after[-1] if fit else end[-1]
        return {"branches": branches}, (*after[:-1], channels)
