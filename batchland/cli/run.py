"""`batchland run` and `batchland job`: run a job, as cron does every night, and check its job file."""

from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchland.cli.advice import with_advice
from batchland.cli.command import command, group
from batchland.cli.options import JOB_NAME, NIGHT, PATH, json_option, print_json, runs_option
from batchland.system.text import counted

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date

    from batchland.errors import BatchlandError

_set_option = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a key of the job file, e.g. --set batch_size=8 or --set evaluation.gates='[\"top1 < 0.7\"]'. "
    "Repeatable.",
)


@command(tables=True, epilog="Example: batchland run jobs/nightly.toml --date 2026-11-23")
@click.argument("job_file", metavar="JOB", type=PATH)
@click.option("--date", "night", type=NIGHT, help="The night to run.  [default: as the job says, yesterday or today]")
@click.option("--from", "first", type=NIGHT, help="Run every night from this one ...")
@click.option("--to", "last", type=NIGHT, help="... to this one, without heartbeat and notification.")
@_set_option
@click.option("--force", is_flag=True, help="Replace a complete partition. Readers see the old or the new one.")
@click.option("--future", is_flag=True, help="Allow dates after today. Metrics and retention ignore such nights.")
@click.option("--dry-run", is_flag=True, help="Print what the run would do, without doing it.")
@json_option
@click.pass_context
def run(
    ctx: click.Context,
    job_file: Path,
    night: datetime | None,
    first: datetime | None,
    last: datetime | None,
    settings: tuple[str, ...],
    force: bool,
    future: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Run one night of a job: score, evaluate, check gates, record.

    JOB is a TOML file. Running it again is safe: complete work is kept, unfinished work is continued, and two runs
    never overlap. The record of the night is runs/NAME/DATE/run.json. Afterwards runs/index.html shows the last nights
    of all jobs, and runs/NAME/trend.html those of this one.

    \b
    Exit codes: 0 done; 2 usage; 3 too many failed images; 4 a gate failed or the delivery is wrong;
    5 model or device; 6 suspicious; 66 no or incomplete delivery; 69 Ray cannot be reached;
    74 output cannot be written; 75 another run is active; 130, 143 interrupted or out of time, a rerun continues.
    """
    from batchland.cli.documents import RunResult
    from batchland.nightly.dates import check_date, local_today
    from batchland.nightly.job import load_job
    from batchland.nightly.plan import plan_night
    from batchland.nightly.run_text import describe_run
    from batchland.nightly.runner import run_night
    from batchland.trend.write import write_night_pages

    if as_json and dry_run:
        raise click.UsageError("--json prints the records of runs; give `batchland job check --json` for a plan")
    job = load_job(job_file, settings)
    exit_code, records = 0, []
    today = local_today()
    nights = _nights(night, first, last) or [job.night(today)]
    if not future:
        check_date(nights[-1], today)
    advise = partial(with_advice, flags=())
    if dry_run:
        for day in nights:
            click.echo("\n".join(plan_night(job, day, force=force, future=future, advise=advise).lines))
        return
    errors: list[str] = []
    try:
        for day in nights:
            result = run_night(job, day, force=force, quiet=first is not None, future=future, advise=advise)
            records.append(result.record)
            if not as_json:
                click.echo(describe_run(result.record, result.attempt, error=False), nl=False)
            attempt = result.attempt
            if attempt.exit_code and attempt.error:
                outcome = attempt.outcome.replace("_", " ")
                errors.append(f"batchland: job {job.name}, {day}: {outcome}: {attempt.error}")
            exit_code = exit_code or attempt.exit_code or 0
            if attempt.outcome in ("locked", "interrupted"):
                break
    finally:
        write_night_pages(job.folder, today)
    if as_json:
        print_json(RunResult(exit_code=exit_code, nights=tuple(records)))
    else:
        for error in errors:  # last, because cron mails the last line
            click.echo(error, err=True)
    ctx.exit(exit_code)


def _nights(night: datetime | None, first: datetime | None, last: datetime | None) -> "list[date]":
    if first is None and last is None:
        return [night.date()] if night else []
    if first is None or last is None or night is not None:
        raise click.UsageError("give --from and --to together, and without --date")
    if last < first:
        raise click.UsageError(f"--to {last:%Y-%m-%d} is before --from {first:%Y-%m-%d}")
    return [(first + timedelta(days=days)).date() for days in range((last - first).days + 1)]


@group()
def job() -> None:
    """Check a job file, test its notifications, remove a record."""


@job.command(epilog="Example: batchland job check jobs/nightly.toml")
@click.argument("job_file", metavar="FILE", type=PATH)
@_set_option
@json_option
@click.pass_context
def check(ctx: click.Context, job_file: Path, settings: tuple[str, ...], as_json: bool) -> None:
    """Check a job file, and print what a run would do now.

    That is a run without --date. An unknown key, an invalid value or a gate that cannot be read is an error that names
    it (exit code 2). Problems that would make the run fail have a line that begins with `fail:`, and the first of them
    gives the exit code: a model that cannot be used (5), a missing delivery (66), missing labels (2), or an output that
    is not the job's (2). `batchland doctor --job` checks the machine as well.
    """
    from batchland.cli.documents import JobCheck, Problem
    from batchland.nightly.job import load_job
    from batchland.nightly.plan import plan_night

    loaded = load_job(job_file, settings)
    night = loaded.night(datetime.now().astimezone().date())
    plan = plan_night(loaded, night, open_models=True, advise=partial(with_advice, flags=()))
    if as_json:
        problems = tuple(Problem(message=str(each), exit_code=each.exit_code) for each in plan.problems)
        steps = tuple(line.strip() for line in plan.lines)
        print_json(
            JobCheck(
                job=loaded.name,
                job_file=str(loaded.file),
                date=night,
                ok=not problems,
                steps=steps,
                problems=problems,
            )
        )
    else:
        click.echo("\n".join([f"{job_file}: {_verdict(plan.problems)}", *plan.lines]))
    ctx.exit(plan.problems[0].exit_code if plan.problems else 0)


@job.command("notify", epilog="Example: batchland job notify jobs/nightly.toml")
@click.argument("job_file", metavar="FILE", type=PATH)
@_set_option
@click.pass_context
def notify(ctx: click.Context, job_file: Path, settings: tuple[str, ...]) -> None:
    """Send a test notification.

    Sends the message about the newest night, marked as a test, through every channel of [notify]. The exit code is 69
    if one of them failed.
    """
    from batchland.errors import DownloadError
    from batchland.nightly.job import load_job
    from batchland.nightly.notifications.trial import send_trial

    failed = False
    for channel, fault in send_trial(load_job(job_file, settings)):
        failed = failed or fault is not None
        click.echo(f"{channel}: {fault or 'sent'}", err=fault is not None)
    ctx.exit(DownloadError.exit_code if failed else 0)


@job.command("remove-record", tables=True, epilog="Example: batchland job remove-record nightly --date 2030-01-01")
@click.argument("name", type=JOB_NAME)
@click.option("--date", "night", type=NIGHT, required=True, help="The night of the record.")
@runs_option
def remove_record(name: str, night: datetime, runs: Path) -> None:
    """Remove the record of one night of job NAME.

    For example that of a mistyped date. The record is renamed to run.json.removed. Log, report and predictions of the
    night stay.
    """
    from batchland.nightly.dates import local_today
    from batchland.nightly.notifications.metrics import metrics_file, refresh_metrics
    from batchland.nightly.record_files import read_runs
    from batchland.nightly.record_files import remove_record as remove
    from batchland.trend.write import write_night_pages

    metrics = metrics_file(read_runs(runs / name), local_today())
    removed = remove(runs / name, night.date(), local_today())
    refresh_metrics(runs / name, local_today(), metrics)
    write_night_pages(runs / name, local_today())
    click.echo(f"Removed: job {name}, {night:%Y-%m-%d}; the record is now {removed}.")


def _verdict(problems: "Sequence[BatchlandError]") -> str:
    if not problems:
        return "fine"
    return f"a run would fail now, {counted(len(problems), 'problem')} (see fail: below)"
