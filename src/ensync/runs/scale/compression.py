"""What a job's way to compress sums passes, and the seconds of its arithmetic. Collective."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ensync.core.config.schema import Job
from ensync.core.scaling.passing import Passed
from ensync.core.scaling.prediction import Calibration
from ensync.core.scaling.steps import summary
from ensync.mpi.wire import Wire
from ensync.mpi.world import Comm, alone
from ensync.runs.scale.steps import Bench, time_steps
from ensync.strategies.compression import compressor_of

SECONDS = 2.0  # of sums that are timed


class NotingWire(Wire):
    """A wire of one rank, which notes what passes over it in a sum.

    What is gathered after an exchange are blocks, of which each of several ranks would have one;
    what is gathered without one is each rank's whole.
    """

    def __init__(self) -> None:
        super().__init__(alone(), lambda nbytes: None)
        self.passed: list[Passed] = []

    def allreduce(self, vector: np.ndarray) -> None:
        """Note a sum by MPI."""
        self.passed.append(Passed("all", vector.nbytes))

    def exchange(self, sent: np.ndarray, lengths: Sequence[int]) -> np.ndarray:
        """Note an exchange of blocks."""
        self.passed.append(Passed("blocks", sent.nbytes))
        return super().exchange(sent, lengths)

    def gather(self, own: np.ndarray, lengths: Sequence[int]) -> np.ndarray:
        """Note a gathering."""
        blocks = any(each.kind == "blocks" for each in self.passed)
        self.passed.append(Passed("blocks" if blocks else "whole", own.nbytes))
        return super().gather(own, lengths)


def with_compression(comm: Comm, calibration: Calibration, bench: Bench, job: Job) -> Calibration:
    """Return a calibration with what the job's way to compress takes, the same on all ranks."""
    if not job.communication.compresses:
        return calibration
    wire, network = NotingWire(), bench.network
    compressor = compressor_of(job.communication, wire, network, job.training.seed)
    vector = np.random.default_rng(1).normal(size=len(network.parameters))
    vector, error = vector.astype(network.dtype), np.zeros_like(network.parameters)

    def once() -> None:
        wire.passed.clear()
        np.add(vector, error, out=network.gradient)
        compressor.sum(network.gradient, error)

    seconds = summary(1, 1, time_steps(comm, once, SECONDS)).mean
    return replace(
        calibration,
        compression=job.communication.compression,
        coding=seconds,
        compressed=tuple(wire.passed),
    )
