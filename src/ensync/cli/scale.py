"""`ensync scale`."""

import re
from typing import Any

import click

from ensync.cli.options import PLACE, settings
from ensync.cli.ranks import on_ranks, speaks

TIMES = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}
SPEEDS = {
    f"{prefix}{unit}/s": factor * size
    for prefix, factor in {"k": 1e3, "M": 1e6, "G": 1e9}.items()
    for unit, size in {"B": 1.0, "bit": 1 / 8}.items()
}


class Quantity(click.ParamType):
    """A number above zero with one of these units."""

    def __init__(self, name: str, units: dict[str, float], example: str) -> None:
        self.name, self.units, self.example = name, units, example

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number in the unit that counts 1."""
        found = re.fullmatch(r"([0-9]*\.?[0-9]+(?:e-?[0-9]+)?) ?([A-Za-z/]+)", str(value).strip())
        if isinstance(value, float):
            return value
        if found and found[2] in self.units and float(found[1]) > 0:
            return float(found[1]) * self.units[found[2]]
        units = ", ".join(self.units)
        self.fail(
            f"'{value}' is no {self.name}; give a number with a unit ({units}), such as "
            f"{self.example}.",
            param,
            ctx,
        )


class Counts(click.ParamType):
    """Numbers of ranks, such as 1,2,4."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return them, ascending."""
        if isinstance(value, tuple):
            return value
        parts = [part.strip() for part in str(value).split(",")]
        if all(part.isdecimal() and len(part) < 7 and int(part) > 0 for part in parts):
            return tuple(sorted({int(part) for part in parts}))
        self.fail(f"'{value}' is no list of ranks; give numbers such as 1,2,4,1024.", param, ctx)


@click.command(short_help="Predict a job on more ranks, and check that later.")
@click.argument("things", type=PLACE, nargs=-1, required=True, metavar="JOB.toml | RUN...")
@settings
@click.option("--ranks", type=Counts(), metavar="N,N,...", help="Predict these numbers of ranks.")
@click.option(
    "--latency",
    type=Quantity("latency", TIMES, "30us"),
    metavar="TIME",
    help="Of a short message between nodes, where none is at hand to measure: 30us.",
)
@click.option(
    "--bandwidth",
    type=Quantity("bandwidth", SPEEDS, "10Gbit/s"),
    metavar="SPEED",
    help="Of a node's link, with --latency: 10Gbit/s, 1.1GB/s.",
)
@click.option(
    "--ranks-per-node", type=click.IntRange(1), metavar="N", help="As started, without it."
)
@click.option(
    "--cores", type=click.IntRange(1), metavar="N", help="Say which ranks x threads suit N cores."
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.1),
    default=60.0,
    show_default=True,
    help="Measure for so long at most, about.",
)
@click.option(
    "--noise-steps",
    type=click.IntRange(0, 400),
    default=200,
    show_default=True,
    help="Train so many steps for the gradient noise scale; 0: without it.",
)
@click.option("--check", is_flag=True, help="Compare trained runs with what was predicted.")
@click.option(
    "--prediction", type=PLACE, metavar="DIR", help="Where the prediction is, with --check."
)
def scale(things: tuple[str, ...], check: bool, prediction: str | None, **options: Any) -> None:
    """Measure a job's steps and links for a minute, and predict it on other numbers of ranks.

    \b
      mpirun -n 2 ensync scale jobs/quickstart.toml
      ensync scale jobs/quickstart.toml --ranks 1,8,64 --latency 30us --bandwidth 10Gbit/s

    Steps are the job's own, timed by their samples and threads. The links are those between the
    ranks at hand: on two nodes, the one between nodes. What is not there is said, and can be given.
    From these follow, for synchronous training, for local SGD and for networks apart, the seconds
    of a step and of an epoch, bytes, and efficiency on any number of ranks; how far more ranks
    pay, and what ends it; which ranks x threads suit the cores. A short training, which is then
    forgotten, measures the gradient noise scale: with the times it says how many ranks together
    reach the same loss soonest, so that the rest had better be members of an ensemble.

    It writes scale.json, .csv and .html into output.directory. With --check, trained runs are
    compared with the prediction there, in the directory above, or in that of --prediction:

    \b
      ensync train jobs/quickstart.toml --set output.directory=runs/quickstart/one
      ensync scale --check runs/quickstart/one
    """
    given = {name: value for name, value in options.items() if value not in (None, ())}
    if check:
        if given.keys() - {"seconds", "noise_steps"}:
            raise click.UsageError("--check goes with runs and --prediction alone.")
        _check(things, prediction)
        return
    if len(things) > 1 or prediction is not None:
        raise click.UsageError("One job is predicted; runs and --prediction go with --check.")
    from ensync.runs.scale import verb

    found = verb.ScaleOptions(**given)
    on_ranks(lambda comm: verb.scale(comm, things[0], found))


def _check(runs: tuple[str, ...], prediction: str | None) -> None:
    from ensync.report.console import make_console
    from ensync.report.scale_tables import check_lines
    from ensync.runs.scale.verb import check_runs

    rows = check_runs(runs, prediction)
    if speaks():
        make_console(0).lines(check_lines(rows))
