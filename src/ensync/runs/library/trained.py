"""`ensync.load`: a trained run, ready to classify images."""

import html
import json
import os
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from ensync.core.config.schema import Job
from ensync.core.errors import EnsyncError, plural
from ensync.core.fusion import FUSIONS, shares, winners
from ensync.mpi.world import alone
from ensync.report.history import readable_records
from ensync.report.results import FusionFigures, Record, RunResult, from_json
from ensync.runs import opening
from ensync.runs.below import directory_of, runs_below
from ensync.runs.library.history import History, learning_curves
from ensync.runs.library.tester import Tester, warn
from ensync.runs.state import has_checkpoint

LISTED = 8  # runs that a refusal names


def load(run: str | os.PathLike[str]) -> "Run":
    """Load a trained run from its files; its dataset is not needed.

    run: the output.directory of a run, one checkpoint in it, or a directory in which one run lies.
    Errors: EnsyncError where there is no run, or several.

    >>> run = ensync.load("runs/digits")
    >>> run
    <Run at runs/digits: mlp, synchronous, trained on 'digits', 8 x 8 x 1, 10 classes>
    """
    return open_with(run)


def open_with(run: str | os.PathLike[str], threads: int = 0) -> "Run":
    """Load a run that predicts with so many threads, 0: one for each core of this process."""
    return Run(Tester(opening.load(alone(), str(_run_at(Path(run)))), threads))


def _run_at(given: Path) -> Path:
    """Return `given`, or the only run that lies in it. Errors: EnsyncError that names several."""
    path = directory_of(given)
    if not path.is_dir() or has_checkpoint(path):
        return path
    runs = runs_below(path)
    if len(runs) > 1:
        more = f" and {len(runs) - LISTED} more" * (len(runs) > LISTED)
        names = ", ".join(f"'{each}'" for each in runs[:LISTED])
        raise EnsyncError(
            f"'{path}' holds {len(runs)} runs: {names}{more}", "one of them", "name it"
        )
    return runs[0] if runs else path


