"""What each verb that runs on MPI ranks does, given the communicator. Collective throughout."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ensync.core.activity import Doing, doing
from ensync.core.config.effects import refuse_without_effect, without_effect
from ensync.core.config.job import Job, job_from_dict, load_job, override
from ensync.core.errors import EnsyncError, leads_nowhere, nearest
from ensync.core.fusion import FUSIONS, OF_ONE, shares
from ensync.core.signals import stop_on_signals
from ensync.mpi.watchdog import watch
from ensync.mpi.world import Comm, on_root
from ensync.report.console import Console, make_console
from ensync.report.results import Refused, RunResult, to_json
from ensync.runs import launch, lifecycle, results, session, start, state
from ensync.runs.compare import compare as run_comparison
from ensync.runs.compare import contestants, page_files
from ensync.runs.context import RunContext
from ensync.runs.data import SplitLoaders, only_pictures, open_loaders, open_other
from ensync.runs.existing import refuse_earlier
from ensync.runs.header import show_place, show_run
from ensync.runs.identity import Identity, alike
from ensync.runs.sweep import sweep as run_sweep
from ensync.runs.sweep import sweep_files
from ensync.runs.sweeping import swept
from ensync.storage.atomic import write_atomically
from ensync.storage.checkpoint import verify_checkpoint
from ensync.storage.dataset import open_dataset
from ensync.storage.lock import confirm
from ensync.strategies import strategy_of
from ensync.training.position import EARLY, ends_of

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
    "training.threads",
    "training.watchdog",
    "training.deterministic",
    "training.virtual_shards",
    "training.slice",
    "training.precision",
)


def train(
    comm: Comm,
    path: str,
    overrides: tuple[str, ...],
    resume_if_begun: bool,
    overwrite: bool,
    verbose: bool,
) -> None:
    """Train a job from its start, or where it stands when asked to resume and begun."""
    job = on_root(comm, lambda: load_job(path, overrides))
    console = make_console(comm.rank, verbose)
    with launch.holding(comm, [job.output.directory], "train", console):
        if launch.begun(comm, job, resume_if_begun, overwrite):
            console.line(f"resuming {job.output.directory}")
            _resume(comm, job.output.directory, overrides, console, job)
            return
        with _watched(comm, job, console):
            launch.check_memory(comm, [(job, comm.size)])
            place = launch.prepare(comm, job)
            with stop_on_signals() as stop_request:
                run = start.start(RunContext(comm, job, place.loaders, console, stop_request))
                launch.take_directory(comm, job, console)
                show_place(console, place)
                show_run(console, place, run)
                _say_without_effect(console, job)
                _complete(run)


def _say_without_effect(console: Console, *jobs: Job) -> None:
    """Say which settings of the jobs do nothing there."""
    for line in dict.fromkeys(line for job in jobs for line in without_effect(job)):
        console.line(line)


def resume(comm: Comm, directory: str, overrides: tuple[str, ...], verbose: bool) -> None:
    """Continue a run from its newest valid checkpoint, on any number of ranks."""
    console = make_console(comm.rank, verbose)
    with launch.holding(comm, [_find_run(comm, directory)], "resume", console):
        _resume(comm, directory, overrides, console)


def _resume(
    comm: Comm,
    directory: str,
    overrides: tuple[str, ...],
    console: Console,
    asked: Job | None = None,
) -> None:
    """Continue a run whose lock is held; `asked`: the job file that this was called with."""
    loaded = _load(comm, directory)
    for path, why in loaded.rejected:
        console.warn(f"{path} is left aside: {why}")
    saved = loaded.state.job
    stands = str(loaded.path.parent.parent)  # where the run is now, should it have been moved
    job = _with(
        comm,
        saved.model_copy(update={"output": saved.output.model_copy(update={"directory": stands})}),
        overrides,
    )
    _check_epochs(loaded, job)
    with _watched(comm, job, console):
        _identity(comm, loaded, job, console)
        launch.check_memory(comm, [(job, comm.size)])
        place = launch.prepare(comm, job, lambda: open_loaders(comm, job, loaded.accept))
        with stop_on_signals() as stop_request:
            run = start.resume(RunContext(comm, job, place.loaders, console, stop_request), loaded)
            launch.write_job(comm, job)
            _say_differences(console, saved, job, asked or job)
            show_place(console, place)
            show_run(console, place, run)
            _say_without_effect(console, job)
            console.line(f"continuing from {loaded.path}")
            _say_idle(console, run)
            _complete(run)


def _say_idle(console: Console, run: session.Session) -> None:
    """Say where a resume has nothing to train, and what would have it train on. Collective."""
    ended, idle = run.ended(), run.idle()
    if idle:
        patience = (
            "training.early_stopping=0, or more patience"
            if any(why.startswith(EARLY) for why in ended.values())
            else "training.epochs=N"
        )
        more = (
            f"more than {run.job.training.epochs}"
            if patience.endswith("N")
            else f"with training.epochs at {run.job.training.epochs}"
        )
        console.warn(
            f"nothing is left to train ({ends_of(ended)}), so this only tests it again; to train "
            f"on, give --set {patience} ({more})"
        )


def _check_epochs(loaded: state.Loaded, job: Job) -> None:
    """Refuse an end that is behind the run already."""
    done = max(p["epoch"] for p in loaded.attributes["positions"])
    if done > job.training.epochs:
        raise EnsyncError(
            f"training.epochs = {job.training.epochs} for a run that has {done} epochs behind it",
            f"at least {done}",
            f"give more, or look at what it has reached with `ensync evaluate {loaded.path}`",
        )


def _say_differences(console: Console, saved: Job, job: Job, asked: Job) -> None:
    """Say which settings of the resumed run are others than when it began, and which of the job
    file are not taken.
    """
    begun, taken, wanted = (_flat(each) for each in (saved, job, asked))
    if changed := [
        f"{name} = {_brief(value)} (was {_brief(begun.get(name))})"
        for name, value in taken.items()
        if value != begun.get(name)
    ]:
        console.line("taken from --set: " + ", ".join(changed))
    if left := [
        f"{name} = {_brief(value)} (the run: {_brief(taken.get(name))})"
        for name, value in wanted.items()
        if value != taken.get(name)
    ]:
        console.warn(
            "the job file is not what the run was begun with, and the run's own settings are "
            f"kept; not taken: {', '.join(left)}; to change one give --set"
        )


def _flat(job: Job) -> dict[str, Any]:
    """Return the settings by their whole names, but for where the run stands and members left to
    the number of ranks.
    """
    flat = {
        f"{section}.{key}": value
        for section, settings in job.model_dump(mode="json").items()
        for key, value in settings.items()
    }
    left_out = (
        {"output.directory"} if job.ensemble.members else {"output.directory", "ensemble.members"}
    )
    return {name: value for name, value in flat.items() if name not in left_out}


def _brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _complete(run: session.Session) -> None:
    """Train a session to its end, test it, show and write its result, without the ranks that die
    meanwhile where that is possible.
    """
    trained = lifecycle.train(run)
    lifecycle.retry(trained, lambda: _finish(trained))


def _finish(run: session.Session) -> None:
    """Test a trained session, show and write its result."""
    console = run.console
    evaluator = results.evaluator_of_session(run)
    for member, why in evaluator.test.excluded.items():
        console.warn(f"member {member} is left out: {why}")
    method = strategy_of(run.job).fusion(run.job)
    result = results.result_of(evaluator, [method], run.elapsed)
    console.lines(["", f"training ended: {ends_of(evaluator.ended)}"])
    with doing(Doing.WRITING):
        on_root(run.comm, lambda: _write_json(run.directory / "result.json", result))
    _show(console, evaluator, result)
    console.files(
        {
            "result": run.directory / "result.json",
            "history": run.directory / "history.jsonl",
            "checkpoints": run.directory / "checkpoints",
        }
    )
    if not evaluator.test.present:
        why = next(iter(evaluator.test.excluded.values()))
        again = (
            f"train on from the last good state with {run.remedy}"
            if run.failed
            else "lower optimizer.learning_rate"
        )
        raise EnsyncError(
            f"training gave no usable network ({why})",
            "finite losses",
            f"{again}, or look at the data's normalization",
        )


def _show(console: Console, evaluator: results.EnsembleEvaluator, result: RunResult | None) -> None:
    if result is None:
        return
    members = [a for a in result.members if a is not None]
    if len(result.members) > 1 and members:
        console.line()
        console.line(
            f"members alone: test accuracy {100 * np.mean(members):.2f} % on average, "
            f"{100 * min(members):.2f} to {100 * max(members):.2f} %"
        )
    for method, figures in result.test.items():
        name = (
            f"{FUSIONS[method].label} of {len(members)} members"
            if len(result.members) > 1
            else "one network"
        )
        if isinstance(figures, Refused):
            console.warn(f"{FUSIONS[method].label}: {figures.refused}")
        else:
            console.test(
                name,
                np.array(figures.confusion),
                evaluator.loaders.identity.class_names,
                figures.loss,
                figures.top_k,
            )


def fuse(
    comm: Comm,
    directory: str,
    methods: tuple[str, ...],
    overrides: tuple[str, ...],
    data: str | None = None,
) -> None:
    """Test a run's fusions from its files, and write fusion.json beside the result of its
    training; fusion_on_FILE.json for another dataset.
    """
    run = _find_run(comm, directory)
    with launch.holding(comm, [run], "fuse", make_console(comm.rank)):
        evaluate(
            comm,
            directory,
            methods,
            overrides,
            Path(run) / (f"fusion_on_{Path(data).stem}.json" if data else "fusion.json"),
            data,
        )


def evaluate(
    comm: Comm,
    directory: str,
    methods: tuple[str, ...],
    overrides: tuple[str, ...],
    target: Path | None = None,
    data: str | None = None,
) -> None:
    """Test a run from its files, with the job's fusion or those named, on the test images of the
    file `data` where one is given.

    target: where the figures are written, if anywhere.
    """
    console = make_console(comm.rank)
    loaded, job = _open_run(comm, directory, overrides)
    trained_on = _identity(comm, loaded, job, console)
    launch.check_memory(comm, [(job, comm.size)], trained_on)
    place = launch.prepare(comm, job, lambda: _loaders_to_test(comm, loaded, job, trained_on, data))
    own = job.fusion.method if loaded.state.members > 1 else OF_ONE
    _say_unfinished(console, loaded, job, directory)
    if place.loaders.streamed and not place.loaders.dataset.digests:
        console.warn(
            f"{place.loaders.dataset.path} is streamed and has no digests, so that its content is "
            "not checked; `ensync data prepare` writes it with digests"
        )
    if place.loaders.other:
        console.line(
            f"tested on another dataset than the run's own ({trained_on}): "
            f"{place.loaders.dataset.path} ({place.loaders.other})"
        )
        if place.loaders.other.name == trained_on.name:
            console.warn(
                f"both are '{trained_on.name}': if the same images were cut by another seed, the "
                "run was trained on some of those that test it here"
            )
    evaluator = results.evaluator_of_files(comm, loaded, job, place.loaders)
    for member, why in evaluator.test.excluded.items():
        console.warn(f"member {member} is left out: {why}")
    result = results.result_of(evaluator, methods or (own,), loaded.state.elapsed)
    _show(console, evaluator, result)
    if target is not None:
        path, fusion = target, result and replace(result, format="ensync-fusion")
        on_root(comm, lambda: _write_json(path, fusion))
        console.files({"fusion": target})
    console.check()


def _identity(comm: Comm, loaded: state.Loaded, job: Job, console: Console) -> Identity:
    """Return what a run was trained on, from its checkpoint, or from data.path where that is of
    an older version. Collective.
    """
    if loaded.identity:
        return loaded.identity

    def look() -> Identity:
        with open_dataset(job.data.path) as dataset:
            return loaded.accept(dataset)

    console.line(
        f"{loaded.path} is of an older version and does not describe its dataset; "
        f"{job.data.path} is trusted as far as its fingerprint goes"
    )
    return on_root(comm, look)


def _loaders_to_test(
    comm: Comm, loaded: state.Loaded, job: Job, trained_on: Identity, data: str | None
) -> SplitLoaders:
    """Open the run's own dataset, or another for its test images. Collective."""
    if data is None:
        return open_loaders(comm, job, loaded.accept)
    loaders = open_other(comm, job, data, lambda dataset: alike(loaded.path, trained_on, dataset))
    if loaders.other and loaders.other.fingerprint == trained_on.fingerprint:
        loaders.close()
        return open_loaders(
            comm,
            job.model_copy(update={"data": job.data.model_copy(update={"path": data})}),
            loaded.accept,
        )
    return loaders


