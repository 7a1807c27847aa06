"""The command line: its verbs, and how it ends."""

import traceback

import click

from ensync import __version__
from ensync.cli.compare import collect, compare, sweep
from ensync.cli.completion import completion
from ensync.cli.data import data
from ensync.cli.demo import demo
from ensync.cli.describe import describe, explain
from ensync.cli.doctor import doctor
from ensync.cli.evaluate import evaluate, fuse, predict
from ensync.cli.exchange import export, import_weights
from ensync.cli.init import init
from ensync.cli.options import Verbs
from ensync.cli.ranks import speaks
from ensync.cli.report import report
from ensync.cli.scale import scale
from ensync.cli.submit import submit
from ensync.cli.train import resume, train
from ensync.core import streams
from ensync.core.errors import printable, sentence

EXIT_CODES = (
    "Exit codes: 0 done; 2 a mistake in the input, said in one sentence; 3 no rank made progress "
    "for training.watchdog seconds; 75 stopped by a signal after a checkpoint, run again to "
    "continue; 130 Ctrl-C."
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
      mpirun -n 2 ensync demo                          # a small dataset; strategies are compared
      ensync evaluate runs/quickstart/ensemble         # from its files, on any number of ranks
      mpirun -n 2 ensync train jobs/quickstart.toml    # one run

    Every verb works without mpirun as one rank. `ensync settings` explains each setting of a job
    file.
    """


for verb in (
    demo,
    init,
    train,
    resume,
    compare,
    sweep,
    collect,
    scale,
    report,
    evaluate,
    fuse,
    predict,
    export,
    import_weights,
    describe,
    explain,
    submit,
    doctor,
    completion,
    data,
):
    cli.add_command(verb)


def _usage(error: click.ClickException) -> str:
    """Return what is wrong with a command line, and which help tells what is right."""
    message = error.format_message()
    context = getattr(error, "ctx", None)
    return (
        f"{message} See `{context.command_path} --help`."
        if context and "--help" not in message
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
