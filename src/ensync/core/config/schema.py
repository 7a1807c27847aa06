"""Every setting of a job file, declared once: name, type, default, meaning. The help, the checks
and the dump come from here.
"""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from ensync.core.config.communication import Communication
from ensync.core.config.layers import Positive, Rate, Section
from ensync.core.config.losses import LOSSES
from ensync.core.config.network import NetworkSettings
from ensync.core.config.optimizers import Optimizer
from ensync.core.config.parallel import Parallel, obstacles, uneven
from ensync.core.config.schedules import Growth, Lookahead, Plateau, Schedule
from ensync.core.config.strategies import STRATEGIES
from ensync.core.config.study import Study
from ensync.core.config.tables import only
from ensync.core.fusion import FUSIONS

if TYPE_CHECKING:
    FusionName = str
    LossName = str
    StrategyName = str
else:
    FusionName = Literal[tuple(FUSIONS)]
    LossName = Literal[tuple(LOSSES)]
    StrategyName = Literal[tuple(STRATEGIES)]


class Data(Section):
    """Where the prepared dataset lies and how its pixels reach the network."""

    path: Annotated[str, Field(min_length=1)] = Field(
        description="the HDF5 file that `ensync data prepare` wrote"
    )
    normalization: Literal["standard", "unit", "signed", "none"] = Field(
        "standard",
        description="standard: (pixel - mean) / std of each channel of the training set; unit: "
        "pixel / 255; signed: pixel / 127.5 - 1; none: 0..255",
    )
    placement: Literal["auto", "memory", "stream"] = Field(
        "auto",
        description="memory: one uint8 copy per node, shared by its ranks; stream: read block by "
        "block in a windowed shuffle; auto: memory where it fits",
    )
    validation_seed: Annotated[int, Field(ge=0)] = Field(
        0,
        description="draw the validation images anew, from them and the training images together, "
        "as many and with the classes in proportion; means and deviations stay those of the "
        "training images as prepared; 0: the split as prepared",
    )


class Training(Section):
    """The loop: strategy, length, batch, loss, and when to stop."""

    strategy: StrategyName = Field(
        "synchronous",
        description="; ".join(f"{name}: {each.help}" for name, each in STRATEGIES.items()),
    )
    epochs: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        10, description="passes over the training rows of a network"
    )
    max_steps: Annotated[int, Field(ge=0)] = Field(
        0,
        description="end the training of each network after so many steps, those before members "
        "part included, in place of epochs: the schedule spans these steps, and the last epoch may "
        "be part of one; 0: train all epochs",
    )
    batch: Positive | Literal["full"] = Field(
        64,
        description="samples behind one step of one network, over all its ranks; 1: a step per "
        "sample; full: one step per epoch",
    )
    seed: Annotated[int, Field(ge=0)] = Field(
        1, description="of start weights, order, dropout and shards"
    )
    loss: LossName = Field(
        "cross_entropy",
        description="; ".join(f"{name}: {spec.help}" for name, spec in LOSSES.items()),
    )
    targets: tuple[float, float] = Field(
        (0.0, 1.0),
        description=f"{only(LOSSES, 'targets')}: targets of the wrong and of the right output",
    )
    label_smoothing: Rate = Field(
        0.0,
        description=f"{only(LOSSES, 'label_smoothing')}: share of the target spread over "
        "all classes",
    )
    slice: Positive = Field(
        512,
        description="samples that go through the network at once, over all its ranks; gradients "
        "of larger batches are added up slice by slice "
        "(gradient accumulation), and batch normalisation sees one slice at a time",
    )
    weight_average: Rate = Field(
        0.0,
        description="share of the old average kept at each step in an exponential moving average "
        "of the weights, which is then validated and tested, "
        "with statistics of batch normalisation that are estimated for it from 2,048 training "
        "rows after each epoch (PyTorch's update_bn); 0: none",
    )
    precision: Literal["float32", "bf16", "float64"] = Field(
        "float32",
        description="of parameters and arithmetic; bf16: parameters, their gradients and sums in "
        "float32, the operands of convolutions and what lies between "
        "layers rounded to 8 bits, where the CPU has AVX512-BF16; float64 is for tests",
    )
    threads: Annotated[int, Field(ge=0)] = Field(
        0,
        description="numba threads per rank; 0: the cores of this rank, from its affinity mask "
        "and the ranks beside it, "
        "and fewer of them while steps are faster so, as beside other busy programs",
    )
    early_stopping: Annotated[int, Field(ge=0)] = Field(
        0,
        description="stop a network after so many epochs without a better validation loss; 0: "
        "never",
    )
    best_weights: bool = Field(
        False,
        description="test each network with the parameters, or their average, of its best "
        "validation epoch",
    )
    deterministic: bool = Field(
        False,
        description="the same bits of every network (of an ensemble: of each of "
        "ensemble.members) on any number of ranks and threads: each batch is cut into "
        "virtual_shards, computed one by one and added along a fixed tree. Costs speed, since a "
        "shard has few rows, and memory of up to five "
        "gradients; the ranks send as much as without it, half as much more where some hold two "
        "branches of the tree (3 ranks of 8 shards)",
    )
    virtual_shards: Positive = Field(
        8,
        description="deterministic: parts of each batch, at least as many as ranks train one "
        "network, best a multiple of them; another number gives other bits",
    )
    watchdog: Annotated[float, Field(ge=0)] = Field(
        600.0,
        description="seconds in which no rank gets on (a step, a part of an evaluation, a file; "
        "compiling does not count) after which the job says who waits for whom and ends; 0: never",
    )
    check_replicas: Annotated[int, Field(ge=0)] = Field(
        0, description="compare the replicas by hash every so many epochs; 0: only at the end"
    )

    @property
    def dtype(self) -> str:
        """The type of parameters and values, as numpy names it."""
        return "float32" if self.precision == "bf16" else self.precision


