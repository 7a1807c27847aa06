"""The command line: verbs, their options and help. Decisions are made elsewhere."""

import os
import traceback
from typing import Any

import click

from ensync import __version__
from ensync.cli.data import data
from ensync.cli.options import Verbs, restarted, settings, verbose
from ensync.cli.ranks import on_ranks, say, say_all, speaks
from ensync.core import streams
from ensync.core.errors import EnsyncError, printable, sentence
from ensync.core.fusion import FUSIONS
from ensync.core.launching import started

EXIT_CODES = (
    "Exit codes: 0 done; 2 a mistake in the input, told in one sentence; 3 nobody got on for "
    "training.watchdog seconds; 75 stopped by a signal after a checkpoint, run again to continue; "
    "130 Ctrl-C."
)


other_data = click.option(
    "--data",
    metavar="FILE.h5",
    help="Test on the test images of another dataset, of the same shape and classes.",
)


@click.group(
    cls=Verbs,
    epilog=EXIT_CODES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="ensync")
def cli() -> None:
    """Train image classifiers on CPUs with MPI: one network together, or many networks apart.

    \b
    A first session:
      ensync data prepare digits                          a small real dataset, no network needed
      mpirun -n 2 ensync compare jobs/quickstart.toml     both strategies and the one-rank baseline
      mpirun -n 4 ensync train jobs/quickstart.toml       one run
      ensync evaluate runs/quickstart                     from its files, on any number of ranks

    Every verb works without mpirun as one rank. `ensync settings` explains each setting of a job
    file.
    """


@cli.command()
@click.argument("job", metavar="JOB.toml")
@settings
@click.option(
    "--resume",
    "resume_if_begun",
    is_flag=True,
    help="Continue where output.directory stands, start where it is empty (for batch scripts; "
    "also when Slurm restarts the job).",
)
@click.option(
    "--overwrite", is_flag=True, help="Start afresh although output.directory holds a run."
)
@verbose
def train(
    job: str, overrides: tuple[str, ...], resume_if_begun: bool, overwrite: bool, verbose: bool
) -> None:
    """Train the network(s) of a job file.

    \b
      mpirun -n 4 ensync train jobs/quickstart.toml
      mpirun -n 4 ensync train jobs/quickstart.toml --set training.strategy=ensemble

    Writes into output.directory: job.toml, history.jsonl, checkpoints/ and result.json.
    """
    from ensync.cli import verbs

    again = restarted(resume_if_begun)
    on_ranks(lambda comm: verbs.train(comm, job, overrides, again, overwrite, verbose))


@cli.command(short_help="Continue a run from its newest valid checkpoint.")
@click.argument("run", metavar="RUN")
@settings
@verbose
def resume(run: str, overrides: tuple[str, ...], verbose: bool) -> None:
    """Continue a run from its newest valid checkpoint, on any number of ranks.

    RUN is its output.directory, or one checkpoint file in it. On the same number of ranks the
    result is that of a run that was never interrupted, to the bit.

    \b
      mpirun -n 3 ensync resume runs/quickstart
      mpirun -n 3 ensync resume runs/quickstart --set training.epochs=40
    """
    from ensync.cli import verbs

    on_ranks(lambda comm: verbs.resume(comm, run, overrides, verbose))


@cli.command(short_help="Test a run from its files.")
@click.argument("run", metavar="RUN")
@other_data
@settings
def evaluate(run: str, data: str | None, overrides: tuple[str, ...]) -> None:
    """Test a run from its files: accuracy with its interval, precision, recall, F1, confusion
    counts.

    The dataset must be the one that the run was trained on, unchanged. --data tests on another one
    on purpose, and says so.

    \b
      ensync evaluate runs/quickstart
      mpirun -n 4 ensync evaluate runs/quickstart/checkpoints/checkpoint-e00005-s000000205.h5
      ensync evaluate runs/quickstart --set fusion.method=hard_voting
    """
    from ensync.cli import verbs

    on_ranks(lambda comm: verbs.evaluate(comm, run, (), overrides, data=data))


@cli.command(short_help="Fuse the members of a run from its files.")
@click.argument("run", metavar="RUN")
@click.option(
    "--method",
    "methods",
    type=click.Choice(list(FUSIONS)),
    multiple=True,
    help="Repeat for several; without it, all.",
)
@other_data
@settings
def fuse(run: str, methods: tuple[str, ...], data: str | None, overrides: tuple[str, ...]) -> None:
    """Fuse the members of a run from its files and write fusion.json beside the result of its
    training; fusion_on_FILE.json with --data.

    \b
      ensync fuse runs/quickstart --method hard_voting
    """
    from ensync.cli import verbs

    on_ranks(lambda comm: verbs.fuse(comm, run, methods or tuple(FUSIONS), overrides, data))


