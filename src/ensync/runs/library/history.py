"""The history of a run as columns."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ensync.core.errors import EnsyncError, plural
from ensync.report.results import Record

if TYPE_CHECKING:
    from pandas import DataFrame

DOTS = 100  # of an inch of a notebook's figure


class History(Mapping[str, np.ndarray]):
    """Columns of the same length, one row for each epoch of each member, in order of epoch.

    int64: member, epoch, step (updates so far). float64, NaN where a figure is not known:
    train_loss, train_accuracy, validation_loss, validation_accuracy (shares of 1), seconds (of the
    epoch), samples_per_second, learning_rate, elapsed (seconds of the run so far). str: ended, why
    it was the member's last epoch.

    >>> history = ensync.load("runs/digits").history
    >>> history["epoch"], history["train_accuracy"] > 0.3
    (array([1, 2, 3]), array([ True,  True,  True]))
    """

    def __init__(self, records: Sequence[Mapping[str, object]]) -> None:
        names = dict.fromkeys(name for record in records for name in record if name != "event")
        self._columns = {name: _column([r.get(name) for r in records]) for name in names}

    def __getitem__(self, name: str) -> np.ndarray:
        return self._columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def __repr__(self) -> str:
        rows = len(next(iter(self._columns.values()), ()))
        return f"<History of {plural(rows, 'epoch')} of members: {', '.join(self)}>"

    def to_pandas(self) -> DataFrame:
        """Return the columns as a DataFrame of pandas. Errors: EnsyncError without pandas.

        >>> ensync.load("runs/digits").history.to_pandas()  # doctest: +SKIP
        """
        try:
            from pandas import DataFrame
        except ImportError:
            raise EnsyncError(
                "history.to_pandas() without pandas",
                "pandas in this environment",
                "install it, or take the columns: dict(history)",
            ) from None
        return DataFrame(self._columns)


def learning_curves(name: str, records: Sequence[Record]) -> str:
    """Return an HTML image of the accuracy by epoch of the run `name`, "" without records."""
    from ensync.report.curves import accuracy_by_epoch
    from ensync.report.style import to_png

    if not records:
        return ""
    text = base64.b64encode(to_png(accuracy_by_epoch({name: records}), DOTS)).decode()
    return f'<img alt="accuracy against epochs" src="data:image/png;base64,{text}">'


def _column(values: Sequence[object]) -> np.ndarray:
    """Return numbers as int64, or float64 with NaN for None; anything else as text."""
    known = [value for value in values if value is not None]
    if any(isinstance(value, str) for value in known):
        return np.array(["" if value is None else str(value) for value in values])
    if len(known) == len(values) and all(isinstance(value, int) for value in known):
        return np.array(values, np.int64)
    return np.array([np.nan if value is None else value for value in values], np.float64)