class Run:
    """A trained network, or an ensemble of them; `load` and `train` return it.

    job: its settings, as job.section.key. path: the checkpoint that was loaded. class_names: of the
    labels 0, 1, ... shape: (height, width, channels) of an image.

    >>> run = ensync.load("runs/digits")
    >>> run.job.training.batch, run.shape, run.class_names[:2]
    (32, (8, 8, 1), ['0', '1'])
    """

    def __init__(self, tester: Tester, member: int | None = None) -> None:
        self._tester, self._member = tester, member
        self.path: Path = tester.loaded.path
        self.job: Job = tester.job
        self.class_names: list[str] = tester.identity.class_names
        self.shape: tuple[int, int, int] = tester.identity.shape

    @property
    def directory(self) -> Path:
        """The run's directory.

        >>> str(ensync.load("runs").directory)
        'runs/digits'
        """
        return self.path.parent.parent

    def predict(self, images: ArrayLike, method: str | None = None) -> np.ndarray:
        """Return the label int64 (n,) of each image; class_names[label] is the class's name.

        images: uint8 (n, height, width, channels) as the dataset has them; one channel may be left
        out. method: the fusion of an ensemble [default: that of its job]. Errors: EnsyncError for
        other images, and for a fusion that is not possible. Warns of each member that is left out.

        >>> images = ensync.Dataset("data/digits.h5").images("test")
        >>> ensync.load("runs/digits").predict(images[:4])
        array([0, 1, 7, 9])
        """
        return winners(self._votes(images, method))

    def predict_proba(self, images: ArrayLike, method: str | None = None) -> np.ndarray:
        """Return the probability float64 (n, classes) of each class for each image; each row sums
        to 1. With hard voting it is the share of votes.

        images, method, errors: as for `predict`.

        >>> images = ensync.Dataset("data/digits.h5").images("test")
        >>> ensync.load("runs/digits").predict_proba(images).shape
        (359, 10)
        """
        return shares(np.maximum(self._votes(images, method), 0))

    def score(self, images: ArrayLike, labels: ArrayLike, method: str | None = None) -> float:
        """Return the accuracy, a share of 1, for images with these labels (n,): numbers of classes,
        or names of class_names.

        images, method, errors: as for `predict`; EnsyncError also where the labels do not fit.

        >>> test = ensync.Dataset("data/digits.h5")
        >>> ensync.load("runs/digits").score(test.images("test"), test.labels("test")) > 0.8
        True
        """
        found, given = self.predict(images, method), self._labels(labels)
        if len(given) != len(found):
            raise EnsyncError(
                f"{plural(len(found), 'image')} with {plural(len(given), 'label')}",
                "one label for each image",
                "give both of the same rows",
            )
        return float(np.mean(found == given)) if len(found) else float("nan")

    def export(
        self,
        path: str | os.PathLike[str],
        format: str | None = None,
        method: str | None = None,
    ) -> Path:
        """Write the run for other programs, and return the path; a file there is replaced.

        format: "onnx", with the fusion of an ensemble inside: images as for `predict` in, the
        probabilities of `predict_proba` and the labels of `predict` out; "safetensors" or
        "pytorch": the weights of one network by PyTorch's names, and beside them a file .py that
        builds it [default: by the ending .onnx, .safetensors or .pt]. method: as for `predict`.
        Errors: EnsyncError for what the format cannot hold, and without its package. A member that
        is left out is warned of, and so are operands in bf16, which other programs do not round.

        >>> path = ensync.load("runs/digits").export("digits.onnx")
        >>> import onnxruntime
        >>> session = onnxruntime.InferenceSession(path)
        >>> images = ensync.Dataset("data/digits.h5").images("test")
        >>> session.run(["label"], {"images": images[:4]})[0].tolist()
        [0, 1, 7, 9]
        """
        from ensync.runs.export.formats import format_of, package_of, write
        from ensync.runs.export.trained import trained_of

        target = Path(path)
        name = format_of(format, target)
        package_of(name)
        chosen = self._tester.method(method, self._only)
        evaluator = self._tester.evaluator(chosen, self._only)
        trained = trained_of(evaluator, chosen, str(self.directory))
        dict(write(trained, name, target))
        warn(trained.notes, 3)
        return target

    @cached_property
    def members(self) -> list["Run"]:
        """The networks of an ensemble, each of which predicts by itself; of one network, itself.

        >>> [len(ensync.load("runs/digits").members)]
        [1]
        """
        count = self._tester.members
        if self._member is not None or count == 1:
            return [self]
        return [Run(self._tester, member) for member in range(count)]

    @cached_property
    def history(self) -> History:
        """What training reached, epoch by epoch: columns by name, as arrays.

        >>> list(ensync.load("runs/digits").history)[:4]
        ['member', 'epoch', 'step', 'validation_loss']
        """
        return History(self._records)

    @cached_property
    def _records(self) -> list[Record]:
        """The records of the history file, or of the checkpoint where that is not at hand."""
        records, _ = readable_records(self.directory / "history.jsonl")
        known = records or [{**record} for record in self._tester.loaded.attributes["history"]]
        return [record for record in known if self._member in (None, record.get("member"))]

    @cached_property
    def result(self) -> RunResult | None:
        """What the run reached on the test images, from its result.json; None before its end.

        >>> result = ensync.load("runs/digits").result
        >>> list(result.test), result.test["soft_voting"].accuracy > 0.8
        (['soft_voting'], True)
        """
        path = self.directory / "result.json"
        try:
            return from_json(RunResult, json.loads(path.read_bytes()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise EnsyncError(
                f"{path} cannot be read ({error})",
                "what `ensync train` writes",
                "test the run again with `ensync evaluate`",
            ) from error

    def keep(self) -> "Run":
        """Read history and result now, so that the run's files may be deleted, and return self.

        >>> ensync.load("runs/digits").keep().history["epoch"]
        array([1, 2, 3])
        """
        _ = self.history, self.result
        return self

    def __repr__(self) -> str:
        identity = self._tester.identity
        member = "" if self._member is None else f"member {self._member} of "
        return (
            f"<{member}Run at {self.directory}: {self.job.network.name or 'layers'}, "
            f"{self.job.training.strategy}, trained on '{identity.name}', "
            f"{' x '.join(map(str, self.shape))}, {len(self.class_names)} classes>"
        )

    def _repr_html_(self) -> str:
        """Return what a notebook shows: what the run is, what it reached on the test images, and
        its learning curves.
        """
        tested = self.result.test.items() if self.result else ()
        rows = "".join(
            f"<tr><td>{FUSIONS[name].label}</td><td>{100 * figures.accuracy:.2f} %</td></tr>"
            for name, figures in tested
            if isinstance(figures, FusionFigures) and name in FUSIONS
        )
        table = f"<table><tr><th>fusion</th><th>test accuracy</th></tr>{rows}</table>"
        curves = learning_curves(self.job.training.strategy, self._records)
        return f"<p>{html.escape(repr(self)[1:-1])}</p>" + table * bool(rows) + curves

    @property
    def _only(self) -> list[int] | None:
        """The one member that this is, None for all."""
        return None if self._member is None else [self._member]

    def _votes(self, images: ArrayLike, method: str | None) -> np.ndarray:
        chosen = self._tester.method(method, self._only)
        return self._tester.votes(self._pixels(images), chosen, self._only)

    def _pixels(self, images: ArrayLike) -> np.ndarray:
        """Return the images uint8 (n, height, width, channels), refuse what is otherwise."""
        given = np.asarray(images)
        plain = self.shape[:2] if self.shape[2] == 1 else self.shape
        if given.dtype != np.uint8 or given.shape[1:] not in (self.shape, plain):
            wanted = ", ".join(map(str, self.shape))
            raise EnsyncError(
                f"images {given.dtype} {given.shape}",
                f"uint8 (n, {wanted}), of 0 to 255, as the run was trained on",
                "bring them to this size and these values",
            )
        return np.ascontiguousarray(given).reshape(-1, *self.shape)

    def _labels(self, labels: ArrayLike) -> np.ndarray:
        """Return labels int64 (n,), refuse what is no class."""
        given = np.asarray(labels)
        if given.dtype.kind == "U":
            place = {name: label for label, name in enumerate(self.class_names)}
            numbers = np.array([place.get(str(name), -1) for name in given.ravel()], np.int64)
        else:
            numbers = given.ravel()
        wrong = numbers.dtype.kind not in "iu" or ((numbers < 0) | (numbers >= self._classes)).any()
        if wrong or given.ndim != 1:
            raise EnsyncError(
                f"labels {given.dtype} {given.shape}, not all of them classes of the run",
                f"numbers from 0 to {self._classes - 1}, or its class names, one an image",
                "give the labels that the run was trained with",
            )
        return numbers

    @property
    def _classes(self) -> int:
        return len(self.class_names)
