"""Options that verbs share, options as one object, and groups that name the nearest verb."""

import os
from collections.abc import Callable
from dataclasses import fields
from functools import wraps
from typing import Any

import click

from ensync.core.errors import nearest
from ensync.core.resources import number

settings = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="SECTION.KEY=VALUE",
    help="Override a setting of the job file; may be repeated.",
)
verbose = click.option("--verbose", is_flag=True, help="Let every rank speak, not only rank 0.")


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


def bundle(kind: type, name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a verb the options that are fields of a dataclass as one object, its argument `name`."""
    names = [field.name for field in fields(kind)]

    def decorate(verb: Callable[..., None]) -> Callable[..., None]:
        @wraps(verb)
        def call(**values: Any) -> None:
            verb(**{name: kind(**{one: values.pop(one) for one in names})}, **values)

        return call

    return decorate


def restarted(asked: bool) -> bool:
    """Return whether to continue an existing run: asked for, or Slurm has restarted this job."""
    return asked or number(os.environ.get("SLURM_RESTART_COUNT")) > 0
