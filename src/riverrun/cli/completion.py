"""`riverrun completion`: scripts that let a shell complete commands and options."""

import click
from click.shell_completion import get_completion_class


@click.command
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a completion script for SHELL; use it with eval "$(riverrun completion bash)"."""
    completer = get_completion_class(shell)
    assert completer is not None  # noqa: S101  click supports all three
    root = context.find_root()
    click.echo(completer(root.command, {}, "riverrun", "_RIVERRUN_COMPLETE").source())