def _say_unfinished(console: Console, loaded: state.Loaded, job: Job, directory: str) -> None:
    done = [p["epoch"] for p in loaded.attributes["positions"] if not p["finished"]]
    if done and min(done) < job.training.epochs:
        console.warn(
            f"this is the state after {min(done)} of {job.training.epochs} epochs; `ensync "
            f"resume {directory}` goes on"
        )


def predict(
    comm: Comm,
    directory: str,
    images: tuple[str, ...],
    method: str | None,
    overrides: tuple[str, ...],
) -> None:
    """Print the class of each image file, with the share of votes."""
    from ensync.storage.sources.to_predict import read_pictures

    console = make_console(comm.rank)
    loaded, job = _open_run(comm, directory, overrides)
    trained_on = _identity(comm, loaded, job, console)
    pixels, names, notes = on_root(
        comm, lambda: read_pictures(images, trained_on.shape, trained_on.preparation)
    )
    method = method or (job.fusion.method if loaded.state.members > 1 else OF_ONE)
    launch.check_memory(comm, [(job, comm.size)], trained_on, ())
    loaders = only_pictures(trained_on, job, pixels)
    if (
        FUSIONS[method].of_parameters and loaded.state.members > 1 and loaded.normalizes(comm)
    ):  # whose statistics are taken from the training images
        loaders = replace(open_loaders(comm, job, loaded.accept), test=loaders.test)
    launch.prepare(comm, job, lambda: loaders)
    votes = results.predict(comm, loaded, job, loaders, method)
    if votes is not None:
        for note in notes:
            console.warn(note)
        _print_predictions(console, names, votes, trained_on.class_names)
        console.check()


