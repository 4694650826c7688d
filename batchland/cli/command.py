"""Click classes of all commands: options can be made from models; errors become one line and an exit code."""

import errno
import json
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final, NoReturn

import click

from batchland.cli.advice import with_advice
from batchland.cli.options import JSON_PRINTED, ModelOptions
from batchland.errors import BatchlandError, InputError, LockedError, UsageError
from batchland.system.cores import out_of_memory, require_address_space
from batchland.system.names import display_path
from batchland.system.paths import require_current_folder
from batchland.system.streams import STORAGE_ERRORS, drop_broken_stdout, stdout_has_reader
from batchland.system.text import one_line

_LONGEST_MESSAGE: Final = 1000
"""Characters of a usage error, which may contain the user's input."""
_REFUSED: Final = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ELOOP)


class Command(click.Command):
    """A command. A BatchlandError becomes one line on stderr and its exit code; a traceback means a bug.

    With --json, an error that ends the command before its result becomes a JSON document on stdout instead.
    """

    _params: list[Any]

    def __init__(self, *arguments: Any, tables: bool = False, **attributes: Any) -> None:
        """tables: whether it uses pyarrow, so that pandas is to be kept out."""
        super().__init__(*arguments, **attributes)
        self._tables = tables

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

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the options; with --json, a usage error is a document, too."""
        as_json = "--json" in args and self._prints_json()
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            message = error.format_message()
            shortened = one_line(message, _LONGEST_MESSAGE)
            if as_json:
                _fail(ctx, shortened, UsageError.exit_code, as_json=True)
            if len(message) > _LONGEST_MESSAGE:
                raise click.UsageError(shortened, ctx=ctx) from error
            raise

    def format_epilog(self, _: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the example on one line, so that it can be copied."""
        if self.epilog:
            formatter.write_paragraph()
            formatter.write(f"  {self.epilog}\n")

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; turn expected errors into a message and an exit code."""
        as_json = self._prints_json() and bool(ctx.params.get("as_json"))
        try:
            require_address_space()
            require_current_folder()
            if self._tables:
                from batchland.system.arrow import keep_pandas_out

                keep_pandas_out()
            return super().invoke(ctx)
        except click.UsageError as error:
            if not as_json:
                raise
            _fail(ctx, error.format_message(), UsageError.exit_code, as_json=True)
        except BatchlandError as error:
            flags = {flag for parameter in self.params for flag in parameter.opts}
            _fail(ctx, with_advice(error, flags), error.exit_code, as_json=as_json)
        except OSError as error:
            if error.errno == errno.EPIPE and not stdout_has_reader():
                drop_broken_stdout()
                ctx.exit(InputError.exit_code)
            if (message := _storage_failure(error)) is None:
                raise
            _fail(ctx, message, InputError.exit_code, as_json=as_json)
        except KeyboardInterrupt:  # not handled by the command itself
            _fail(ctx, "interrupted", 130, as_json=as_json)
        except Exception as error:
            if not out_of_memory(error):
                if as_json:
                    _print_error(ctx, "a bug; its traceback is on standard error", 1)
                raise
            message = f"out of memory ({error}); raise the limit of this process, or run less at once"
            _fail(ctx, message, LockedError.exit_code, as_json=as_json)

    def _prints_json(self) -> bool:
        return any("--json" in parameter.opts for parameter in self.params)


def _fail(ctx: click.Context, message: str, exit_code: int, *, as_json: bool) -> NoReturn:
    """Print an error and end the command: one line on stderr, or with --json one document on stdout.

    If a document was printed before, the error goes to stderr: stdout never has two.
    """
    if not as_json or not _print_error(ctx, message, exit_code):
        click.echo(f"batchland: {message}", err=True)
    ctx.exit(exit_code)


def _print_error(ctx: click.Context, message: str, exit_code: int) -> bool:
    """Print an error as the one document on stdout; False if there is one already."""
    if JSON_PRINTED in ctx.meta:
        return False
    error = {"schema_version": 1, "kind": "batchland.error", "exit_code": exit_code, "message": message}
    with suppress(OSError):  # stdout is gone, and the exit code says so
        click.echo(json.dumps(error))
    return True


def _storage_failure(error: OSError) -> str | None:
    """The message for a failed disk or standard output that the command did not handle; None for other errors.

    Also for a file that may not be opened, such as a lock in a folder that is read-only.
    """
    stdout_failed = not drop_broken_stdout() or error.errno == errno.EPIPE
    refused = error.errno in _REFUSED and bool(error.filename)
    if not stdout_failed and not refused and error.errno not in STORAGE_ERRORS:
        return None
    where = "standard output" if stdout_failed or not error.filename else display_path(error.filename)
    reason = (error.strerror if refused else error.errno and os.strerror(error.errno)) or str(error)
    return f"{where}: cannot be read or written ({reason}); fix this, then run the same command again"


class Group(click.Group):
    """A group of commands, listed in the order in which they were added, and under headings if it has sections."""

    command_class = Command

    def __init__(self, *arguments: Any, **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        self._sections: dict[str, list[str]] = {}

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the options. The group's own long flags, such as --quiet, may also stand behind the command."""
        flags = {flag for each in self.params if isinstance(each, click.Option) and each.is_flag for flag in each.opts}
        flags = {flag for flag in flags if flag.startswith("--") and flag not in ("--help", "--version")}
        end = args.index("--") if "--" in args else len(args)
        moved = [each for each in args[:end] if each.partition("=")[0] in flags]  # click refuses --flag=value
        return super().parse_args(ctx, [*moved, *(each for each in args[:end] if each not in moved), *args[end:]])

    def invoke(self, ctx: click.Context) -> Any:
        """Parse the options of a command and run it."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # while options are imported: a running command handles the signal itself
            _fail(ctx, "interrupted", 130, as_json=False)

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
