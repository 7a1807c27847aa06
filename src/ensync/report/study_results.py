"""What a study found: the schema of study.json, version 1.

A study trains contestants on several numbers of ranks with several seeds; each such training is a
cell. `StudyResult` is made from the cells alone, and everything that is shown of a study from it.
Shares (accuracies, differences of them) are of 1, log-likelihoods in nats for an image (higher is
better), Brier scores and calibration errors lower is better. Intervals hold 95 %. A figure that is
missing is None; `to_json` and `from_json` of `results` are the way there and back.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ensync.report.results import DatasetFacts, Machine, Settings


@dataclass(frozen=True, slots=True)
class Range:
    """The ends of a 95 % interval."""

    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """A figure over seeds, in the order of the contestant's seeds: mean, standard deviation and
    Student's t interval of the mean, which one seed alone does not have.
    """

    mean: float | None
    sd: float | None = None
    interval: Range | None = None
    values: list[float | None] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """The test accuracy of a contestant: mean and standard deviation over seeds, and both
    intervals of the mean.

    on_these_images: Student's t over seeds, blind to which images were drawn for the test;
    on_new_images: knows the variance of seeds, of images and of both together.
    """

    mean: float
    sd: float | None = None
    values: list[float] = field(default_factory=list)
    on_these_images: Range | None = None
    on_new_images: Range | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """How good the probabilities are; ece: expected calibration error, 15 bins of equal mass."""

    log_likelihood: Spread
    brier: Spread
    ece: Spread


@dataclass(frozen=True, slots=True, kw_only=True)
class FusionOutcome:
    """What a fusion of the members reached, or in `refused` why it makes no sense here.

    note: what was chosen or left out on the way.
    """

    name: str
    label: str
    accuracy: Spread | None = None
    log_likelihood: Spread | None = None
    refused: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeFigures:
    """Soft voting of so many of the members: mean and standard deviation over subsets, averaged
    over seeds; of more than there are, only what the power law predicts.

    log_likelihood: calibrated; predicted: the same by the power law.
    """

    members: int
    accuracy: float | None = None
    sd: float | None = None
    log_likelihood: float | None = None
    predicted: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberFigures:
    """What the members of a contestant are like, each but `accuracies` a spread over seeds.

    accuracies: of each member, mean over seeds; disagreement: share of images on which two members
    predict differently, mean over pairs; double_fault: share on which two are both wrong; oracle:
    share on which at least one is right; member_loss - fused_loss = ambiguity, the loss that soft
    voting saves (cross entropy); equivalent: how many single networks trained on all data equal
    the fused one in log-likelihood.
    """

    accuracies: list[float | None] = field(default_factory=list)
    disagreement: Spread | None = None
    double_fault: Spread | None = None
    oracle: Spread | None = None
    member_loss: Spread | None = None
    fused_loss: Spread | None = None
    ambiguity: Spread | None = None
    equivalent: float | None = None
    equivalent_note: str = ""
    by_size: list[SizeFigures] = field(default_factory=list)
    fitted_on: list[int] = field(default_factory=list)  # sizes that the power law was fitted on


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityBin:
    """Images of about the same confidence, over all seeds; share: of all images."""

    confidence: float
    accuracy: float
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WorstClass:
    """The class with the smallest recall, mean over seeds."""

    name: str
    recall: Spread


@dataclass(frozen=True, slots=True, kw_only=True)
class TopKSpread:
    """Share of images whose label is among the k likeliest."""

    k: int
    accuracy: Spread


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a contestant took, means over seeds; packed: other cells ran beside it, oversubscribed:
    more threads than cores. Either makes its seconds no measure.

    seconds: training and validation; core_seconds: seconds x ranks x threads; samples: of all
    networks; bytes_sent: by all ranks, bytes_per_sample: these for each sample; seconds_to_target:
    until the target of the budget, None where it was not reached.
    """

    seconds: Spread | None = None
    core_seconds: Spread | None = None
    samples: float | None = None
    steps: float | None = None
    bytes_sent: float | None = None
    bytes_per_sample: Spread | None = None
    seconds_to_target: list[float | None] = field(default_factory=list)
    packed: bool = False
    oversubscribed: bool = False

    @property
    def timed(self) -> bool:
        """Whether its seconds can be compared with those of others."""
        return self.seconds is not None and not (self.packed or self.oversubscribed)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContestantResult:
    """A contestant on one number of ranks, over its seeds.

    together: whether all ranks train one network; fusion: the method of its job, which its figures
    are of; parameters: of one network; confusion: counts of all seeds, row = true class, none of
    above 200 classes; staleness: gradients of all seeds by the steps that their network was behind,
    where there is a server.
    """

    name: str
    label: str
    ranks: int
    threads: int
    together: bool
    members: int
    parameters: int
    fusion: str
    seeds: list[int]
    learning_rate_factor: float = 1.0
    accuracy: Accuracy
    validation_accuracy: Spread | None = None
    scores: Scores | None = None
    calibrated: Scores | None = None  # by the temperature, fitted on validation after pooling
    temperature: Spread | None = None
    macro_f1: Spread | None = None
    worst_class: WorstClass | None = None
    top_k: TopKSpread | None = None
    cost: Cost = field(default_factory=Cost)
    fusions: list[FusionOutcome] = field(default_factory=list)
    member_figures: MemberFigures | None = None  # None of one network
    reliability: list[ReliabilityBin] = field(default_factory=list)
    reliability_calibrated: list[ReliabilityBin] = field(default_factory=list)
    confusion: list[list[int]] = field(default_factory=list)
    staleness: list[int] = field(default_factory=list)
    excluded: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def key(self) -> str:
        """Its name in pairs: "ensemble_full@4"."""
        return f"{self.name}@{self.ranks}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedTest:
    """McNemar's exact test of the two networks of one seed."""

    seed: int
    only_first: int
    only_second: int
    p_value: float