@cli.command()
@click.argument("run", metavar="RUN")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option("--method", type=click.Choice(list(FUSIONS)), help="Fusion; the job's without it.")
@settings
def predict(
    run: str, images: tuple[str, ...], method: str | None, overrides: tuple[str, ...]
) -> None:
    """Classify image files, or all in a directory, with a trained run; its dataset is not needed.

    \b
      ensync predict runs/quickstart digit.png photos/

    One line for each image: its three likeliest classes with their share of the votes. Any size and
    format that Pillow reads; images are resized and centre-cropped as `ensync data prepare images`
    does, over the background and in the range of values of the training. What is light and what is
    dark should be as in the images of the training. What is left out of a directory is named; when
    one of the images cannot be read, none is predicted.
    """
    from ensync.cli import verbs

    on_ranks(lambda comm: verbs.predict(comm, run, images, method, overrides))


@cli.command(short_help="One rank, synchronous, ensemble: tell which is better.")
@click.argument("job", metavar="JOB.toml")
@settings
@click.option(
    "--resume",
    is_flag=True,
    help="Continue a comparison of this job that was begun; parts that are finished are only "
    "tested.",
)
@click.option(
    "--overwrite", is_flag=True, help="Delete earlier results of this comparison and start afresh."
)
@verbose
def compare(
    job: str, overrides: tuple[str, ...], resume: bool, overwrite: bool, verbose: bool
) -> None:
    """Run one job on one rank, synchronously and as an ensemble, and tell which is better.

    \b
      mpirun -n 2 ensync compare jobs/quickstart.toml

    Ends with a table, and writes comparison.json, .csv and .html into output.directory.
    """
    from ensync.cli import verbs

    again = restarted(resume)
    on_ranks(lambda comm: verbs.compare(comm, job, overrides, again, overwrite, verbose))


@cli.command(short_help="Train once for each value of a setting, and plot.")
@click.argument("job", metavar="JOB.toml")
@click.option(
    "--over", required=True, metavar="SECTION.KEY=V1,V2,...", help="The setting and its values."
)
@settings
@click.option(
    "--resume",
    is_flag=True,
    help="Continue a sweep of this job that was begun; values that are finished are only tested.",
)
@click.option(
    "--overwrite", is_flag=True, help="Delete earlier results of these values and start afresh."
)
@verbose
def sweep(
    job: str, over: str, overrides: tuple[str, ...], resume: bool, overwrite: bool, verbose: bool
) -> None:
    """Train a job once for each value of one setting, and plot accuracy and time against it.

    \b
      ensync sweep jobs/fashion_mnist/roy_mlp_ensemble.toml --over optimizer.learning_rate=0.1,0.2
      ensync sweep jobs/fashion_mnist/mlp_synchronous.toml --over training.threads=1,2
      ensync sweep jobs/fashion_mnist/mlp_synchronous.toml --over 'network.hidden=[64,32],[32]'
    """
    from ensync.cli import verbs

    again = restarted(resume)
    on_ranks(lambda comm: verbs.sweep(comm, job, over, overrides, again, overwrite, verbose))


@cli.command()
@click.argument("thing", metavar="JOB.toml|RUN|DATASET.h5")
@settings
def describe(thing: str, overrides: tuple[str, ...]) -> None:
    """Print what a job, a run or a dataset is.

    \b
      ensync describe jobs/quickstart.toml     each layer's shape and parameters, and every setting
      ensync describe runs/quickstart          where the run stands, and its job
      ensync describe data/digits.h5           classes, images, source and licence
    """
    from ensync.cli import describing

    say_all(lambda: describing.describe(thing, overrides))


