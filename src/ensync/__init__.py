"""Ensync trains image classifiers with MPI on CPU clusters, and tells whether to train one
network together or many apart.

What a program calls: `Dataset`. It is imported when it is first used.
"""

from typing import TYPE_CHECKING

from ensync.core.errors import EnsyncError

if TYPE_CHECKING:
    from ensync.runs.library.dataset import Dataset

__version__ = "0.1.0"
__all__ = ["Dataset", "EnsyncError", "__version__"]

_HOMES = {"Dataset": "ensync.runs.library.dataset"}  # where what is imported when used lives


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'ensync' has no attribute {name!r}")
    from importlib import import_module

    found: object = getattr(import_module(_HOMES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
