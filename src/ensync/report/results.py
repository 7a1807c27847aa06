"""What a run, a comparison, a cell, a sweep and a scaling found: the schema of their JSON files.

`to_json` and `from_json` are the way there and back. A figure that is missing is None. What a file
of an older version lacks takes its default, what it has besides is left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, TypeVar

from pydantic import TypeAdapter

from ensync.report.files import finite

Settings = Mapping[str, Mapping[str, object]]  # a job: values by section and key
Record = Mapping[str, Any]  # a line of history.jsonl
T = TypeVar("T")


class Contestant(StrEnum):
    """What a comparison trains, by the name of its histories."""

    ONE_RANK = "one rank"
    SYNCHRONOUS = "synchronous"
    ENSEMBLE = "ensemble"


@dataclass(frozen=True, slots=True)
class TopK:
    """Share of rows whose label is among the k likeliest."""

    k: int
    accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FusionFigures:
    """What a fusion reached on the test images; per class in order of the labels."""

    rows: int = 0
    accuracy: float
    loss: float | None = None  # of a fusion that yields probabilities
    macro_f1: float | None = None
    weighted_f1: float | None = None
    top_k: TopK | None = None
    precision: list[float] = field(default_factory=list)
    recall: list[float] = field(default_factory=list)
    f1: list[float] = field(default_factory=list)
    confusion: list[list[int]] = field(default_factory=list)  # row = true class


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitFigures:
    """What a network with exits reaches where images leave from a confidence on, None: never.

    multiply_adds: of the forward pass of an image, the mean; shares: of the images that leave at
    each exit, and at the end.
    """

    threshold: float | None
    accuracy: float
    multiply_adds: float
    shares: list[float]


@dataclass(frozen=True, slots=True)
class Refused:
    """Why members could not be fused so."""

    refused: str


@dataclass(frozen=True, slots=True)
class TestedOn:
    """The dataset of the test images; `own`: the one that the run was trained on."""

    path: str = ""
    name: str = ""
    fingerprint: str = ""
    own: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseTime:
    """Seconds of a step that go into one thing: the mean over steps and ranks, and the means of the
    ranks that have least and most of it.
    """

    name: str
    seconds: float
    least: float
    least_rank: int
    most: float
    most_rank: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTime:
    """Seconds of a step that a layer takes, the mean over steps and ranks."""

    name: str
    forward: float
    backward: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineTime:
    """For which share of its steps each stage of a network waits for others, and for which it would
    at least if all were equally fast: (stages - 1) / (micro_batches + stages - 1).
    """

    micro_batches: int
    bubble: float
    waits: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepProfile:
    """Where the time of a step goes (output.profile). The phases add up to `seconds`, of a step.

    first, last: steps of the run, between which `recorded` of `steps` that a rank did were taken,
    by each of `ranks`; left_out: recorded, but not by all ranks of a network, or too long for the
    memory that there is. clock_error: seconds by which the clocks of ranks may differ, and so a
    wait be wrong.
    """

    format: str = "ensync-step-profile"
    version: int = 1
    ranks: int
    steps: int
    recorded: int
    left_out: int = 0
    first: int
    last: int
    seconds: float
    clock_error: float = 0.0
    phases: list[PhaseTime] = field(default_factory=list)
    layers: list[LayerTime] = field(default_factory=list)
    pipeline: PipelineTime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """result.json of a run, and fusion.json; accuracies of members are None where one is left
    out. members_without_views: by the test images alone, where evaluation.augmentation adds views.
    exits: of networks that have some, the mean over members for each of several thresholds.

    created, versions, machine, profile, bytes_sent: of the training, in result.json alone; the
    bytes are those that all ranks passed to others, None where an earlier start passed more.
    staleness: gradients by the steps that their network was behind, where there is a server.
    shares: for each member the rows of a batch by rank, as in its last epoch, where they go by
    speed.
    """

    format: str = "ensync-result"
    version: int = 1
    job: Settings
    seconds: float
    test: dict[str, FusionFigures | Refused]
    members: list[float | None] = field(default_factory=list)
    members_without_views: list[float | None] = field(default_factory=list)
    exits: list[ExitFigures] = field(default_factory=list)
    excluded: dict[str, str] = field(default_factory=dict)
    validation_accuracy: list[float | None] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    dataset: TestedOn | None = None
    created: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    machine: Machine | None = None
    profile: StepProfile | None = None
    bytes_sent: int | None = None
    shares: list[list[int]] = field(default_factory=list)
    staleness: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonRow:
    """A contestant of a comparison, or one fusion of its members."""

    name: str
    strategy: str
    fusion: str | None = None
    ranks: int | None = None
    members: int | None = None
    test_accuracy: float | None = None
    test_loss: float | None = None
    macro_f1: float | None = None
    weighted_f1: float | None = None
    top_k: TopK | None = None
    seconds: float | None = None
    ended: list[str] = field(default_factory=list)
    speedup: float | None = None
    efficiency: float | None = None
    bytes_sent: int | None = None
    note: str = ""

    @property
    def contestant(self) -> Contestant:
        """What was trained for this row."""
        if self.strategy == Contestant.ENSEMBLE:
            return Contestant.ENSEMBLE
        return Contestant.ONE_RANK if self.ranks == 1 else Contestant.SYNCHRONOUS


@dataclass(frozen=True, slots=True)
class Pair:
    """How many test images only one of two rows has right."""

    rows: tuple[str, str]
    only_first: int
    only_second: int


@dataclass(frozen=True, slots=True)
class Machine:
    """Where it was measured; cores: that all ranks together may use."""

    cpu: str | None = None
    nodes: int | None = None
    ranks: int | None = None
    threads_per_rank: int | None = None
    cores: int | None = None

    @property
    def oversubscribed(self) -> bool:
        """Whether there were more threads than cores, so that seconds are no measure."""
        return is_oversubscribed(self.ranks, self.threads_per_rank, self.cores)


def is_oversubscribed(ranks: int | None, threads: int | None, cores: int | None) -> bool:
    """Return whether ranks of so many threads each have fewer cores; False where it is not
    known.
    """
    return bool(ranks and cores and ranks * (threads or 1) > cores)


@dataclass(frozen=True, slots=True)
class DatasetFacts:
    """On which images; sizes: rows by split, shape: height, width, channels."""

    name: str = ""
    path: str = ""
    sizes: dict[str, int] = field(default_factory=dict)
    shape: list[int] = field(default_factory=list)
    fingerprint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """comparison.json: histories by contestant, confusion counts by row, accuracies of the first
    1, 2, ... members by fusion.
    """

    format: str = "ensync-comparison"
    version: int = 1
    job: Settings
    created: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    machine: Machine = field(default_factory=Machine)
    dataset: DatasetFacts = field(default_factory=DatasetFacts)
    class_names: list[str] = field(default_factory=list)
    measured: list[str] = field(default_factory=list)
    rows: list[ComparisonRow]
    histories: dict[str, Sequence[Record]] = field(default_factory=dict)
    confusions: dict[str, list[list[int]]] = field(default_factory=dict)
    accuracy_by_members: dict[str, list[float | None]] = field(default_factory=dict)
    paired: list[Pair] = field(default_factory=list)

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the page."""
        from ensync.report.page import comparison_page, framed

        return framed(comparison_page(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRow:
    """What one value of the swept setting gave; test_images, validation_images: that the
    accuracies are shares of; oversubscribed: whether there were more threads than cores.
    """

    value: Any
    test_accuracy: float | None = None
    validation_accuracy: float | None = None
    seconds: float | None = None
    samples_per_second: float | None = None
    note: str = ""
    test_images: int | None = None
    validation_images: int | None = None
    oversubscribed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """sweep.json; key: the swept setting, "section.key"."""

    format: str = "ensync-sweep"
    version: int = 1
    key: str
    rows: list[SweepRow]
    job: Settings
    created: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    machine: Machine = field(default_factory=Machine)
    dataset: DatasetFacts = field(default_factory=DatasetFacts)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingRow:
    """What a run reached on its ranks; test_images: that the accuracy is a share of;
    oversubscribed: whether there were more threads than cores.
    """

    strategy: str
    ranks: int
    seconds: float
    test_accuracy: float | None = None
    speedup: float | None = None
    efficiency: float | None = None
    test_images: int | None = None
    oversubscribed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """scaling.json; job, created, versions, machine: of the run on most ranks."""

    format: str = "ensync-scaling"
    version: int = 1
    rows: list[ScalingRow]
    job: Settings = field(default_factory=dict)
    created: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    machine: Machine = field(default_factory=Machine)
    dataset: DatasetFacts = field(default_factory=DatasetFacts)

    @property
    def by_strategy(self) -> dict[str, list[ScalingRow]]:
        """The rows of each strategy."""
        names = sorted({row.strategy for row in self.rows})
        return {name: [row for row in self.rows if row.strategy == name] for name in names}


@dataclass(frozen=True, slots=True, kw_only=True)
class CellResult:
    """cell.json: what one run of a study came to; outputs.h5 beside it has what its networks
    answered.

    seed: as training.seed; trial: the number of a trial of learning rates, None for a run whose
    test counts; learning_rate_factor: times the learning rate of the job; code: sha256 of the
    package's sources; seconds: of training and validation; threads: of a rank; packed: whether
    others ran beside it; samples: trained on by all networks together; steps, parameters: of one
    network; bytes_sent: by all ranks, None where an earlier start sent more; fusion: the method
    that makes the result; validation_accuracy: fused; seconds_to_target: until it reached the
    study's target; staleness: as in RunResult; ended: why each member's training ended; excluded:
    why by member.
    """

    format: str = "ensync-cell"
    version: int = 1
    contestant: str
    label: str = ""
    ranks: int
    seed: int
    trial: int | None = None
    learning_rate_factor: float = 1.0
    job: Settings
    code: str = ""
    dataset: DatasetFacts = field(default_factory=DatasetFacts)
    versions: dict[str, str] = field(default_factory=dict)
    machine: Machine = field(default_factory=Machine)
    created: str = ""
    seconds: float
    threads: int = 1
    packed: bool = False
    samples: int = 0
    steps: int = 0
    members: int = 1
    parameters: int = 0
    bytes_sent: int | None = None
    fusion: str = ""
    validation_accuracy: float | None = None
    seconds_to_target: float | None = None
    staleness: list[int] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    excluded: dict[str, str] = field(default_factory=dict)
    note: str = ""

    @property
    def failed(self) -> bool:
        """Whether no network of it is usable, so that it has no outputs."""
        return len(self.excluded) >= self.members


Timed = TypeVar("Timed", ComparisonRow, ScalingRow)


def with_speedup(rows: Sequence[Timed], base: Timed) -> list[Timed]:
    """Return the rows with their speed-up over one rank, and efficiency, its share of the ranks.

    base: the row of one rank, or of the fewest ranks there are, whose speed-up is taken as perfect.
    """
    found = []
    for row in rows:
        if base.ranks and base.seconds and row.ranks and row.seconds:
            speedup = base.ranks * base.seconds / row.seconds
            row = replace(row, speedup=speedup, efficiency=speedup / row.ranks)
        found.append(row)
    return found


def to_json(content: object) -> str:
    """Return one of these as the text of a JSON file; floats that are not finite become null."""
    return json.dumps(finite(content), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def from_json(kind: type[T], content: object) -> T:
    """Return one of these from what a JSON file holds. Errors: ValueError where it does not fit."""
    return TypeAdapter(kind).validate_python(content)