@cli.command(short_help="Hand a job file to Slurm.")
@click.argument("job", metavar="JOB.toml")
@settings
@click.option("--nodes", default=1, show_default=True, type=click.IntRange(1), help="Nodes.")
@click.option(
    "--ranks-per-node",
    default=2,
    show_default=True,
    type=click.IntRange(1),
    help="Ranks on each node.",
)
@click.option(
    "--cores-per-rank",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    help="Cores, and threads, of each rank.",
)
@click.option(
    "--time",
    default="1:00:00",
    show_default=True,
    help="Time limit; at its end the job saves, is requeued and continues.",
)
@click.option("--partition", default="", help="Slurm's partition; its default one without it.")
@click.option("--dry-run", is_flag=True, help="Print the line and the script, submit nothing.")
def submit(
    job: str,
    overrides: tuple[str, ...],
    nodes: int,
    ranks_per_node: int,
    cores_per_rank: int,
    time: str,
    partition: str,
    dry_run: bool,
) -> None:
    """Hand a job file to Slurm with slurm/train.sbatch, after a look at the job, its dataset and
    the partition.

    \b
      ensync submit jobs/quickstart.toml --nodes 4 --time 1:00:00
      ensync submit jobs/quickstart.toml --nodes 4 --dry-run
    """
    from ensync.cli.submit import Request
    from ensync.cli.submit import submit as hand_over
    from ensync.core.config.job import load_job
    from ensync.storage.dataset import open_dataset

    if (launch := started(os.environ)).size > 1:
        raise EnsyncError(
            f"`ensync submit` as one of {launch.size} ranks ({launch.name})",
            "one process",
            "run it without a launcher, outside of a job step",
        )
    loaded = load_job(job, overrides)
    open_dataset(loaded.data.path).close()
    request = Request(nodes, ranks_per_node, cores_per_rank, time, partition)
    say(lambda: "\n".join(hand_over(request, job, loaded, overrides, dry_run)))


@cli.command(short_help="Is this machine, launcher and file system fit?")
@click.argument("job", metavar="[JOB.toml]", required=False)
@settings
def doctor(job: str | None, overrides: tuple[str, ...]) -> None:
    """Tell whether machine, launcher and file system are fit: green, yellow or red, one sentence
    each.

    \b
      mpirun -n 4 ensync doctor                         or srun, with the options of the job
      mpirun -n 4 ensync doctor jobs/quickstart.toml   also whether its memory is there

    Exit code 1 when something is red.
    """
    on_ranks(lambda comm: _doctor(comm, job, overrides))


def _doctor(comm: Any, path: str | None, overrides: tuple[str, ...]) -> None:
    from ensync.cli.examine import doctor
    from ensync.core.config.job import load_job
    from ensync.mpi.world import on_root
    from ensync.report.console import make_console

    code = doctor(
        comm,
        on_root(comm, lambda: load_job(path, overrides)) if path else None,
        make_console(comm.rank),
    )
    if code:
        raise SystemExit(code)


@cli.command(short_help="Put separate runs together: a sweep or a scaling.")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option(
    "--over", required=True, metavar="SECTION.KEY|ranks", help="What differs between the runs."
)
def collect(runs: tuple[str, ...], over: str) -> None:
    """Put runs that were trained as jobs of their own together: a sweep over a setting, or the
    scaling over ranks.

    \b
      ensync collect --over optimizer.learning_rate runs/quickstart/learning_rate_*
      ensync collect --over ranks runs/quickstart/ranks_*
    """
    from pathlib import Path

    from ensync.report.collect import collect_scaling, collect_sweep, doubts
    from ensync.report.console import make_console

    paths = [Path(run) for run in runs]
    console = make_console(0)
    files = dict(collect_scaling(paths) if over == "ranks" else collect_sweep(over, paths))
    for doubt in doubts(over, paths):
        console.warn(doubt)
    console.files(files)


@cli.command("settings", short_help="Explain every setting of a job file.")
def explain() -> None:
    """Explain every setting of a job file: type, default, meaning."""
    from ensync.core.config.job import explain_settings

    say(explain_settings)


cli.add_command(data)


def _usage(error: click.ClickException) -> str:
    """Return what is wrong with a command line, and which help tells what is right."""
    message = error.format_message()
    place = getattr(error, "ctx", None)
    return (
        f"{message} See `{place.command_path} --help`."
        if place and "--help" not in message
        else message
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code; a mistake costs one sentence, said by rank
    0.
    """
    code, reason = _run(arguments)
    streams.flush()
    if reason and speaks():
        streams.tell(reason)
    return code


def _run(arguments: list[str] | None) -> tuple[int, str]:
    """Run the command line; return its exit code, and what a person should read about it, ""
    when nothing.
    """
    try:
        streams.check_directory()
        return cli.main(arguments, prog_name="ensync", standalone_mode=False) or 0, ""
    except click.exceptions.Exit as stop:
        return stop.exit_code, ""
    except (click.Abort, KeyboardInterrupt):
        return 130, "interrupted"
    except click.ClickException as error:
        return 2, printable(_usage(error))
    except Exception as error:
        known = sentence(error)
        return (
            (known.exit_code, str(known))
            if known
            else (1, "".join(traceback.format_exception(error)).rstrip())
        )
