"""Sums of matrices of low rank: PowerSGD (Vogels, Karimireddy and Jaggi 2019, algorithm 1)."""

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import numpy as np

from ensync.core.sharding import Purpose, generator
from ensync.mpi.wire import Wire
from ensync.nn.layers.base import Parameter
from ensync.strategies.compression.compressor import Compressor

LEAST = 2  # how many times fewer numbers a matrix must take, to be compressed


class Matrix(NamedTuple):
    """Where a matrix (rows, columns) lies in the vector, and its factors (columns, rank) and
    (rank, rows) in theirs.
    """

    place: slice
    shape: tuple[int, int]
    left: slice
    right: slice

    def of(self, vector: np.ndarray) -> np.ndarray:
        """The matrix in a vector."""
        return vector[self.place].reshape(self.shape)

    def left_of(self, factors: np.ndarray) -> np.ndarray:
        """P (columns, rank) among all left factors."""
        return factors[self.left].reshape(self.shape[1], -1)

    def right_of(self, factors: np.ndarray) -> np.ndarray:
        """Q (rows, rank) among all right factors."""
        return factors[self.right].reshape(self.shape[0], -1)


class PowerSgd(Compressor):
    """With M the sum of the ranks' matrices M_k (outputs x inputs), and Q that of the step before,

        P = M Q, orthonormalised;  Q = M^T P;  P Q^T is taken for M

    is a step of power iteration, which sends rank (inputs + outputs) numbers for each rank's
    inputs x outputs. Both products are sums over ranks. A rank keeps back M_k - P P^T M_k. Weights
    and filters are matrices of their inputs by their outputs; vectors, and matrices that would
    take more than half their numbers, go whole.
    """

    def __init__(
        self,
        wire: Wire,
        layout: Sequence[tuple[str, Parameter]],
        dtype: np.dtype | type,
        rank: int,
        seed: int,
    ) -> None:
        self._wire, self._seed = wire, seed
        self._matrices: list[Matrix] = []
        self._whole: list[slice] = []  # what is not compressed
        start = left = right = 0
        for _, parameter in layout:
            place = slice(start, start + parameter.size)
            start = place.stop
            columns = parameter.shape[-1]
            rows = prod(parameter.shape[:-1])
            if len(parameter.shape) > 1 and parameter.size > LEAST * rank * (rows + columns):
                ends = left + columns * rank, right + rows * rank
                self._matrices.append(
                    Matrix(place, (rows, columns), slice(left, ends[0]), slice(right, ends[1]))
                )
                left, right = ends
            else:
                self._whole.append(place)
        self._lefts = left
        self._message = left + sum(place.stop - place.start for place in self._whole)
        self._rights = np.empty(right, dtype)
        self.restart()

    @property
    def vectors(self) -> dict[str, np.ndarray]:
        """The right factors of the last step, from which the next begins."""
        return {"right_factors": self._rights}

    def restart(self) -> None:
        """Draw the first right factors, the same on all ranks."""
        random = generator(self._seed, Purpose.COMPRESSION)
        self._rights[:] = random.standard_normal(len(self._rights))

    def sum(self, vector: np.ndarray, error: np.ndarray) -> None:
        """Sum, and keep back what has no place in the factors."""
        with np.errstate(invalid="ignore", over="ignore"):
            message = self._left_factors(vector)
            self._right_factors(message, vector, error)
            self._wire.allreduce(self._rights)
            for matrix in self._matrices:
                left, right = matrix.left_of(message), matrix.right_of(self._rights)
                np.matmul(right, left.T, out=matrix.of(vector))

    def _left_factors(self, vector: np.ndarray) -> np.ndarray:
        """Return the orthonormal left factors of the sum, followed by the sum of what goes whole,
        which takes its place in the vector. Collective.
        """
        message = np.empty(self._message, vector.dtype)
        for matrix in self._matrices:
            right = orthonormal(matrix.right_of(self._rights)).astype(vector.dtype, copy=False)
            np.matmul(matrix.of(vector).T, right, out=matrix.left_of(message))
        if self._whole:
            parts = [vector[place] for place in self._whole]
            np.concatenate(parts, out=message[self._lefts :])
        self._wire.allreduce(message)
        for matrix in self._matrices:
            left = matrix.left_of(message)
            left[:] = orthonormal(left)
        start = self._lefts
        for place in self._whole:
            stop = start + place.stop - place.start
            vector[place], start = message[start:stop], stop
        return message

    def _right_factors(self, message: np.ndarray, vector: np.ndarray, error: np.ndarray) -> None:
        """Have the right factors of this rank's matrices, given the left ones of the sum, and write
        the errors.
        """
        for place in self._whole:
            error[place] = 0
        for matrix in self._matrices:
            own, kept, left = matrix.of(vector), matrix.of(error), matrix.left_of(message)
            right = np.matmul(own, left, out=matrix.right_of(self._rights))
            np.matmul(right, left.T, out=kept)
            np.subtract(own, kept, out=kept)


def orthonormal(columns: np.ndarray) -> np.ndarray:
    """Return float64 (rows, rank), orthonormal, that span what the columns (rows, rank) do; more
    where these depend on each other, so that no direction is lost for good.
    """
    factor: np.ndarray = np.linalg.qr(columns.astype(np.float64))[0]
    return factor
