"""Event files for TensorBoard (output.tensorboard): a curve for each member."""

from pathlib import Path
from typing import Any

from ensync.core.errors import EnsyncError
from ensync.report import text
from ensync.report.callbacks import Callback, EpochMetrics, TrainStart
from ensync.report.page import toml_of
from ensync.report.results import FusionFigures, RunResult

NAME = "tensorboard"  # of the directory in the run's
MOST_MEMBERS = 128  # each has a file, and a thread that writes it
TAGS = {
    "train_loss": "loss/train",
    "validation_loss": "loss/validation",
    "train_accuracy": "accuracy/train",
    "validation_accuracy": "accuracy/validation",
    "learning_rate": "training/learning_rate",
    "samples_per_second": "training/images_per_second",
}


class TensorBoard(Callback):
    """Writes event files into the directory `tensorboard` of the run: scalars over epochs, of
    several members each in a directory of its own, and the job as text.

    Errors: EnsyncError where tensorboardX is not installed.
    """

    def __init__(self) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise EnsyncError(
                f"output.tensorboard = true without the package tensorboardX ({error})",
                "what writes event files",
                "install it with `pip install 'ensync[tensorboard]'`, or leave the setting out",
            ) from None
        self._make = SummaryWriter
        self._writers: dict[str, Any] = {}

    def on_train_start(self, run: TrainStart) -> None:
        """Open the files. Epochs that a resumed run trains again replace those of before."""
        if run.members > MOST_MEMBERS:
            raise EnsyncError(
                f"output.tensorboard = true with {run.members} members",
                f"at most {MOST_MEMBERS}, each of which has a file of its own",
                "leave it out; history.jsonl has all figures",
            )
        self._directory, self._epoch = run.directory / NAME, run.epoch
        self._last = run.epoch
        job = "\n".join(f"    {line}" for line in toml_of(run.job).splitlines())
        self._writer("").add_text("job", job, run.epoch)
        self._flush()

    def _writer(self, name: str) -> Any:
        """Return what writes into a directory below the run's own."""
        if name not in self._writers:
            path = Path(self._directory, name)
            purged = self._epoch + 1 if self._epoch else None
            self._writers[name] = self._make(str(path), purge_step=purged)
        return self._writers[name]

    def on_epoch_end(self, metrics: EpochMetrics) -> None:
        """Write the figures of an epoch."""
        writer = self._writer(f"member_{metrics.member}" if metrics.members > 1 else "")
        for name, tag in TAGS.items():
            if not text.missing(value := getattr(metrics, name)):
                writer.add_scalar(tag, value, metrics.epoch)
        writer.flush()
        self._last = max(self._last, metrics.epoch)

    def on_train_end(self, result: RunResult) -> None:
        """Write the test accuracies, of members and of their fusion, at the last epoch."""
        last, several = self._last, len(result.members) > 1
        for member, accuracy in enumerate(result.members if several else ()):
            if accuracy is not None:
                self._writer(f"member_{member}").add_scalar("accuracy/test", accuracy, last)
        for method, figures in result.test.items():
            if isinstance(figures, FusionFigures):
                tag = f"accuracy/test_{method}" if several else "accuracy/test"
                self._writer("").add_scalar(tag, figures.accuracy, last)
        self._close()

    def on_stop(self, reason: str) -> None:
        """Close the files."""
        self._close()

    def _flush(self) -> None:
        for writer in self._writers.values():
            writer.flush()

    def _close(self) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers = {}