class Augmentation(Section):
    """Random changes of the training images, drawn anew for each image and epoch."""

    flip: bool | Literal["alternating"] = Field(
        False,
        description="mirror left to right; true: an image in every other epoch, at random; "
        "alternating: at random in the first epoch, and from then on in every other one, so that "
        "two epochs show each image both ways (Jordan 2024)",
    )
    crop: Annotated[int, Field(ge=0)] = Field(
        0, description="move by up to so many pixels within a frame of crop_edge"
    )
    random_crop: Annotated[int, Field(ge=0)] = Field(
        0,
        description="side of the square that is cut out of each image, which is what the network "
        "sees: at a random place of the image and the frame of crop while training, else in the "
        "middle; 0: the whole image",
    )
    crop_edge: Literal["zeros", "reflect"] = Field(
        "zeros",
        description="what the frame of crop shows; zeros: black; reflect: the image mirrored at "
        "its outermost pixels (PyTorch's pad of that name)",
    )
    shift: Rate = Field(
        0.0,
        description="move by up to this share of height and width, between pixels; the edge is "
        "repeated",
    )
    rotation: Annotated[float, Field(ge=0, le=180)] = Field(
        0.0, description="turn by up to so many degrees; the edge is repeated"
    )
    cutout: Annotated[int, Field(ge=0)] = Field(0, description="side of a square set to the mean")
    erasing: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0,
        description="share of images with a rectangle of any shape set to the mean (random "
        "erasing)",
    )
    colour_noise: Annotated[float, Field(ge=0)] = Field(
        0.0,
        description="add a random colour to each image: the sum of p_i a_i l_i, with p_i and l_i "
        "the eigenvectors and eigenvalues of the covariance of red, green and blue in the first "
        "5,000 training images, pixels as 0..1, and a_i drawn from a normal distribution of this "
        "deviation (Krizhevsky et al. 2012, section 4.1: 0.1); before data.normalization; 0: not",
    )
    mixup: Annotated[float, Field(ge=0)] = Field(
        0.0,
        description="mix each image with another of its batch (MixUp), whose share is drawn for "
        "each step from Beta(mixup, mixup), and the losses by both labels by the same shares; "
        "train accuracy goes by the label of the larger share; 0: not",
    )
    cutmix: Annotated[float, Field(ge=0)] = Field(
        0.0,
        description="the same with a rectangle cut from the other image, of an area drawn from "
        "Beta(cutmix, cutmix) (CutMix); beside mixup each step does one of the two, evenly; 0: not",
    )
    epochs: Annotated[int, Field(ge=0)] = Field(
        0,
        description="after so many epochs images are only flipped, if at all, to end on images "
        "like those of the test; 0: never",
    )

    def of_epoch(self, epoch: int) -> "Augmentation":
        """Return the changes of an epoch, counted from 0."""
        return Augmentation(flip=self.flip) if 0 < self.epochs <= epoch else self

    def of_one(self) -> "Augmentation":
        """Return the changes of an image by itself."""
        if not (self.mixup or self.cutmix):
            return self
        return self.model_copy(update={"mixup": 0.0, "cutmix": 0.0, "epochs": 0})


