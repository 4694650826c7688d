"""`batchland completion`: the script that completes commands and options in a shell."""

import click

from batchland.cli.command import command


@command(epilog="Example: batchland completion bash > ~/.local/share/bash-completion/completions/batchland")
@click.argument("shell", metavar="bash|zsh|fish", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of your shell.

    It completes commands, options, values and files.

    \b
    bash: batchland completion bash > ~/.local/share/bash-completion/completions/batchland
    zsh:  batchland completion zsh > ~/.zfunc/_batchland   (with fpath+=~/.zfunc before compinit in ~/.zshrc)
    fish: batchland completion fish > ~/.config/fish/completions/batchland.fish
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(ctx.find_root().command, {}, "batchland", "_BATCHLAND_COMPLETE").source()
    # Click's script for fish splits "plain,run<TAB>Score, evaluate" at every comma.
    click.echo(script.replace('(string split "," $completion)', '(string split --max 1 "," $completion)'))
