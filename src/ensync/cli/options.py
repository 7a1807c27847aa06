"""Options that verbs share, options as one object, and groups that name the nearest verb."""

import os
from collections.abc import Callable
from dataclasses import fields
from functools import wraps
from typing import Any

import click
from click.shell_completion import CompletionItem

from ensync.core.errors import nearest
from ensync.core.resources import number
from ensync.runs.options import RunOptions

Verb = Callable[..., None]


class Place(click.ParamType):
    """The path of a file or directory, which a shell completes as such."""

    name = "path"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return the item that has the shell look for files."""
        return [CompletionItem(incomplete, type="file")]


PLACE = Place()


class ImageShape(click.ParamType):
    """Height, width and channels, such as 28x28x1 or 28x28, which is grey."""

    name = "shape"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return (height, width, channels)."""
        parts = str(value).lower().split("x")
        if len(parts) in (2, 3) and all(
            part.isdecimal() and len(part) < 6 and int(part) > 0 for part in parts
        ):
            return (*map(int, parts), 1)[:3]
        self.fail(
            f"'{value}' is no shape; give HEIGHTxWIDTHxCHANNELS, such as 28x28x1.", param, ctx
        )


def setting_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the settings, by their whole names, that begin like what is there; for a shell."""
    from ensync.core.config.explanation import names

    return [name for name in names() if name.startswith(incomplete)]


settings = click.option(
    "--set",
    "overrides",
    multiple=True,
    shell_complete=setting_names,
    metavar="SECTION.KEY=VALUE",
    help="Override a setting of the job file; may be repeated.",
)
verbose = click.option("--verbose", is_flag=True, help="Let every rank speak, not only rank 0.")
other_data = click.option(
    "--data",
    type=PLACE,
    metavar="FILE.h5",
    help="Test on the test images of another dataset, of the same shape and classes.",
)


class Verbs(click.Group):
    """A group that names the nearest verb."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Find the verb, or say which was meant."""
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            raise click.UsageError(
                f"no verb '{args[0]}'{nearest(args[0], self.commands)}; expected one of "
                f"{', '.join(sorted(self.commands))}; see ensync --help."
            )
        return super().resolve_command(ctx, args)


class FusionMethod(click.ParamType):
    """The name of a fusion. Their table is loaded when it is needed, not for every help."""

    name = "fusion"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the name, or say which there are."""
        return _fusions().convert(value, param, ctx)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:
        """Return the names."""
        return _fusions().get_metavar(param, ctx)


def _fusions() -> click.Choice[str]:
    from ensync.core.fusion import FUSIONS

    return click.Choice(list(FUSIONS))


def bundle(kind: type, name: str) -> Callable[[Verb], Verb]:
    """Give a verb the options that are fields of a dataclass as one object, its argument `name`."""
    names = [field.name for field in fields(kind)]

    def decorate(verb: Verb) -> Verb:
        @wraps(verb)
        def call(**values: Any) -> None:
            verb(**{name: kind(**{one: values.pop(one) for one in names})}, **values)

        return call

    return decorate


def run_options(resume: str, overwrite: str) -> Callable[[Verb], Verb]:
    """Give a verb --set, --resume, --overwrite and --verbose as its argument `options`.

    resume, overwrite: their help.
    """

    def decorate(verb: Verb) -> Verb:
        verb = verbose(bundle(RunOptions, "options")(verb))
        verb = click.option("--overwrite", is_flag=True, help=overwrite)(verb)
        verb = click.option("--resume", is_flag=True, callback=_resume, help=resume)(verb)
        return settings(verb)

    return decorate


def _resume(ctx: click.Context, param: click.Parameter, given: bool) -> bool:
    """Return whether to continue an existing run: asked for, or Slurm has restarted this job."""
    return given or number(os.environ.get("SLURM_RESTART_COUNT")) > 0