class Evaluation(Section):
    """How a network is tested."""

    augmentation: Literal["none", "mirror", "mirror_shift", "ten_views"] = Field(
        "none",
        description="test with the mean of a network's outputs (before the softmax) over views of "
        "each image; mirror: it and its mirror image; mirror_shift: these, and by half the mean "
        "over it moved by a pixel up and left and down and right, edges reflected, each also "
        "mirrored: six views, six times the work (Jordan 2024); ten_views: the four corners and "
        "the middle of the image, each of the size of augmentation.random_crop and also mirrored, "
        "and the mean of their probabilities (after the softmax): ten times the work (Krizhevsky "
        "et al. 2012). Validation takes the image alone, or its middle",
    )
    exit_threshold: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None,
        description="an image leaves a network at its first exit (a layer of kind 'exit') whose "
        "answer has at least this confidence, and later layers do not compute it, in validation "
        "and predictions, too; left out: all go to the end. A test shows accuracy and arithmetic "
        "for several thresholds",
    )
    exit_confidence: Literal["probability", "entropy"] = Field(
        "probability",
        description="probability: the largest one of an answer; entropy: 1 - entropy / "
        "ln(classes) of it",
    )


class Ensemble(Section):
    """Members: how many, on which rows, from which start."""

    members: Annotated[int, Field(ge=0)] = Field(
        0,
        description="networks; 0: one per rank; fewer than ranks: groups train one member "
        "together; more: ranks take turns",
    )
    data: Literal["shards", "bootstrap", "full", "label_skew"] = Field(
        "shards",
        description="shards: disjoint; bootstrap: as many rows as there are, drawn with "
        "replacement; full: everything; label_skew: disjoint, classes uneven",
    )
    skew: Annotated[float, Field(gt=0)] = Field(
        0.5, description="label_skew: Dirichlet concentration; smaller is more uneven"
    )
    start: Literal["own", "shared", "synchronous"] = Field(
        "own",
        description="own: each member its start weights; shared: the same for all; synchronous: "
        "trained together for synchronous_epochs first",
    )
    synchronous_epochs: Positive = Field(
        1, description="start = synchronous: epochs trained as one network before the members part"
    )


class Fusion(Section):
    """How rank 0 makes one prediction of the members'."""

    method: FusionName = Field(
        "soft_voting", description="; ".join(fusion.help for fusion in FUSIONS.values())
    )


class Checkpoint(Section):
    """What is kept on disk while training."""

    every_epochs: Annotated[int, Field(ge=0)] = Field(
        1, description="0: only at the end and on a signal"
    )
    every_steps: Annotated[int, Field(ge=0)] = Field(
        0,
        description="also after so many steps within an epoch (of one sample each: at the next "
        "multiple of 1,024); 0: never",
    )
    keep: Positive = Field(
        2, description="newest checkpoints kept; the best epoch's is kept besides"
    )


class Output(Section):
    """Where results go."""

    directory: Annotated[str, Field(min_length=1)] = Field(
        description="of the run: job.toml, history.jsonl, checkpoints/, result.json"
    )
    profile: bool = Field(
        False,
        description="note where the time of steps goes, by rank and layer: a table at the end, and "
        "profile.json, which chrome://tracing and ui.perfetto.dev show. It holds up to 256 evenly "
        "spaced steps since the program started; of a killed one there is none",
    )
    tensorboard: bool = Field(
        False,
        description="write event files for TensorBoard into the run's directory, a curve for each "
        "member, by the package tensorboardX",
    )
    callbacks: list[Annotated[str, Field(min_length=1)]] = Field(
        [],
        description="what is told of each epoch, as 'MODULE:CLASS' of a class derived from "
        "ensync.Callback, on Python's path or in the current directory. Its code runs: resume no "
        "run of strangers that names any",
    )


