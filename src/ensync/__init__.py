"""Ensync trains image classifiers with MPI on CPU clusters, and tells whether to train one
network together or many apart.

A program begins with `Dataset`, `job`, `train` and `load`, or with `EnsyncClassifier` in the place
of an estimator of scikit-learn; each is imported when it is first used.
"""

from typing import TYPE_CHECKING

from ensync.core.errors import EnsyncError

if TYPE_CHECKING:
    from ensync.report.callbacks import Callback
    from ensync.runs.library.dataset import Dataset
    from ensync.runs.library.estimator import EnsyncClassifier
    from ensync.runs.library.trained import Run, load
    from ensync.runs.library.training import compare, job, train

__version__ = "0.1.0"
__all__ = [
    "Callback",
    "Dataset",
    "EnsyncClassifier",
    "EnsyncError",
    "Run",
    "__version__",
    "compare",
    "job",
    "load",
    "train",
]

_HOMES = {  # where what is imported when it is used lives
    "Callback": "ensync.report.callbacks",
    "Dataset": "ensync.runs.library.dataset",
    "EnsyncClassifier": "ensync.runs.library.estimator",
    "Run": "ensync.runs.library.trained",
    "compare": "ensync.runs.library.training",
    "job": "ensync.runs.library.training",
    "load": "ensync.runs.library.trained",
    "train": "ensync.runs.library.training",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'ensync' has no attribute {name!r}")
    from importlib import import_module

    found: object = getattr(import_module(_HOMES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