@dataclass(frozen=True, slots=True)
class Deviations:
    """What a difference consists of: standard deviations of an image's, a seed's and both's part in
    the difference of one answer, right or wrong.
    """

    image: float | None
    seed: float | None
    interaction: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PairResult:
    """Two contestants over the seeds that both have; differences are first - second in test
    accuracy, `sd` their standard deviation over seeds.

    better: P(first > second) over seeds, ties half; p_these, p_value: of no difference on these
    test images, on new images; p_holm: the latter adjusted for all pairs of the study; corrected:
    Nadeau and Bengio's interval of the difference in validation accuracy, where the validation
    images are redrawn for each seed; verdict: "first", "second", "equal" or "unknown", for this
    pair alone; seeds_needed: seeds in all that would tell, None where no number of them would.
    """

    first: str
    second: str
    ranks: int
    seeds: list[int]
    difference: float
    sd: float | None = None
    deviations: Deviations | None = None
    on_these_images: Range | None = None
    on_new_images: Range | None = None
    better: float | None = None
    better_interval: Range | None = None
    p_these: float | None = None
    p_value: float | None = None
    p_holm: float | None = None
    corrected: Range | None = None
    mcnemar: list[SeedTest] = field(default_factory=list)
    verdict: str = "unknown"
    seeds_needed: int | None = None


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A cell or a contestant that has no part in the figures, and why."""

    what: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyPlan:
    """plan.json in the directory of a study: what was asked for, of which cells tell nothing.

    job: with its section [study]; cores: that all ranks together may use, None where it is not
    known; cells: the names of all cells that make results; left_out: a sentence for each contestant
    and rank count that is not trained.
    """

    format: str = "ensync-study-plan"
    version: int = 1
    job: Settings
    class_names: list[str] = field(default_factory=list)
    cores: int | None = None
    cells: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredBudget:
    """What all contestants were given alike, as declared before the study; amount: seconds or
    validation accuracy, where the budget has one.
    """

    name: str
    sentence: str
    amount: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyAxis:
    """The setting whose values are contestants ("communication.every"), and its values by the names
    of these, in the order of the job.
    """

    setting: str
    values: dict[str, object]

    @property
    def key(self) -> str:
        """The setting without its section: "every"."""
        return self.setting.rpartition(".")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictedTimes:
    """Seconds that `ensync scale` predicts for all steps of contestants on so many nodes, by their
    names. latency, bandwidth: of the link between nodes, seconds and bytes a second.
    """

    nodes: int
    seconds: dict[str, float]
    latency: float
    bandwidth: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyResult:
    """study.json. practically_equal: in points of accuracy; code: digest of the sources that
    trained the cells; trials: learning rates tried for each contestant; over: None where no setting
    makes contestants.
    """

    format: str = "ensync-study"
    version: int = 1
    created: str = ""
    job: Settings
    budget: DeclaredBudget
    practically_equal: float = 0.3
    redraw_validation: bool = False
    trials: int = 1
    over: StudyAxis | None = None
    predicted: list[PredictedTimes] = field(default_factory=list)
    dataset: DatasetFacts = field(default_factory=DatasetFacts)
    machine: Machine = field(default_factory=Machine)
    versions: dict[str, str] = field(default_factory=dict)
    code: str = ""
    class_names: list[str] = field(default_factory=list)
    cells_done: int = 0
    cells_left: int = 0
    contestants: list[ContestantResult] = field(default_factory=list)
    pairs: list[PairResult] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the page."""
        from ensync.report.page import framed
        from ensync.report.study_page import study_page

        return framed(study_page(self))

    @property
    def ranks(self) -> list[int]:
        """The numbers of ranks that contestants ran on, ascending."""
        return sorted({each.ranks for each in self.contestants})

    def by_key(self, key: str) -> ContestantResult:
        """Return a contestant by its name in pairs. Errors: KeyError when there is none."""
        for each in self.contestants:
            if each.key == key:
                return each
        raise KeyError(key)

    def pair(self, first: str, second: str) -> PairResult | None:
        """Return the pair of two contestants by their names in pairs, the first one first; None
        when they were not compared.
        """
        for each in self.pairs:
            if (each.first, each.second) == (first, second):
                return each
            if (each.first, each.second) == (second, first):
                return turned(each)
        return None


def turned(pair: PairResult) -> PairResult:
    """Return a pair with its second contestant first."""
    other = {"first": "second", "second": "first"}
    return replace(
        pair,
        first=pair.second,
        second=pair.first,
        difference=-pair.difference,
        on_these_images=_mirrored(pair.on_these_images, 0.0),
        on_new_images=_mirrored(pair.on_new_images, 0.0),
        better=None if pair.better is None else 1 - pair.better,
        better_interval=_mirrored(pair.better_interval, 1.0),
        corrected=_mirrored(pair.corrected, 0.0),
        mcnemar=[
            replace(each, only_first=each.only_second, only_second=each.only_first)
            for each in pair.mcnemar
        ],
        verdict=other.get(pair.verdict, pair.verdict),
    )


def _mirrored(found: Range | None, total: float) -> Range | None:
    """Return the interval of total - value."""
    if found is None:
        return None
    low, high = (None if end is None else total - end for end in (found.high, found.low))
    return Range(low, high)