def _print_predictions(
    console: Console, names: list[str], votes: np.ndarray, classes: list[str]
) -> None:
    width = max(map(len, names))
    for name, row in zip(names, shares(np.maximum(votes, 0)), strict=True):
        best = np.argsort(-row, kind="stable")[:3]
        console.line(
            f"{name:{width}}  " + "  ".join(f"{classes[c]} {100 * row[c]:.1f} %" for c in best)
        )


def compare(
    comm: Comm, path: str, overrides: tuple[str, ...], resume: bool, overwrite: bool, verbose: bool
) -> None:
    """Run both strategies and the baseline; write and show the comparison."""
    from ensync.report.export import write_comparison

    job = on_root(comm, lambda: load_job(path, overrides))
    console = make_console(comm.rank, verbose)
    jobs = contestants(job, comm.size).values()
    places = [job.output.directory, *(each.output.directory for each in jobs)]
    with (
        launch.holding(comm, places, "compare", console),
        _watched(comm, job, console),
        stop_on_signals() as stop_request,
    ):
        refuse_earlier(comm, jobs, page_files(job), overwrite or resume)
        comparison = run_comparison(comm, job, console, stop_request, resume)
        with doing(Doing.WRITING):
            files = on_root(
                comm, lambda: _while_held(job.output.directory, write_comparison, comparison)
            )
    if comparison is not None:
        console.comparison(comparison)
        console.files(
            _named(files) | {"checkpoints": Path(job.output.directory) / "*" / "checkpoints"}
        )


