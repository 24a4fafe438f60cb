"""`rainbow completion SHELL`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

_HOW = {
    "bash": 'eval "$(rainbow completion bash)"   # in ~/.bashrc',
    "zsh": 'eval "$(rainbow completion zsh)"   # in ~/.zshrc',
    "fish": "rainbow completion fish | source   # in ~/.config/fish/config.fish",
}


@click.command(epilog="\b\n" + "\n".join(_HOW.values()))
@click.argument("shell", type=click.Choice(sorted(_HOW)))
def command(shell: str) -> None:
    """Print the completion script for a shell: commands, options, and the names of pipelines."""
    from ..cli import cli

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(cli, {}, "rainbow", "_RAINBOW_COMPLETE").source())
