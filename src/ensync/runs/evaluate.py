"""`ensync evaluate` and `ensync fuse`: test a run from its files. Collective throughout."""

from dataclasses import replace
from pathlib import Path

from ensync.core.config.training import Training
from ensync.core.fusion import FUSIONS, OF_ONE
from ensync.mpi.world import Comm, on_root
from ensync.report.console import Console, make_console
from ensync.runs import launch, results, state
from ensync.runs.data import SplitLoaders, open_loaders, open_other
from ensync.runs.identity import Identity, alike
from ensync.runs.memory import need_of
from ensync.runs.opening import choose_run, find_run, identity_of, open_run
from ensync.runs.outcome import show_scores, write_json
from ensync.runs.planned import PlannedRun
from ensync.runs.watching import watched


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
    console = make_console(comm.rank)
    directory = choose_run(comm, directory, "fuse", console)
    run = find_run(comm, directory)
    with launch.holding(comm, [Path(run)], "fuse", console):
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
    directory = choose_run(comm, directory, "evaluate", console)
    loaded, job = open_run(comm, directory, overrides)
    trained_on = identity_of(comm, loaded, job.data.path, console)
    launch.check_memory(comm, lambda: [need_of(job, trained_on, comm.size, trains=False)])
    planned = PlannedRun(job, comm)
    place = planned.prepare(comm, lambda: loaders_to_test(planned, loaded, trained_on, data))
    own = job.fusion.method if loaded.state.members > 1 else OF_ONE
    _say_unfinished(console, loaded, job.training, directory)
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
    loaders = place.loaders
    if target is None and not any(FUSIONS[method].needs_validation for method in methods or (own,)):
        loaders = loaders.without_validation()  # of which nothing would be shown
    with console.counting() as progress, watched(comm, loaded, job, loaders, progress):
        evaluator = results.evaluator_of_files(comm, loaded, job, loaders)
    for line in evaluator.left_out:
        console.warn(line)
    result = results.result_of(evaluator, methods or (own,), loaded.state.elapsed)
    show_scores(console, evaluator, result)
    place.loaders.close()
    if target is not None:
        path, fusion = target, result and replace(result, format="ensync-fusion")
        on_root(comm, lambda: write_json(path, fusion))
        console.files({"fusion": target})
    console.check()


def loaders_to_test(
    planned: PlannedRun, loaded: state.Loaded, trained_on: Identity, data: str | None
) -> SplitLoaders:
    """Open the run's own dataset, or another for its test images. Collective."""
    comm, job = planned.ranks, planned.job
    if data is None:
        return planned.open(comm, loaded.accept)
    there, dtype = job.data.model_copy(update={"path": data}), job.training.dtype
    loaders = open_other(
        comm, there, dtype, lambda dataset: alike(loaded.path, trained_on, dataset)
    )
    if loaders.other and loaders.other.fingerprint == trained_on.fingerprint:
        loaders.close()
        return open_loaders(comm, there, dtype, loaded.accept)
    return loaders


def _say_unfinished(
    console: Console, loaded: state.Loaded, training: Training, directory: str
) -> None:
    by_steps = training.max_steps > 0
    end, what = (training.max_steps, "steps") if by_steps else (training.epochs, "epochs")
    positions = [p for p in loaded.attributes["positions"] if not p["finished"]]
    done = [p["updates"] if by_steps else p["epoch"] for p in positions]
    if done and min(done) < end:
        console.warn(
            f"this is the state after {min(done):,} of {end:,} {what}; `ensync "
            f"resume {directory}` goes on"
        )
