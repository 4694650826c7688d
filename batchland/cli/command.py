"""A command of the command line: its options may come from models, its errors are one line and an exit code."""

from collections.abc import Callable
from typing import Any

import click

from batchland.cli.advice import with_advice
from batchland.cli.options import ModelOptions
from batchland.errors import BatchlandError


class Command(click.Command):
    """A command. A BatchlandError becomes one line on stderr and its exit code; a traceback means a bug."""

    _params: list[Any]

    @property
    def params(self) -> list[click.Parameter]:
        """All parameters. Imports the models of its options on first use."""
        given, self._params = self._params, []
        for each in given:
            self._params += each.make() if isinstance(each, ModelOptions) else [each]
        return self._params

    @params.setter
    def params(self, params: list[Any]) -> None:
        self._params = params

    def invoke(self, ctx: click.Context) -> Any:
        """Run it."""
        try:
            return super().invoke(ctx)
        except BatchlandError as error:
            flags = {flag for parameter in self.params for flag in parameter.opts}
            click.echo(f"batchland: {with_advice(error, flags)}", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:  # where no step of the command handles it
            click.echo("batchland: interrupted", err=True)
            ctx.exit(130)


class Group(click.Group):
    """A group of commands, listed in the order in which they were added."""

    command_class = Command

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Names in that order."""
        return list(self.commands)


def command(**attributes: Any) -> Callable[[Callable[..., Any]], Command]:
    """A Command made of a function."""
    return click.command(cls=Command, **attributes)


def group(**attributes: Any) -> Callable[[Callable[..., Any]], Group]:
    """A Group made of a function."""
    return click.group(cls=Group, **attributes)
