"""Steps on any number of ranks, predicted from what was measured on some."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ensync.core.scaling.passing import STRATEGIES, Passed, Pattern, Sizes, cost_of, is_known
from ensync.core.scaling.steps import Curve, StepTimes, curves
from ensync.core.scaling.wires import GRADIENT, Cost, Overlap, Place, Wires


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What was measured of a job on the ranks at hand.

    threads, ranks_on_node, cores_of_node: as started. steps: whole steps of one rank, by rows and
    threads. freely: seconds of a step without a wait before each, over one with it. update:
    seconds of the optimiser's step within each; loop: of the training loop around each; meeting:
    of the arithmetic of a meeting of replicas. compression: the job's way to compress, "" for none;
    coding: seconds of its arithmetic in a sum; compressed: what it passes. overlap: None where sums
    of gradients do not overlap with the backward pass, or that was not measured.
    """

    sizes: Sizes
    threads: int
    ranks_on_node: int
    cores_of_node: int
    steps: tuple[StepTimes, ...]
    freely: float
    update: float
    loop: float
    meeting: float
    wires: Wires
    compression: str = ""
    coding: float = 0.0
    compressed: tuple[Passed, ...] = ()
    overlap: Overlap | None = None


@dataclass(frozen=True)
class Contestant:
    """A way to use ranks: a name of STRATEGIES, the steps from meeting to meeting, and how sums
    are compressed.
    """

    strategy: str
    every: float = 1
    compression: str = ""

    @property
    def label(self) -> str:
        """Its name in tables."""
        label, how = self.strategy, f", {self.compression}" * bool(self.compression)
        if math.isinf(self.every):
            label += ", never"
        elif self.every > 1 or label == "local SGD":
            label += f", H = {self.every:g}"
        return label + how


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Seconds of a step that go into one thing each. shared: those of the arithmetic that more
    ranks divide; small: that a small share of a batch costs more than in proportion; update: of
    the parameters, and the loop, the arithmetic of meetings and of compression; waiting: for the
    slowest; node: sums in memory; latency, bandwidth: sums by MPI.
    """

    shared: float
    small: float
    update: float
    waiting: float
    node: float
    latency: float
    bandwidth: float

    @property
    def seconds(self) -> float:
        """All of them."""
        return float(sum(vars(self).values()))

    @property
    def largest(self) -> str:
        """The name of the largest."""
        return max(vars(self), key=lambda name: getattr(self, name))

    @property
    def loss(self) -> str:
        """The name of the largest that more ranks do not divide."""
        return max(
            (name for name in vars(self) if name != "shared"), key=lambda name: getattr(self, name)
        )


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A contestant on so many ranks. rows: of the largest share of a batch; samples: per second
    over all ranks; bytes: that all ranks pass to others in the steps of an epoch; efficiency:
    samples per second over those of as many single ranks.
    """

    contestant: Contestant
    ranks: int
    nodes: int
    threads: int
    rows: int
    step: float
    parts: Parts
    samples: float
    epoch: float
    bytes: float
    efficiency: float


