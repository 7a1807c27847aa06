"""A server of parameters: ranks compute gradients with a network that is some steps old, and nobody
waits for the newest.

Rank 0 holds the network w[t] and the optimiser, and computes as all others do. In step t rank k
takes w[t - d], its staleness d being at most communication.max_staleness, computes the gradient g_k
of its n_k rows of the batch, and pushes it. When the pushes of all ranks for step t are there,

    w[t+1] = optimiser's step from w[t] by  sum_k c_k n_k g_k / sum_k c_k n_k

where c_k is 1, or 1 / (1 + d) so that older gradients count less (staleness-aware, Zhang et al.
2016). That bound on how far ranks are apart is the one of Ho et al. 2013 (stale synchronous
parallel); with d = 0 throughout, it is synchronous SGD. How old a rank's network is comes from a
seed (core.delays), whatever really happens meanwhile, so that the same bits come again; or it is
the newest that has come, which no two runs repeat.

Chen et al. 2019 (BPT-CNN) weight asynchronous updates also by the accuracies of the networks on
the nodes. Their formulas could not be verified, so this is not their AGWU, nor claims to be.

A step's loss is known when all ranks have done it, max_staleness steps later at most. Outside of
steps all pushes are in the network, which is the same on all ranks.
"""

import math
from collections import deque
from collections.abc import Callable
from types import TracebackType

import numpy as np

from ensync.core.config.communication import Communication
from ensync.core.delays import delays
from ensync.mpi.allreduce import Allreduce, sum_counts
from ensync.mpi.channel import Channel, PendingSum
from ensync.mpi.world import Comm
from ensync.nn.network import Network
from ensync.nn.optimizers import Factors, Optimizer
from ensync.nn.step_metrics import CORRECT, LOSS_SUM, METRICS, STOP, StepMetrics
from ensync.training.reducers import PENDING, Compute, Part, Reducer

ROWS, WEIGHT = range(
    2
)  # places of a push's rows, and of these times c, where a message has metrics
FINE = 1 << 20  # losses are rounded to parts of 1/FINE, so that their sums have no rounding


