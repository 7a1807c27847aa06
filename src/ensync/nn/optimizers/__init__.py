"""Optimisers: one formula a function, their table, and the state of one with its groups."""

from ensync.nn.optimizers.optimizer import UPDATES, Factors, Optimizer, clip

__all__ = ["UPDATES", "Factors", "Optimizer", "clip"]
