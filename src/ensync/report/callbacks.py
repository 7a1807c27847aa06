"""Callbacks: what others may do while a run trains, such as to pass its figures on to a logger.

Derive from `Callback`, and give an instance to `ensync.train(job, callbacks=[...])` or name it in
the setting output.callbacks, as "MODULE:CLASS". Rank 0 alone calls it. An error in it ends the run
on all ranks, after a checkpoint.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ensync.report import text
from ensync.report.results import RunResult, Settings


@dataclass(frozen=True, kw_only=True)
class TrainStart:
    """A run that begins to train. job: its settings by section and key; members: how many networks
    it has; epoch: how many it has behind it, 0 unless it is resumed.
    """

    directory: Path
    job: Settings
    members: int
    epoch: int

    @property
    def settings(self) -> dict[str, object]:
        """The settings by name, "section.key"."""
        return {
            f"{section}.{key}": value
            for section, values in self.job.items()
            if values is not None
            for key, value in values.items()
        }


@dataclass(frozen=True, kw_only=True)
class EpochMetrics:
    """What a member has reached at the end of an epoch; None is not known, or not finite.

    member: its number, of so many `members`; epoch: from 1; step: its updates so far; accuracies:
    shares of 1; seconds: of training in the epoch; elapsed: of the whole run so far.
    """

    member: int
    members: int
    epoch: int
    step: int
    train_loss: float | None
    train_accuracy: float | None
    validation_loss: float | None
    validation_accuracy: float | None
    learning_rate: float | None
    samples_per_second: float | None
    seconds: float | None
    elapsed: float | None

    @property
    def figures(self) -> dict[str, float]:
        """The figures that are known, by name; of several members as "member_2/train_loss"."""
        prefix = f"member_{self.member}/" if self.members > 1 else ""
        values = {name: getattr(self, name) for name in FIGURES}
        return {prefix + name: value for name, value in values.items() if not text.missing(value)}


FIGURES = (
    *("train_loss", "train_accuracy", "validation_loss", "validation_accuracy"),
    *("learning_rate", "samples_per_second", "seconds", "elapsed"),
)


def metrics_of(record: Mapping[str, object], members: int) -> EpochMetrics:
    """Return what a record of the history tells."""
    fields = {name: record.get(name) for name in ("member", "epoch", "step", *FIGURES)}
    return EpochMetrics(members=members, **fields)  # type: ignore[arg-type]


class Callback:
    """What a run calls on rank 0; each method does nothing unless it is overridden."""

    def on_train_start(self, run: TrainStart) -> None:
        """Called before the first step, also of a run that is resumed.

        >>> class Start(ensync.Callback):
        ...     def on_train_start(self, run):
        ...         print(run.directory, run.members, run.settings["training.batch"])
        >>> run = ensync.train("jobs/digits.toml", overwrite=True, quiet=True, callbacks=[Start()])
        runs/digits 1 32
        """

    def on_epoch_end(self, metrics: EpochMetrics) -> None:
        """Called for each member at the end of each epoch.

        >>> class Epoch(ensync.Callback):
        ...     def on_epoch_end(self, metrics):
        ...         print(metrics.epoch, metrics.step, sorted(metrics.figures)[:2])
        >>> run = ensync.train("jobs/digits.toml", overwrite=True, quiet=True, callbacks=[Epoch()])
        1 41 ['elapsed', 'learning_rate']
        2 82 ['elapsed', 'learning_rate']
        3 123 ['elapsed', 'learning_rate']
        """

    def on_train_end(self, result: RunResult) -> None:
        """Called once, when the run of `ensync train` or `resume` is tested.

        >>> class End(ensync.Callback):
        ...     def on_train_end(self, result):
        ...         print(result.ended, list(result.test))
        >>> run = ensync.train("jobs/digits.toml", overwrite=True, quiet=True, callbacks=[End()])
        ['all 3 epochs'] ['soft_voting']
        """

    def on_stop(self, reason: str) -> None:
        """Called in place of on_train_end where a signal or an error ends the run.

        >>> class Stop(ensync.Callback):
        ...     def on_stop(self, reason):
        ...         print("ended early:", reason)
        >>> Stop().on_stop("stopped by SIGTERM after 2 epochs")
        ended early: stopped by SIGTERM after 2 epochs
        """