class ServerReducer(Reducer):
    """Pushes gradients of older networks to rank 0, and takes newer networks from there.

    seed: of the delays.
    """

    def __init__(
        self,
        settings: Communication,
        seed: int,
        comm: Comm,
        network: Network,
        optimizer: Optimizer,
    ) -> None:
        super().__init__(network, Part(comm.size, comm.rank, Allreduce(comm)))
        self._settings, self._seed, self._comm = settings, seed, comm
        self._optimizer, self._channel = optimizer, Channel(comm)
        self._most = settings.max_staleness
        size = len(network.parameters) + len(network.statistics)
        # parameters and statistics, the newest first; outside of steps that is the network's
        self._versions = [np.zeros(size, network.dtype) for _ in range(self._most + 1)]
        self._newest = self._pushed = 0  # numbers: of the newest version, and of the next push
        self._own: deque[np.ndarray] = deque()  # of rank 0: its pushes that are not in a version
        self._factors: deque[Factors] = deque()  # and of the learning rates of these steps
        self._pushes = np.zeros_like(network.message) if comm.rank == 0 else np.empty(0)
        self._sums: deque[PendingSum] = deque()  # of the metrics of the last steps
        self._counts = np.zeros(self._most + 1, np.int64)  # of this rank's pushes by staleness
        self._staleness = np.zeros(self._most + 1, np.int64)  # of all pushes

    @property
    def bytes(self) -> int:
        """Bytes sent to others."""
        return self._channel.bytes

    @property
    def seconds(self) -> float:
        """Seconds of waits."""
        return self._channel.seconds

    @property
    def behind(self) -> int:
        """Steps whose metrics are on their way."""
        return len(self._sums)

    @property
    def vectors(self) -> dict[str, np.ndarray]:
        """The networks of the last steps, and the pushes so far by staleness."""
        older = {f"behind_{age}": self._versions[age] for age in range(1, self._most + 1)}
        return {**older, "staleness": self._staleness}

    @property
    def staleness(self) -> np.ndarray:
        """The pushes up to the last checkpoint by staleness, int64 (max_staleness + 1,)."""
        return self._staleness

    def restart(self) -> None:
        """Forget all steps, and take the network for all versions."""
        for version in self._versions:
            self._write(version)
        self._counts[:] = self._staleness[:] = 0

    def __enter__(self) -> None:
        """Count from the step at hand."""
        self._newest = self._pushed = self._optimizer.steps
        self._write(self._versions[0])

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Have all pushes in the network, on all ranks."""
        if kind is None:
            self._settle()
            self._read(self._versions[0])

    def reduce(self, compute: Compute, stop_requested: Callable[[], int]) -> StepMetrics:
        """Compute the gradient of this rank's part with the version that is due, and push it. The
        metrics are those of the step max_staleness steps before; those of all steps so far where
        a rank has a wish there, and in the last step before the `with` ends.
        """
        self.left -= 1
        age = self._take_version(self._optimizer.steps)
        rows = compute(self.network, self.part)
        metrics, loss = np.zeros(METRICS), float(self.network.metrics[LOSS_SUM])
        metrics[LOSS_SUM] = float(np.rint(loss * FINE)) / FINE
        metrics[CORRECT], metrics[STOP] = self.network.metrics[CORRECT], stop_requested()
        self._sums.append(self._channel.begin_sum(metrics))
        self._push(rows, age)
        return self._heard()

    def _take_version(self, step: int) -> int:
        """Have the version that this rank computes `step` with in the network, and return how many
        steps it is behind.
        """
        is_seeded, most = self._settings.server == "seeded", min(step, self._most)
        if is_seeded:
            most = int(delays(self._seed, step, self._most, self._comm.size)[self._comm.rank])
        while self._newest < step - most or (self._newest < step and self._is_due):
            self._advance()
        age = most if is_seeded else step - self._newest
        self._read(self._versions[self._newest - (step - age)])
        return age

    def _push(self, rows: int, age: int) -> None:
        """Send the message, whose metrics give way to this rank's rows and their weight."""
        n = self.network
        share = 1 / (1 + age) if self._settings.staleness_weight == "inverse" else 1.0
        if share != 1:
            n.gradient *= n.dtype.type(share)
        n.metrics[:] = 0
        n.metrics[ROWS], n.metrics[WEIGHT] = rows, share * rows
        self._counts[age] += 1
        self._pushed += 1
        if self._comm.rank == 0:
            self._own.append(n.message.copy())
        else:
            self._channel.post(n.message, (0,))

    def _heard(self) -> StepMetrics:
        """Return the metrics that are due, PENDING where none are."""
        sums, late = np.zeros(METRICS), len(self._sums) > self._most
        if late:
            sums += self._sums.popleft().result(self._serve)
        ends = self.left == 0 or sums[STOP] > 0 or not math.isfinite(sums[LOSS_SUM])
        while ends and self._sums:
            sums += self._sums.popleft().result(self._serve)
        return StepMetrics.read(sums) if late or ends else PENDING

    def apply(self, optimizer: Optimizer, factors: Factors) -> None:
        """Count the step; on rank 0 make the versions whose pushes are all there."""
        optimizer.steps += 1
        if self._comm.rank == 0:
            self._factors.append(factors)
            while self._serve():
                pass

    def _serve(self) -> bool:
        """Make the next version on rank 0, where all of it is there, which others may wait for;
        return whether it was.
        """
        if self._comm.rank or self._newest >= self._optimizer.steps or not self._is_due:
            return False
        self._advance()
        return True

    @property
    def _is_due(self) -> bool:
        """Whether what makes the next version has come."""
        return self._channel.is_here(self._channel.others if self._comm.rank == 0 else (0,))

    def _advance(self) -> None:
        """Have the next version: on rank 0 from the pushes, elsewhere from rank 0."""
        version = self._versions[-1]  # the oldest gives its place
        if self._comm.rank:
            self._channel.receive(0, version)
        else:
            self._make(version)
            self._channel.post(version, self._channel.others)
        self._versions.insert(0, self._versions.pop())
        self._newest += 1

    def _make(self, version: np.ndarray) -> None:
        """Write the next version: the newest one, a step of the optimiser further."""
        size, total = len(self.network.parameters), self._own.popleft()
        for rank in self._channel.others:
            self._channel.receive(rank, self._pushes)
            total += self._pushes
        gradient, exact = total[:size], total[size:]
        if self._most:
            version[:size] = self._versions[0][:size]
        version[size:] = exact[METRICS:]
        if not self._factors:  # of a step whose loss is not finite there are none
            return
        if exact[WEIGHT] != exact[ROWS]:
            gradient *= total.dtype.type(exact[ROWS] / exact[WEIGHT])
        optimizer, steps = self._optimizer, self._optimizer.steps
        optimizer.steps = self._newest
        optimizer.step(version[:size], gradient, self._factors.popleft())
        optimizer.steps = steps

    def _settle(self) -> None:
        """Wait until all pushes are in a version, and that is here."""
        while self._sums:
            self._sums.popleft().result(self._serve)
        while self._newest < self._pushed:
            self._advance()
        self._factors.clear()
        self._channel.finish()

    def _read(self, version: np.ndarray) -> None:
        """Write a version to the network."""
        n = self.network
        n.parameters[:], n.statistics[:] = np.split(version, [len(n.parameters)])

    def _write(self, version: np.ndarray) -> None:
        """Write the network to a version."""
        np.concatenate([self.network.parameters, self.network.statistics], out=version)

    def gather_state(self, optimizer: Optimizer) -> None:
        """Have rank 0's state of the optimiser everywhere, and count the pushes of all ranks."""
        for slot in optimizer.slots.values():
            self._channel.spread(slot)
        self._staleness += sum_counts(self._comm, self._counts)
        self._counts[:] = 0

    def close(self) -> None:
        """Give the communicator back."""
        self._settle()
        self._channel.close()
