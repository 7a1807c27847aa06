"""`ensync.EnsyncClassifier`: Ensync as an estimator of scikit-learn."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import DataConversionWarning
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from ensync.core.errors import EnsyncError
from ensync.mpi.world import alone
from ensync.runs.library.dataset import Dataset
from ensync.runs.library.trained import Run
from ensync.runs.library.training import Section, job, train
from ensync.runs.stopped import Stopped

WHITE = 255.0
# The part of a feature's variance, by its quartiles, from which on the error of rounding is told.
# Of 256 steps over the range of normal values it is about 0.0001.
BLURRED = 0.01
NORMAL_QUARTILES = 1.349  # standard deviations between the quartiles of normal values
LARGEST_SEED = 2**31 - 1


class EnsyncClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A network of Ensync, trained by `fit` on this process alone, for pipelines, searches over
    parameters and cross-validation.

    network: a name of the zoo, or the settings of [network]. epochs, batch, learning_rate: as in
    [training] and [optimizer]. random_state: seed of all that is random, None for another each
    time. settings: other sections of a job, by name, which come before the parameters above; an
    ensemble is {"training": {"strategy": "ensemble"}, "ensemble": {"members": 4}}.

    After `fit`: classes_ (k,), the labels in order; run_, the trained run with its history;
    n_features_in_; low_, high_, the values of X that are 0 and 255 to the network.

    >>> from sklearn.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> classifier = ensync.EnsyncClassifier({"hidden": [32]}, epochs=5, random_state=1)
    >>> classifier.fit(X[:1000], y[:1000]).score(X[1000:], y[1000:]) > 0.8
    True
    """

    def __init__(
        self,
        network: str | Mapping[str, object] = "mlp",
        *,
        epochs: int = 20,
        batch: int = 32,
        learning_rate: float = 2e-3,
        random_state: int | np.random.RandomState | None = None,
        settings: Mapping[str, Mapping[str, object]] | None = None,
    ) -> None:
        self.network, self.epochs, self.batch = network, epochs, batch
        self.learning_rate, self.random_state, self.settings = learning_rate, random_state, settings

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Train on X with the labels y (n,), of any type, and return self.

        X: (n, features), or images (n, height, width) or (n, height, width, 1 or 3), which networks
        with convolutions need. uint8 is taken as it is. Other numbers are rounded to 256 equal
        steps between the least and the largest value of each feature, or of all images, since
        datasets hold bytes; beyond these two, `predict` takes them for the nearer one. Where that
        blurs a feature, as far values make of its steps a few, a DataConversionWarning says so:
        clip or transform it before (scikit-learn's QuantileTransformer). Errors: ValueError for
        what cannot be trained on, and for settings that a job refuses.

        >>> X = np.random.default_rng(0).normal(size=(40, 3))
        >>> ensync.EnsyncClassifier(epochs=1).fit(X, X[:, 0] > 0).classes_
        array([False,  True])
        """
        given, labels = validate_data(self, X, y, allow_nd=True)
        check_classification_targets(labels)
        self.classes_, numbers = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError("y has 1 class; EnsyncClassifier needs two classes or more")
        axis = 0 if given.ndim == 2 else None
        if given.dtype == np.uint8:
            self.low_, self.high_ = np.array(0.0), np.array(WHITE)
        else:
            self.low_ = np.asarray(np.min(given, axis), np.float64)
            self.high_ = np.asarray(np.max(given, axis), np.float64)
            _warn_of_blurred(given, self.high_ - self.low_)
        self._shape = given.shape[1:]
        try:
            self.run_ = self._trained(self._pixels(given), numbers)
        except Stopped as stop:  # there is no run to resume
            raise KeyboardInterrupt(stop.given) from stop
        except EnsyncError as error:
            raise ValueError(str(error)) from error
        return self

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Return the label of each row of X (n,), one of classes_. X as for `fit`.

        Errors: ValueError for another shape than in `fit`, NotFittedError before `fit`.

        >>> X = np.array([[0, 255], [255, 0]] * 20, np.uint8)
        >>> y = np.array(["left", "right"] * 20)
        >>> ensync.EnsyncClassifier(random_state=1).fit(X, y).predict(X[:2])
        array(['left', 'right'], dtype='<U5')
        """
        check_is_fitted(self)
        found: np.ndarray = self.classes_[self.predict_proba(X).argmax(axis=1)]
        return found

    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Return the probability float64 (n, k) of each of classes_ for each row of X.

        X, errors: as for `predict`.

        >>> X = np.array([[0, 255], [255, 0]] * 20, np.uint8)
        >>> ensync.EnsyncClassifier(epochs=1).fit(X, X[:, 0]).predict_proba(X).shape
        (40, 2)
        """
        check_is_fitted(self)
        given = validate_data(self, X, allow_nd=True, reset=False)
        if given.shape[1:] != self._shape:
            raise ValueError(f"X has rows of shape {given.shape[1:]}, expected {self._shape}")
        return self.run_.predict_proba(self._pixels(given))

    def _pixels(self, given: np.ndarray) -> np.ndarray:
        """Return X as images uint8 (n, height, width, channels); features are a row of pixels."""
        width = np.where(self.high_ > self.low_, self.high_ - self.low_, 1)
        values = np.clip(given.astype(np.float64), self.low_, self.high_)
        pixels: np.ndarray = np.rint((values - self.low_) / width * WHITE).astype(np.uint8)
        if pixels.ndim == 2:
            pixels = pixels[:, None, :]
        return pixels[..., None] if pixels.ndim == 3 else pixels

    def _trained(self, pixels: np.ndarray, labels: np.ndarray) -> Run:
        """Train in a directory of its own, and return the run, which needs it no more."""
        names = [str(number) for number in range(len(self.classes_))]
        with tempfile.TemporaryDirectory(prefix="ensync-") as place:
            path = Path(place, "data.h5")
            with Dataset.write(
                path, pixels, labels, validation=0, test=0, class_names=names, values=(0, WHITE)
            ):
                sections = self._sections(path, Path(place, "run"))
            run = train(job(**sections), alone(), quiet=True)
            run.keep()
        return run

    def _sections(self, data: Path, output: Path) -> dict[str, Section]:
        seed = self.random_state
        if not isinstance(seed, int | np.integer):
            seed = check_random_state(seed).randint(LARGEST_SEED)
        own: dict[str, dict[str, object]] = {
            "data": {"path": data},
            "network": {"name": self.network}
            if isinstance(self.network, str)
            else dict(self.network),
            "training": {"epochs": self.epochs, "batch": self.batch, "seed": int(seed)},
            "optimizer": {"learning_rate": self.learning_rate},
            "checkpoint": {"every_epochs": 0},
            "output": {"directory": output},
        }
        for name, section in (self.settings or {}).items():
            own[name] = own.get(name, {}) | dict(section)
        return dict(own)


def _warn_of_blurred(given: np.ndarray, width: np.ndarray) -> None:
    """Warn of features of X, or of images, whose rounding to 256 steps over `width` errs with more
    than BLURRED of their variance: a step's square over 12 (Bennett 1948). The variance is that of
    normal values with the same quartiles, which far values do not move.
    """
    axis = 0 if given.ndim == 2 else None
    low, high = np.percentile(given, (25, 75), axis)
    error = (width / WHITE) ** 2 / 12
    variance = ((high - low) / NORMAL_QUARTILES) ** 2
    blurred = np.atleast_1d((variance > 0) & (error > BLURRED * variance))
    if not blurred.any():
        return
    numbers = ", ".join(map(str, np.flatnonzero(blurred)[:5]))
    more = blurred.sum() - 5
    rest = f" and {more} more" if more > 0 else ""
    what = f"X in the features {numbers}{rest}" if axis == 0 else "X"
    warnings.warn(
        f"{what}: a few far values leave the others few of the 256 steps to which they are "
        "rounded; clip or transform them first",
        DataConversionWarning,
        stacklevel=3,
    )
