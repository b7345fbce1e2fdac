"""gtj completion: the script that makes the shell complete commands, options and the names of runs."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command("completion", short_help="Print the completion script of a shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print the completion script of SHELL.

    \b
    bash:  eval "$(gtj completion bash)"               (in ~/.bashrc)
    zsh:   eval "$(gtj completion zsh)"                (in ~/.zshrc)
    fish:  gtj completion fish > ~/.config/fish/completions/gtj.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None, "click knows these three shells"
    click.echo(kind(context.find_root().command, {}, "gtj", "_GTJ_COMPLETE").source())
