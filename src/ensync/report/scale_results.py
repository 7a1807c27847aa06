"""What `ensync scale` found: the schema of scale.json, and of what runs are compared with it."""

from __future__ import annotations

from dataclasses import dataclass, field

from ensync.core.scaling.noise import Together
from ensync.core.scaling.prediction import Calibration
from ensync.report.results import DatasetFacts, Machine, Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class StepParts:
    """Seconds of a step by what they go into, as core.scaling.prediction.Parts has them."""

    shared: float
    small: float
    update: float
    waiting: float
    node: float
    latency: float
    bandwidth: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleRow:
    """A strategy on so many ranks. every: steps between meetings, None for never; rows: the largest
    share of a batch; bytes: that all ranks pass to others in an epoch; bound: the largest part
    of the step.
    """

    strategy: str
    label: str
    every: float | None
    ranks: int
    nodes: int
    threads: int
    rows: int
    step_seconds: float
    samples_per_second: float
    efficiency: float
    epoch_seconds: float
    epoch_bytes: float
    bound: str
    parts: StepParts


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleLimit:
    """How far more ranks of a strategy pay, as core.scaling.prediction.Limit has it; most: the most
    that were asked for.
    """

    label: str
    fastest: int
    reason: str
    worthwhile: int
    loss: str
    most: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleShape:
    """Synchronous training on so many cores as ranks of so many threads."""

    cores: int
    ranks: int
    threads: int
    step_seconds: float
    epoch_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleNoise:
    """The gradient noise scale in samples with its 95 % interval, None where the gradient cannot be
    told from noise. steps: it is the mean of so many, whose batches were cut into `parts` of
    `rows` samples.
    """

    scale: float | None
    low: float
    high: float | None
    steps: int
    parts: int
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleResult:
    """scale.json. unknown: what could not be predicted, and why, in sentences; seconds: that the
    measuring took. together: for each number of ranks that train one network, the batch that
    reaches the same loss soonest, by the noise scale.
    """

    format: str = "ensync-scale"
    version: int = 1
    job: Settings
    calibration: Calibration
    rows: list[ScaleRow]
    limits: list[ScaleLimit] = field(default_factory=list)
    shapes: list[ScaleShape] = field(default_factory=list)
    noise: ScaleNoise | None = None
    together: list[Together] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    seconds: float = 0.0
    created: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    machine: Machine = field(default_factory=Machine)
    dataset: DatasetFacts = field(default_factory=DatasetFacts)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckRow:
    """A run beside its prediction: seconds of a step, and bytes that all ranks passed.

    error: of the prediction, as a share of what was measured.
    """

    run: str
    label: str
    ranks: int
    nodes: int
    threads: int
    predicted: float
    measured: float
    error: float
    predicted_bytes: float
    measured_bytes: int | None = None
