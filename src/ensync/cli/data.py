"""`ensync data`: prepare, describe and verify datasets. One process."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from signal import Signals

import click

from ensync.cli.options import PLACE, Verbs, bundle
from ensync.cli.ranks import say, say_all, speaks
from ensync.core import streams
from ensync.core.errors import printable
from ensync.core.launching import started
from ensync.storage.request import OPTIONS, PrepareRequest
from ensync.storage.sources import SOURCES

HEAD_START = 1.0  # seconds that other ranks leave to rank 0, so that it is the one that prepares
LOG = 60.0  # seconds between two lines about the progress where there is no terminal


@click.group(cls=Verbs, short_help="Prepare, describe and verify datasets.")
def data() -> None:
    """Prepare, describe and verify datasets; one process, before any training."""


def _help() -> str:
    sources = [
        f"  {s.name:<14} {s.content}\n  {'':<14} files: {s.files}\n"
        f"      ensync data prepare {s.name} {s.example}".rstrip()
        for s in SOURCES.values()
    ]
    return "\n".join(
        [
            "Write a dataset as one HDF5 file.",
            "",
            "\b",
            "NAME is one of these, each with an example:",
            *sources,
            "",
            "A part of the images becomes the test set where none is given. Pictures that cannot "
            "be read are counted and named; they stop the preparation, or are left out with "
            "--bad-rows skip. The same command goes on with a preparation that was stopped.",
            "",
            "\b",
            "Tar files and Parquet files are also taken by a directory or a pattern, in quotes:",
            "      ensync data prepare tar --from 'shards/train-{000..012}.tar' --label-column cls",
            "      ensync data prepare parquet --from 'food101/data/*.parquet'",
        ]
    )


def _option_help(flag: str, text: str) -> str:
    """Return an option's help, behind the names of the sources that take it."""
    takers = [spec.name for spec in SOURCES.values() if flag in spec.options]
    return text if flag in ("from", "download") or not takers else f"{', '.join(takers)}: {text}"


def _prepare_options(verb: Callable[..., None]) -> Callable[..., None]:
    """Add the options of PrepareRequest."""
    for name, (option, default) in reversed(OPTIONS.items()):
        verb = click.option(
            f"--{option.flag}",
            name,
            help=_option_help(option.flag, option.help),
            type=click.Choice(option.choices) if option.choices else option.kind,
            is_flag=option.kind is bool,
            default=default,
            metavar=option.metavar,
        )(verb)
    return verb


@data.command("prepare", short_help="Write a dataset as one HDF5 file.", help=_help())
@click.argument("name", metavar="NAME")
@_prepare_options
@bundle(PrepareRequest, "request")
def prepare(request: PrepareRequest) -> None:
    """Write a dataset."""
    from ensync.core.signals import Ended, ending_tidily

    try:
        with ending_tidily():
            say(lambda: _prepare(request))
    except Ended as end:
        if speaks():
            streams.tell(f"interrupted by {Signals(end.number).name}; {_left(request)}")
        raise click.exceptions.Exit(end.code) from None


def _left(request: PrepareRequest) -> str:
    """Return what an interrupted preparation has left."""
    from ensync.storage.partial import directory_of

    place = directory_of(_target(request))
    if place.is_dir():
        return (
            "a dataset that was there before is as it was; the same command goes on from what is "
            f"done, which is in {printable(str(place))}."
        )
    return (
        "nothing was written, and a dataset that was there before is as it was; prepare it again."
    )


def _target(request: PrepareRequest) -> Path:
    from ensync.storage.prepare import default_destination

    return Path(request.target or default_destination(request.name))


def _prepare(request: PrepareRequest) -> str:
    """Write a dataset with a progress bar; return what was done, in lines. Of several processes
    with the same request one does it.
    """
    from ensync.report.counting import counting
    from ensync.storage.prepare import prepare as prepare_dataset
    from ensync.storage.turns import in_turn

    def work() -> str:
        with counting(shown=speaks(), log=LOG) as progress:
            prepared = prepare_dataset(request, progress)
        names = [f"all that is left out is named in {prepared.names}"] if prepared.names else []
        hint = f"`ensync data describe {prepared.path}` tells what it holds"
        return "\n".join(map(printable, [*prepared.notes, *names, str(prepared), hint]))

    patience = HEAD_START * (started(os.environ).rank > 0)
    return in_turn(_target(request), repr((request, str(Path.cwd()))), work, patience)


@data.command("describe")
@click.argument("file", type=PLACE, metavar="FILE.h5")
def describe(file: str) -> None:
    """Print what a prepared dataset holds."""
    from ensync.storage.dataset import open_dataset

    def text() -> str:
        with open_dataset(file) as dataset:
            return dataset.describe()

    say(text)


@data.command("verify", short_help="Check that a dataset is as it was written.")
@click.argument("file", type=PLACE, metavar="FILE.h5")
def verify(file: str) -> None:
    """Read a prepared dataset and check that every image and label is as it was written.

    \b
      ensync data verify data/digits.h5

    Exit code 2 when something is damaged. Verbs that train or test check the images that they load,
    too.
    """
    from ensync.core.signals import raise_interrupts

    raise_interrupts()
    say_all(lambda: verdicts(file))


def verdicts(file: str) -> Iterator[str]:
    """Yield for each split of a dataset whether it is as it was written.
    Errors: EnsyncError, after that, when it is not.
    """
    from ensync.report.counting import counting
    from ensync.storage.dataset import open_dataset
    from ensync.storage.verification import damaged, faults

    with open_dataset(file) as dataset:
        with counting(shown=speaks()) as progress:
            found = faults(dataset, progress=progress)
        for split, fault in found.items():
            rows = dataset.sizes.get(split, sum(dataset.sizes.values()))
            yield f"{split:<10}  {rows:>11,} images  " + (
                f"damaged: {fault.format(split=split)} not as written" if fault else "as written"
            )
        if not dataset.digests:
            yield (
                printable(file)
                + " has no digests and was compared with its fingerprint, which cannot tell "
                "where damage is; `ensync data prepare` writes it with digests"
            )
        if bad := [split for split, fault in found.items() if fault]:
            raise damaged(dataset, found[bad[0]].format(split=bad[0]))
        yield f"{printable(file)} is as it was written"