def sweep(
    comm: Comm,
    path: str,
    over: str,
    overrides: tuple[str, ...],
    resume: bool,
    overwrite: bool,
    verbose: bool,
) -> None:
    """Train the job once for each value of one setting; write and show the sweep."""
    from ensync.report.export import write_sweep

    key = over.partition("=")[0].strip()
    jobs = [(one.value, one.job) for one in on_root(comm, lambda: swept(path, over, overrides))]
    console = make_console(comm.rank, verbose)
    runs = [job for _, job in jobs]
    _say_without_effect(console, *runs)
    places = [str(Path(runs[0].output.directory).parent), *(job.output.directory for job in runs)]
    with (
        launch.holding(comm, places, "sweep", console),
        _watched(comm, runs[0], console),
        stop_on_signals() as stop_request,
    ):
        refuse_earlier(comm, runs, sweep_files(runs[0]), overwrite or resume)
        found = run_sweep(comm, jobs, key, console, stop_request, resume)
        with doing(Doing.WRITING):
            files = on_root(comm, lambda: _while_held(places[0], write_sweep, found))
    if found is not None:
        console.sweep(found)
        console.files(_named(files))


@contextmanager
def _watched(comm: Comm, job: Job, console: Console) -> Iterator[None]:
    """Have the ranks watched over while the block runs. Collective."""
    with watch(
        comm, job.training.watchdog, job.output.directory, lifecycle.can_lose(job, comm.size)
    ) as obstacle:
        if obstacle:
            console.warn(obstacle)
        yield


def _while_held(directory: str, write: Callable[[Path, Any], Any], found: object) -> Any:
    """Return write(directory, found), unless another process has taken the directory over."""
    confirm(Path(directory))
    return write(Path(directory), found)


def _named(files: Any) -> dict[str, object]:
    return (
        dict(files) if isinstance(files, dict) else {Path(f).suffix.lstrip("."): f for f in files}
    )


def _find_run(comm: Comm, directory: str) -> str:
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


def _load(comm: Comm, directory: str) -> state.Loaded:
    _check_exists(directory)
    return state.load_newest(comm, Path(directory))


def _open_run(comm: Comm, directory: str, overrides: tuple[str, ...]) -> tuple[state.Loaded, Job]:
    loaded = _load(comm, directory)
    job = _with(comm, loaded.state.job, overrides)
    for text in overrides:
        name = text.partition("=")[0].strip()
        if name not in TESTED_WITH and not name.startswith("network."):  # whose shapes are compared
            raise EnsyncError(
                f"--set {name} for a test of a trained run, which does not train",
                "one of " + ", ".join(TESTED_WITH),
                "leave it out, or train on with `ensync resume`",
            )
    return loaded, job


def _with(comm: Comm, job: Job, overrides: tuple[str, ...]) -> Job:
    """Return the job of a run with overrides, checked again.

    Errors: EnsyncError where its parameters would mean another function.
    """

    def change() -> Job:
        changed = job_from_dict(
            override(job.model_dump(mode="json", exclude_none=True), overrides), "the run's job"
        )
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


def _write_json(path: Path, result: RunResult | None) -> None:
    confirm(path.parent)
    write_atomically(path, [to_json(result).encode()])
