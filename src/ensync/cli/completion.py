"""`ensync completion`."""

import click
from click.shell_completion import get_completion_class

from ensync.cli.ranks import say

SHELLS = ("bash", "zsh", "fish")
ASKED_BY = "_ENSYNC_COMPLETE"  # click's variable for a program of this name


@click.command(short_help="Print what has a shell complete verbs and options.")
@click.argument("shell", type=click.Choice(SHELLS), metavar="|".join(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what has a shell complete verbs, options, settings and files.

    \b
      eval "$(ensync completion bash)"   # in ~/.bashrc; zsh alike in ~/.zshrc
      ensync completion fish             # into ~/.config/fish/completions/ensync.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None
    say(kind(context.find_root().command, {}, "ensync", ASKED_BY).source)
