"""Find a run by its directory or checkpoint, and open it with other settings. Collective."""

from pathlib import Path

from ensync.core.config.effects import refuse_without_effect
from ensync.core.config.job import Job, job_from_dict, override, plain_settings
from ensync.core.errors import EnsyncError, leads_nowhere, nearest
from ensync.mpi.world import Comm, on_root
from ensync.report.console import Console
from ensync.runs import below, state
from ensync.runs.identity import Identity
from ensync.storage.checkpoint import verify_checkpoint
from ensync.storage.dataset import open_dataset

# On these depends what parameters mean; other numbers of them are found where they are loaded.
TRAINED_WITH = (
    "data.normalization",
    "network.name",
    "network.activation",
    "network.output_activation",
    "network.shortcut",
    "network.layers",
)


# What changes a test of a run; other settings are the training's, or have no effect there.
TESTED_WITH = (
    "data.path",
    "data.placement",
    "fusion.method",
    "evaluation.augmentation",
    "evaluation.exit_threshold",
    "evaluation.exit_confidence",
    "training.threads",
    "training.watchdog",
    "training.deterministic",
    "training.virtual_shards",
    "training.slice",
    "training.precision",
)


def identity_of(comm: Comm, loaded: state.Loaded, path: str, console: Console) -> Identity:
    """Return what a run was trained on, from its checkpoint, or from data.path, `path`, where
    that is of an older version. Collective.
    """
    if loaded.identity:
        return loaded.identity

    def look() -> Identity:
        with open_dataset(path) as dataset:
            return loaded.accept(dataset)

    console.line(
        f"{loaded.path} is of an older version and does not describe its dataset; "
        f"{path} is trusted as far as its fingerprint goes"
    )
    return on_root(comm, look)


def choose_run(comm: Comm, given: str, verb: str, console: Console) -> str:
    """Return the run that a path stands for: itself, a file that a verb has written beside it, or
    the only run in a directory, which is told. Collective.

    Errors: EnsyncError for a directory of several runs, after a list of them.
    """
    choice = on_root(comm, lambda: below.choose(given, verb))
    if choice.lines:
        console.lines(choice.lines)
    if choice.refusal:
        raise choice.refusal
    return choice.path


def find_run(comm: Comm, directory: str) -> str:
    """Return a run's directory, of which a checkpoint may have been given; refuse what is none.
    Collective.
    """
    path = Path(directory)

    def find() -> str:
        _check_exists(directory)
        if path.is_file():
            verify_checkpoint(path)
            return str(path.parent.parent)
        if not state.has_checkpoint(path):
            state.find_newest(path)  # says what is missing
        return str(path)

    return on_root(comm, find)


def _check_exists(directory: str) -> None:
    if not Path(directory).exists():
        beside = (
            [str(p) for p in Path(directory).parent.glob("*")]
            if Path(directory).parent.is_dir()
            else []
        )
        raise EnsyncError(
            f"no run at '{directory}'{leads_nowhere(directory) or nearest(directory, beside)}",
            "the output.directory of a run, or a checkpoint file",
            "check the path",
        )


def load(comm: Comm, directory: str) -> state.Loaded:
    _check_exists(directory)
    return state.load_newest(comm, Path(directory))


def open_run(comm: Comm, directory: str, overrides: tuple[str, ...]) -> tuple[state.Loaded, Job]:
    loaded = load(comm, directory)
    job = with_overrides(comm, loaded.state.job, overrides)
    for text in overrides:
        name = text.partition("=")[0].strip()
        if name not in TESTED_WITH and not name.startswith("network."):  # whose shapes are compared
            raise EnsyncError(
                f"--set {name} for a test of a trained run, which does not train",
                "one of " + ", ".join(TESTED_WITH),
                "leave it out, or train on with `ensync resume`",
            )
    return loaded, job


def with_overrides(comm: Comm, job: Job, overrides: tuple[str, ...]) -> Job:
    """Return the job of a run with overrides, checked again.

    Errors: EnsyncError where its parameters would mean another function.
    """

    def change() -> Job:
        changed = job_from_dict(override({**plain_settings(job)}, overrides), "the run's job")
        for name in TRAINED_WITH:
            section, key = name.split(".")
            before, after = (getattr(getattr(one, section), key) for one in (job, changed))
            if before != after:
                own = "its default" if before is None else repr(before)
                given = f"{name} = {after!r} for a run that was trained with {own}"
                raise EnsyncError(given, "the same", "leave it out, or train another run")
        refuse_without_effect(changed, overrides, "the run's job", only_overrides=True)
        return changed

    return on_root(comm, change)
