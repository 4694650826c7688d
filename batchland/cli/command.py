"""Click classes of all commands: options can be made from models; errors become one line and an exit code."""

import errno
import os
import re
from collections.abc import Callable, Iterable
from typing import Any, Final

import click

from batchland.cli.advice import with_advice
from batchland.cli.options import ModelOptions
from batchland.errors import BatchlandError, InputError, LockedError
from batchland.system.names import display_path
from batchland.system.streams import STORAGE_ERRORS, drop_broken_stdout

_OUT_OF_MEMORY: Final = re.compile("can't start new thread|failed to map segment|[Cc]annot allocate memory")


class Command(click.Command):
    """A command. A BatchlandError becomes one line on stderr and its exit code; a traceback means a bug."""

    _params: list[Any]

    @property
    def params(self) -> list[click.Parameter]:
        """All parameters. The first access imports the option models."""
        given, self._params = self._params, []
        for each in given:
            self._params += each.make() if isinstance(each, ModelOptions) else [each]
        return self._params

    @params.setter
    def params(self, params: list[Any]) -> None:
        self._params = params

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; turn expected errors into a message and an exit code."""
        try:
            return super().invoke(ctx)
        except BatchlandError as error:
            flags = {flag for parameter in self.params for flag in parameter.opts}
            click.echo(f"batchland: {with_advice(error, flags)}", err=True)
            ctx.exit(error.exit_code)
        except OSError as error:
            if (message := _storage_failure(error)) is None:
                raise
            click.echo(f"batchland: {message}", err=True)
            ctx.exit(InputError.exit_code)
        except (MemoryError, RuntimeError, ImportError) as error:
            if not isinstance(error, MemoryError) and not _OUT_OF_MEMORY.search(str(error)):
                raise
            click.echo(
                f"batchland: out of memory ({error}); raise the limit of this process, or run less at once", err=True
            )
            ctx.exit(LockedError.exit_code)
        except KeyboardInterrupt:  # not handled by the command itself
            click.echo("batchland: interrupted", err=True)
            ctx.exit(130)


def _storage_failure(error: OSError) -> str | None:
    """The message for a failed disk or standard output that the command did not handle; None for other errors."""
    stdout_failed = not drop_broken_stdout() or error.errno == errno.EPIPE
    if not stdout_failed and error.errno not in STORAGE_ERRORS:
        return None
    where = "standard output" if stdout_failed or not error.filename else display_path(error.filename)
    reason = os.strerror(error.errno) if error.errno else str(error)
    return f"{where}: cannot be read or written ({reason}); fix this, then run the same command again"


class Group(click.Group):
    """A group of commands, listed in the order in which they were added, and under headings if it has sections."""

    command_class = Command

    def __init__(self, *arguments: Any, **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        self._sections: dict[str, list[str]] = {}

    def add_section(self, heading: str, commands: Iterable[click.Command]) -> None:
        """Add commands that `--help` lists under that heading."""
        for command in commands:
            self.add_command(command)
            self._sections.setdefault(heading, []).append(str(command.name))

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Command names in that order."""
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands with the first sentence of their help."""
        if not self._sections:
            return super().format_commands(ctx, formatter)
        width = max(map(len, self.commands))
        for heading, names in self._sections.items():
            with formatter.section(heading):
                texts = (self.commands[name].get_short_help_str(formatter.width - width - 6) for name in names)
                formatter.write_dl([(f"{name:{width}}", text) for name, text in zip(names, texts, strict=True)])
        return None


def command(**attributes: Any) -> Callable[[Callable[..., Any]], Command]:
    """Decorator: make a Command from a function."""
    return click.command(cls=Command, **attributes)


def group(**attributes: Any) -> Callable[[Callable[..., Any]], Group]:
    """Decorator: make a Group from a function."""
    return click.group(cls=Group, **attributes)