class Job(Section):
    """A whole experiment."""

    data: Data
    augmentation: Augmentation = Augmentation()
    network: NetworkSettings = NetworkSettings()
    training: Training = Training()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    plateau: Plateau = Plateau()
    lookahead: Lookahead = Lookahead()
    growth: Growth = Growth()
    communication: Communication = Communication()
    parallel: Parallel = Parallel()
    evaluation: Evaluation = Evaluation()
    ensemble: Ensemble = Ensemble()
    fusion: Fusion = Fusion()
    checkpoint: Checkpoint = Checkpoint()
    output: Output
    study: Study | None = None

    @model_validator(mode="after")
    def _local(self) -> "Job":
        """Refuse what supposes equal replicas after every step, where they are not."""
        if self.communication.is_local:
            for given, why, action in (
                (
                    "training.deterministic = true" * self.training.deterministic,
                    "as many replicas as ranks decide the result of a run with such meetings",
                    "leave training.deterministic out",
                ),
                (
                    f"training.weight_average = {self.training.weight_average}"
                    * (self.training.weight_average > 0),
                    "a moving average follows one network from step to step",
                    "set training.weight_average = 0",
                ),
                (
                    f"lookahead.every_steps = {self.lookahead.every_steps}"
                    * (self.lookahead.every_steps > 0),
                    "communication.outer_learning_rate = 0.5 is lookahead over all ranks",
                    "set lookahead.every_steps = 0",
                ),
            ):
                if given:
                    raise ValueError(
                        f"{given} with replicas that differ between meetings ({why})"
                        "|communication.every = 1 with all ranks and without an outer step"
                        f"|{action}, or change [communication]"
                    )
        return self

    @model_validator(mode="after")
    def _compressed(self) -> "Job":
        """Refuse to round off what is to have the same bits on any number of ranks."""
        if self.training.deterministic and self.communication.compresses:
            raise ValueError(
                "training.deterministic = true with communication.compression = "
                f"'{self.communication.compression}' (what is rounded off depends on the number "
                "of ranks)|sums of every digit|leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _served(self) -> "Job":
        """Refuse what has no place beside a server of parameters."""
        others = {f"communication.{k}": v for k, v in self.communication.beside_server.items()}
        others |= {
            "training.deterministic": self.training.deterministic,
            "training.weight_average": self.training.weight_average,
            "lookahead.every_steps": self.lookahead.every_steps,
        }
        given = next((f"{name} = {value!r}" for name, value in others.items() if value), "")
        if self.communication.is_served and given:
            raise ValueError(
                f"communication.server = '{self.communication.server}' with {given}"
                "|ranks that push a gradient in each step, and that alone|leave one of the two out"
            )
        return self

    @model_validator(mode="after")
    def _by_speed(self) -> "Job":
        """Refuse parts by speed where they would change what is trained."""
        c = self.communication
        own = self.network.batch_norm == "local" or c.is_local or c.is_served
        for found, given, expected, action in (
            (
                self.training.deterministic,
                "training.deterministic = true",
                "bits that do not depend on how fast a rank is",
                "leave one of the two out",
            ),
            (
                own and self.network.has("batch_normalization"),
                "batch normalisation over the rows of each rank",
                "statistics that do not depend on how fast a rank is",
                "set network.batch_norm = 'synchronised' and meet in every step, or leave "
                "communication.shares out",
            ),
        ):
            if found and c.by_speed:
                raise ValueError(f"communication.shares = 'speed' with {given}|{expected}|{action}")
        return self

    @model_validator(mode="after")
    def _spread(self) -> "Job":
        """Refuse what needs a whole network on each rank, where there is none."""
        if self.parallel.ranks > 1:
            name, p = self.parallel.setting, self.parallel
            for given, why, action in obstacles(self):
                raise ValueError(
                    f"{given} with {name} = {p.stages if p.stages > 1 else p.model} ({why})"
                    f"|{name} = 1, where each rank holds whole networks|{action}, or set "
                    f"{name} = 1"
                )
        if why := uneven(self):
            raise ValueError(why)
        return self

    def slice_of(self, batch: int) -> int:
        """Return how many samples of a batch go through the layers at once."""
        return min(self.training.slice, self.parallel.at_once(batch))

    @model_validator(mode="after")
    def _together(self) -> "Job":
        """Refuse settings that contradict each other."""
        apart = STRATEGIES[self.training.strategy].ensemble and self.ensemble.start == "own"
        if apart and FUSIONS[self.fusion.method].of_parameters:
            raise ValueError(
                f"fusion.method = '{self.fusion.method}' with ensemble.start = 'own'"
                "|members with a common start, since the mean of unrelated weights is no network"
                "|set ensemble.start = 'shared' or 'synchronous', or choose a voting method"
            )
        if self.augmentation.cutout and self.augmentation.erasing:
            raise ValueError(
                "augmentation.cutout with augmentation.erasing|one way to blank a part of an "
                "image|set one of them to 0"
            )
        if self.network.has("exits") and not LOSSES[self.training.loss].of_logits:
            raise ValueError(
                f"training.loss = '{self.training.loss}' with a layer of kind 'exit'"
                "|'cross_entropy', of whose probabilities an exit is more or less sure"
                "|leave one of the two out"
            )
        if LOSSES[self.training.loss].of_logits and self.network.output_activation not in (
            "auto",
            "softmax",
        ):
            raise ValueError(
                f"network.output_activation = '{self.network.output_activation}' with "
                f"training.loss = '{self.training.loss}'"
                "|softmax outputs, whose logarithm the loss takes"
                "|leave output_activation at 'auto' or choose a squared error"
            )
        return self
