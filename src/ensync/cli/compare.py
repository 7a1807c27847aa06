"""`ensync compare`, `ensync sweep` and `ensync collect`."""

from collections.abc import Sequence
from dataclasses import fields

import click

from ensync.cli.options import PLACE, bundle, run_options
from ensync.cli.ranks import on_ranks
from ensync.runs.options import RunOptions, StudyOptions


@click.command(short_help="One rank, synchronous, ensemble: tell which is better.")
@click.argument("job", type=PLACE, metavar="JOB.toml")
@run_options(
    resume="Continue an unfinished comparison of this job; what is finished is kept, or only "
    "tested. A study then also takes more seeds, ranks and contestants than before.",
    overwrite="Delete earlier results of this comparison and start afresh.",
)
@click.option("--seeds", metavar="N", help="Runs of each contestant, with seeds of their own.")
@click.option("--ranks", metavar="N,N,...", help="Rank counts, of those that are launched.")
@click.option("--budget", metavar="NAME", help="What contestants have alike, such as samples.")
@click.option("--amount", metavar="X", help="Of the budget, where it has one: seconds, accuracy.")
@click.option("--contestants", metavar="NAME,NAME,...", help="What is compared.")
@click.option(
    "--over",
    metavar="SECTION.KEY=V1,V2,...",
    help="Compare the values of one setting, such as communication.every=1,16,never.",
)
@click.option("--trials", metavar="K", help="Learning rates tried for each contestant.")
@click.option("--pack", is_flag=True, help="Run cells beside each other where ranks are free.")
@click.option("--cell", type=int, metavar="K", help="Run only these cells: see --list-cells.")
@click.option("--list-cells", is_flag=True, help="Name the cells, those of each --cell on a line.")
@click.option("--gather", is_flag=True, help="Train nothing: write what the cells found so far.")
@bundle(StudyOptions, "study")
def compare(job: str, options: RunOptions, study: StudyOptions) -> None:
    """Run one job on one rank, synchronously and as an ensemble, and tell which is better.

    \b
      mpirun -n 2 ensync compare jobs/quickstart.toml --set output.directory=runs/again

    Ends with a table, and writes comparison.json, .csv and .html into output.directory.

    With a section [study] in the job, or one of --seeds, --ranks, --budget, --amount,
    --contestants, --over and --trials, it is a study: each contestant is trained on each rank count
    with each seed, under the same budget, so that luck is told from difference.

    \b
      mpirun -n 2 ensync compare jobs/studies/quickstart.toml --seeds 4 --resume    # one more
      mpirun -n 2 ensync compare jobs/studies/quickstart.toml --ranks 1,2 --resume --pack

    Each run is a cell with a directory of its own, below output.directory/cells; it can be killed
    at any moment and goes on with --resume. `ensync settings` explains the section [study].
    """
    from ensync.runs import studies

    on_ranks(lambda comm: studies.compare(comm, job, options, study))


def last_cells(arguments: Sequence[str], launched: int | None) -> list[str]:
    """Return of each number that --cell takes the last cell that it runs, given the command line
    behind `ensync compare`; none where that is no study. For batch scripts.

    launched: the ranks, None where that is not known yet. Errors: EnsyncError.
    """
    from ensync.core.config.job import load_job
    from ensync.runs.study.execution import facts_of_file, units_of

    with compare.make_context("ensync compare", list(arguments)) as context:
        given = context.params
    wanted = StudyOptions(**{each.name: given[each.name] for each in fields(StudyOptions)})
    job = load_job(given["job"], (*given["overrides"], *wanted.overrides))
    if job.study is None:
        return []
    launched = launched or max([2, *job.study.ranks])
    return [names[-1] for names in units_of(job, launched, facts_of_file(job.data.path).facts)]


@click.command(short_help="Train once for each value of a setting, and plot.")
@click.argument("job", type=PLACE, metavar="JOB.toml")
@click.option(
    "--over", required=True, metavar="SECTION.KEY=V1,V2,...", help="The setting and its values."
)
@run_options(
    resume="Continue an unfinished sweep of this job; values that are finished are only tested.",
    overwrite="Delete earlier results of these values and start afresh.",
)
def sweep(job: str, over: str, options: RunOptions) -> None:
    """Train a job once for each value of one setting, and plot accuracy and time against it.

    \b
      ensync sweep jobs/quickstart.toml --over optimizer.learning_rate=1e-3,2e-3
      ensync sweep jobs/quickstart.toml --over training.batch=16,32 --overwrite
      ensync sweep jobs/quickstart.toml --over 'network.hidden=[64,32],[32]' --overwrite
    """
    from ensync.runs import studies

    on_ranks(lambda comm: studies.sweep(comm, job, over, options))


@click.command(short_help="Put separate runs together: a sweep or a scaling.")
@click.argument("runs", type=PLACE, nargs=-1, required=True, metavar="RUN...")
@click.option(
    "--over", required=True, metavar="SECTION.KEY|ranks", help="What differs between the runs."
)
def collect(runs: tuple[str, ...], over: str) -> None:
    """Put runs that were trained as jobs of their own together: a sweep over a setting, or the
    scaling over ranks.

    \b
      ensync train jobs/quickstart.toml --set training.seed=2 --set output.directory=runs/seed_2
      ensync train jobs/quickstart.toml --set training.seed=3 --set output.directory=runs/seed_3
      ensync collect --over training.seed runs/seed_*

    \b
      ensync train jobs/quickstart.toml --set output.directory=runs/ranks_1
      mpirun -n 2 ensync train jobs/quickstart.toml --set output.directory=runs/ranks_2
      ensync collect --over ranks runs/ranks_*
    """
    from pathlib import Path

    from ensync.report.collect import collect_scaling, collect_sweep, doubts
    from ensync.report.console import make_console
    from ensync.runs.below import directory_of

    paths = [directory_of(Path(run)) for run in runs]
    console = make_console(0)
    files = dict(collect_scaling(paths) if over == "ranks" else collect_sweep(over, paths))
    for doubt in doubts(over, paths):
        console.warn(doubt)
    console.files(files)