def place_of(ranks: int, on_node: int) -> Place:
    """Return the nodes of so many ranks that fill nodes one by one."""
    return Place(1, ranks) if ranks <= on_node else Place(-(-ranks // on_node), on_node)


def largest_share(sizes: Sizes, ranks: int) -> int:
    """Return the rows of a batch that the fullest of so many ranks computes: slice by slice, each
    cut into blocks that differ by one row at most.
    """
    whole, rest = divmod(min(sizes.batch, sizes.rows), sizes.slice)
    return whole * -(-sizes.slice // ranks) + -(-rest // ranks)


class Model:
    """Predicts the steps of a job from its calibration."""

    def __init__(self, calibration: Calibration) -> None:
        self.calibration = calibration
        self.curves = curves(calibration.steps)

    def pattern(self, contestant: Contestant) -> Pattern:
        """Return what the ranks of a contestant pass; of compressions only the job's is known."""
        c = self.calibration
        plain = STRATEGIES[contestant.strategy](c.sizes, contestant.every)
        if not contestant.compression:
            return plain
        assert contestant.compression == c.compression, "only the job's own was measured"
        return plain.compressed(c.compressed, c.sizes.itemsize * c.sizes.parameters)

    def predict(
        self, contestant: Contestant, ranks: int, threads: int = 0, on_node: int = 0
    ) -> Prediction | None:
        """Return a prediction; None where what it needs is not known.

        threads: of each rank, 0 for the fastest number up to those as started; on_node: ranks
        that share a node, 0 for as many as there are.
        """
        place = place_of(ranks, on_node or self.calibration.ranks_on_node)
        pattern = self.pattern(contestant)
        if not is_known(pattern, self.calibration.wires, place):
            return None
        most = self.calibration.threads
        allowed = [threads] if threads else [each for each in self.curves if each <= most]
        found = [self._on(contestant, ranks, place, count) for count in allowed]
        return min(found, key=lambda each: each.step)

    def _on(self, contestant: Contestant, ranks: int, place: Place, threads: int) -> Prediction:
        sizes, curve = self.calibration.sizes, self.curves[threads]
        pattern = self.pattern(contestant)
        own = pattern.own
        rows = largest_share(sizes, 1 if own else ranks)
        parts = self._parts(contestant, ranks, place, curve)
        batch = min(sizes.batch, sizes.rows) * (ranks if own else 1)
        alone = self._alone(curve)
        return Prediction(
            contestant=contestant,
            ranks=ranks,
            nodes=place.nodes,
            threads=threads,
            rows=rows,
            step=parts.seconds,
            parts=parts,
            samples=batch / parts.seconds,
            epoch=sizes.rows * parts.seconds / batch,
            bytes=pattern.bytes(ranks) * -(-sizes.rows // batch),
            efficiency=batch / parts.seconds / ranks * alone / min(sizes.batch, sizes.rows),
        )

    def _alone(self, curve: Curve) -> float:
        """Return the seconds of a step on one rank."""
        c = self.calibration
        return c.freely * curve.seconds(largest_share(c.sizes, 1)) + c.loop

    def _parts(self, contestant: Contestant, ranks: int, place: Place, curve: Curve) -> Parts:
        c = self.calibration
        pattern = self.pattern(contestant)
        divided = 1 if pattern.own else ranks
        rows = largest_share(c.sizes, divided)
        freely = c.freely if ranks == 1 or pattern.meets > 1 else 1.0
        step = curve.seconds(rows)
        waiting = 0.0
        if ranks > 1 and not pattern.own and not math.isinf(pattern.meets):
            waited = min(ranks, pattern.among or ranks)
            waiting = (curve.seconds(rows, waited) - step) / math.sqrt(pattern.meets)
        update = min(c.update, step)
        shared = freely * (curve.seconds(largest_share(c.sizes, 1)) - update) / divided
        computed = freely * max(0.0, step - update)
        if pattern.shares_update and c.sizes.elementwise:
            update /= place.on_node
        more = c.coding * pattern.coded if ranks > 1 else 0.0
        if ranks > 1 and pattern.meets > 1:
            more += c.meeting / pattern.meets
        cost = self._cost(pattern, place, computed)
        return Parts(
            shared=min(shared, computed),
            small=max(0.0, computed - shared),
            update=freely * update + c.loop + more,
            waiting=waiting,
            node=cost.node,
            latency=cost.latency,
            bandwidth=cost.bandwidth,
        )

    def _cost(self, pattern: Pattern, place: Place, arithmetic: float) -> Cost:
        """Return what ranks pass costs beside so many seconds of arithmetic."""
        c = self.calibration
        whole = cost_of(pattern, c.wires, place)
        if c.overlap is None or place.on_node > 1:
            return whole
        gradient = cost_of(pattern, c.wires, place, GRADIENT)
        return whole.plus(gradient, -1.0).plus(c.overlap.exposed(gradient, arithmetic))

    def table(self, contestants: Iterable[Contestant], ranks: Sequence[int]) -> list[Prediction]:
        """Return all predictions that can be made."""
        found = (self.predict(each, count) for each in contestants for count in ranks)
        return [each for each in found if each is not None]

    def shapes(self, cores: int) -> list[Prediction]:
        """Return synchronous training on so many cores, as ranks of each number of threads that
        was measured, the fastest first.
        """
        found = []
        here = min(cores, self.calibration.cores_of_node)
        for threads in self.curves:
            if threads <= here and cores // threads:
                on_node = max(1, here // threads)
                each = self.predict(Contestant("synchronous"), cores // threads, threads, on_node)
                found += [each] if each is not None else []
        return sorted(found, key=lambda each: each.epoch)
