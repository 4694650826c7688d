"""`batchland cron`: a job's entry in the user's crontab."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchland.cli.command import group
from batchland.cli.options import PATH

if TYPE_CHECKING:
    from batchland.nightly.crontab import Entry


@group()
def cron() -> None:
    """Let cron run a job every night."""


def _entry_options(command: Any) -> Any:
    for option in (
        click.option(
            "--env",
            "variables",
            multiple=True,
            metavar="NAME=VALUE",
            help="Set this variable, too; not for secrets. Repeatable.",
        ),
        click.option(
            "--log",
            type=PATH,
            help="File for the output.  [default: cron.log in the job's folder of records]",
        ),
        click.option(
            "--schedule",
            default="30 3 * * *",
            show_default=True,
            help="Minute, hour, day, month, weekday, in the time zone of the cron daemon; or @daily and the like.",
        ),
        click.argument("job", type=PATH),
    ):
        command = option(command)
    return command


@cron.command(epilog='Example: batchland cron show jobs/nightly.toml --schedule "15 4 * * *"')
@_entry_options
def show(**options: Any) -> None:
    """Print what `install` would write.

    JOB is a job file. The lines set the variables that cron does not set, and report a failed night.
    """
    from batchland.nightly.crontab import render

    click.echo(render(_entry(**options)), nl=False)


@cron.command(epilog="Example: batchland cron install jobs/nightly.toml")
@_entry_options
def install(**options: Any) -> None:
    """Put a job into your crontab.

    JOB is a job file. Its earlier entry is replaced; no other line changes.
    """
    from batchland.nightly.crontab import daemon_runs
    from batchland.nightly.crontab import install as put

    entry = _entry(**options)
    put(entry)
    click.echo(f"Installed: {entry.job} at {entry.schedule!r}, log {entry.log}.")
    if not daemon_runs():
        click.echo("batchland: no process is called cron or crond; start the cron daemon, or nothing runs", err=True)


@cron.command(epilog="Example: batchland cron remove nightly")
@click.argument("job")
def remove(job: str) -> None:
    """Remove a job from your crontab.

    JOB is a name or a job file. No other line changes.
    """
    from batchland.nightly.crontab import remove as take_out
    from batchland.nightly.job import load_job

    name = load_job(Path(job)).name if job.endswith(".toml") else job
    click.echo(f"Removed: {name}." if take_out(name) else f"There is no entry for {name}.")


def _entry(job: Path, schedule: str, log: Path | None, variables: tuple[str, ...]) -> "Entry":
    from batchland.nightly.crontab import entry_of
    from batchland.nightly.job import load_job

    pairs = dict(variable.partition("=")[::2] for variable in variables if "=" in variable)
    if len(pairs) < len(variables):
        raise click.UsageError("--env takes NAME=VALUE, every NAME once")
    return entry_of(load_job(job, variables=pairs), schedule=schedule, log=log, variables=pairs)
