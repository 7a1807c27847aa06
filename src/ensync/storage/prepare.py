"""`ensync data prepare`: from published or own files to one dataset file."""

from dataclasses import dataclass
from pathlib import Path

from ensync import __version__
from ensync.core.errors import EnsyncError, nearest
from ensync.storage.partial import PROGRAM, Partial
from ensync.storage.request import PrepareRequest, Progress
from ensync.storage.sources import SOURCES, SourceSpec
from ensync.storage.work import Work
from ensync.storage.writing import Written, check_target, write_dataset

COMMON = ("to", "validation", "seed")  # options of every source
WAYS = {"from": "--from DIR", "download": "--download"}  # where the files come from
BESIDE = ("from", "to", "jobs", "restart")  # options that do not change what is written


@dataclass(frozen=True)
class Prepared(Written):
    """What `prepare` has done, in words."""

    def __str__(self) -> str:
        if not self.changed:
            return f"{self.path} is there already and identical: nothing was changed"
        if self.before is None:
            return f"{self.path} is written"
        if self.before == self.fingerprint:
            return (
                f"{self.path} is written again: it had other notes, no digests or damage; for "
                "runs that were trained on it, it is the same"
            )
        was = (
            "another dataset that was there; runs that were trained on that one will refuse this"
            if self.before
            else "a damaged dataset"
        )
        return f"{self.path} is written in place of {was}"


def default_destination(name: str) -> Path:
    """Return where `prepare` writes a dataset without --to: data/NAME.h5."""
    return Path("data") / f"{name.replace('-', '_')}.h5"


def prepare(request: PrepareRequest, progress: Progress = lambda *_: None) -> Prepared:
    """Write a dataset file in one piece, from local files or the network. One process, safe to run
    twice.

    progress(what, done, total) is called now and then. A call that was stopped among many pictures
    is gone on with by the next with the same request. Errors: EnsyncError for every mistake in the
    request, the files, the network or the disk; the target is then as it was.
    """
    spec = SOURCES.get(request.name)
    if spec is None:
        raise EnsyncError(
            f"the dataset '{request.name}'{nearest(request.name, SOURCES)}",
            "one of " + ", ".join(SOURCES),
            "choose one of them",
        )
    _check_options(spec, request)
    _check_ways(spec, request)
    target = Path(request.target or default_destination(request.name))
    check_target(target)
    with Partial(target, _deciding(request), request.restart) as partial:
        work = Work(progress, _jobs(request), partial)
        source = spec.read(request, work)
        done = write_dataset(target, source, request.validation, request.seed, work)
        partial.remove()
    return Prepared(**vars(done))


def _deciding(request: PrepareRequest) -> dict[str, str]:
    """Return what decides, beside the pictures, what is written: a later call goes on only with the
    same.
    """
    options = {f"--{one.flag}": str(value) for one, value in request.given()}
    for flag in BESIDE:
        options.pop(f"--{flag}", None)
    return {**options, PROGRAM: f"ensync {__version__}"}


def _jobs(request: PrepareRequest) -> int:
    """Return how many threads decode, 0 for one on each usable CPU. Errors: EnsyncError."""
    if request.jobs is not None and request.jobs < 1:
        raise EnsyncError(f"--jobs {request.jobs}", "a number of threads, 1 or more", "choose one")
    return request.jobs or 0


def _check_options(spec: SourceSpec, request: PrepareRequest) -> None:
    """Raise EnsyncError unless the source has every option given."""
    for option, value in request.given():
        if option.flag not in (*spec.options, *COMMON):
            raise EnsyncError(
                f"--{option.flag} with the dataset '{spec.name}'",
                "an option that this dataset has",
                f"leave --{option.flag} out",
            )
        if option.choices and value not in option.choices:
            raise EnsyncError(
                f"--{option.flag} {value}", " or ".join(option.choices), "choose one of them"
            )


def _check_ways(spec: SourceSpec, request: PrepareRequest) -> None:
    """Raise EnsyncError unless one option says where the files come from."""
    ways = [WAYS[flag] for flag in spec.options if flag in WAYS]
    count = bool(request.directory) + request.download
    if ways and count != 1:
        both = f"with both {' and '.join(ways)}" if count else f"without {' or '.join(ways)}"
        raise EnsyncError(
            f"the dataset '{spec.name}' {both}",
            "one of them" if count else " or ".join(ways),
            "say where its files come from",
        )
