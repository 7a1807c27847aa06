"""The callbacks of a run (report.callbacks): found by name, and called on rank 0."""

import importlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

from ensync.core.config.schema import Output
from ensync.core.errors import EnsyncError
from ensync.mpi.world import Comm, agree_any, on_root
from ensync.report.callbacks import Callback, TrainStart, metrics_of
from ensync.report.results import RunResult
from ensync.report.tensorboard import TensorBoard
from ensync.runs.schema import EpochRecord


@dataclass(frozen=True)
class Callbacks:
    """What a run calls. held: on rank 0, none elsewhere; wanted: whether there are any, on all
    ranks; where rank 0 dies they end with it.
    """

    held: Sequence[Callback] = ()
    wanted: bool = False

    def start(self, comm: Comm, run: TrainStart) -> None:
        """Say that the run trains. Collective; EnsyncError on all ranks where a callback fails."""
        if trouble := self._call(comm, "on_train_start", lambda each: each.on_train_start(run)):
            raise trouble

    def epochs(
        self, comm: Comm, records: Sequence[EpochRecord], members: int
    ) -> EnsyncError | None:
        """Say what epochs reached; return on all ranks the error of the first that fails.
        Collective.
        """
        metrics = [metrics_of(record, members) for record in records]

        def tell(callback: Callback) -> None:
            for each in metrics:
                callback.on_epoch_end(each)

        return self._call(comm, "on_epoch_end", tell) if metrics else None

    def end(self, comm: Comm, result: RunResult | None) -> None:
        """Say what the run reached, which rank 0 knows. Collective; EnsyncError on all ranks where
        a callback fails.
        """

        def tell(callback: Callback) -> None:
            assert result is not None, "rank 0 has it"
            callback.on_train_end(result)

        if trouble := self._call(comm, "on_train_end", tell):
            raise trouble

    def stop(self, error: BaseException) -> None:
        """Say on rank 0 that the run ends early; the error that ends it is the one to tell."""
        for callback in self.held:
            _try(callback, "on_stop", lambda each: each.on_stop(str(error)))

    def _call(self, comm: Comm, name: str, call: Callable[[Callback], None]) -> EnsyncError | None:
        def first_trouble() -> EnsyncError | None:
            troubles = (_try(callback, name, call) for callback in self.held)
            return next((trouble for trouble in troubles if trouble), None)

        return on_root(comm, first_trouble) if self.wanted else None


def _try(callback: Callback, name: str, call: Callable[[Callback], None]) -> EnsyncError | None:
    try:
        call(callback)
    except EnsyncError as error:
        return error
    except Exception as error:
        return EnsyncError(
            f"{name} of the callback {type(callback).__name__} failed with {_told(error)}",
            "a callback that takes what it is given",
            "mend it or leave it out; a checkpoint has all that the run has trained, and `ensync "
            "resume` continues it",
        )
    return None


def _told(error: Exception) -> str:
    """Return an error with the place where it was raised."""
    (*_, last) = traceback.extract_tb(error.__traceback__)
    place = f"{Path(last.filename).name}, line {last.lineno}"
    return f"{type(error).__name__}: {error} ({place})"


def callbacks_of(comm: Comm, output: Output, given: Sequence[Callback] = ()) -> Callbacks:
    """Return the callbacks given on rank 0 and those of the settings. Collective; EnsyncError where
    one cannot be had.
    """
    named = bool(output.callbacks or output.tensorboard)
    if not agree_any(comm, named or bool(given)):
        return Callbacks()
    held: list[Callback] = []

    def find() -> None:
        held.extend(_checked(each, "ensync.train") for each in given)
        held.extend(map(load, output.callbacks))
        if output.tensorboard:
            held.append(TensorBoard())

    on_root(comm, find)
    return Callbacks(held, True)


def load(name: str) -> Callback:
    """Return the callback that "MODULE:OBJECT" names: an instance, or what a class or function
    makes without arguments. The module lies on Python's path or in the current directory.
    """
    module, _, attribute = name.partition(":")
    try:
        if not (module and attribute):
            raise ValueError("it is not MODULE:OBJECT")
        with _current_directory_too():
            found = attrgetter(attribute)(importlib.import_module(module))
            made = found() if callable(found) and not isinstance(found, Callback) else found
    except EnsyncError:
        raise
    except Exception as error:
        raise EnsyncError(
            f"output.callbacks names '{name}', which cannot be had: {type(error).__name__}: "
            f"{error}",
            "MODULE:CLASS of a module on Python's path or in the current directory",
            "correct the name, or the module",
        ) from None
    return _checked(made, f"output.callbacks = '{name}'")


def _checked(callback: object, origin: str) -> Callback:
    if not isinstance(callback, Callback):
        raise EnsyncError(
            f"a callback of {origin} that is of type {type(callback).__name__}",
            "an object of a class derived from ensync.Callback",
            "derive its class from that",
        )
    return callback


@contextmanager
def _current_directory_too() -> Iterator[None]:
    """Find modules in the current directory last, so that they hide no others."""
    here = os.getcwd()
    sys.path.append(here)
    try:
        yield
    finally:
        sys.path.remove(here)
