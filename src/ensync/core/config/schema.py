"""A whole job: its sections, declared here or in the modules beside this one, and which settings
contradict each other.

A setting is declared once, with name, type, default and meaning; help, checks and dump come from
there.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ensync.core.config.augmentation import Augmentation
from ensync.core.config.communication import Communication
from ensync.core.config.ensemble import Ensemble, Fusion
from ensync.core.config.layers import Positive, Section
from ensync.core.config.losses import LOSSES
from ensync.core.config.network import NetworkSettings
from ensync.core.config.optimizers import Optimizer
from ensync.core.config.parallel import Parallel, obstacles, uneven
from ensync.core.config.schedules import Growth, Lookahead, Plateau, Schedule
from ensync.core.config.strategies import STRATEGIES
from ensync.core.config.study import Study
from ensync.core.config.training import Training
from ensync.core.fusion import FUSIONS


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
