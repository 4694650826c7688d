"""`batchland history`, `trend` and `index`: the nights of a job as a table and as plots, and all jobs on one page."""

from pathlib import Path
from typing import Any

import click

from batchland.cli.command import command
from batchland.cli.options import (
    JOB_NAME,
    PATH,
    Flag,
    build,
    json_option,
    options_of,
    overwrite_option,
    print_json,
    runs_option,
)


@command(epilog="Example: batchland history nightly --last 7")
@click.argument("name", type=JOB_NAME)
@runs_option
@click.option("--last", type=click.IntRange(1, 1_000_000), default=30, show_default=True, help="Nights to show.")
@json_option
def history(name: str, runs: Path, last: int, as_json: bool) -> None:
    """Show the nights of job NAME as a table.

    Images delivered and failed, accuracy, speed, and why a night failed.
    """
    from batchland.cli.documents import History
    from batchland.nightly.history import job_records, nights, table

    rows = nights(job_records(runs, name), last)
    if as_json:
        print_json(History(job=name, nights=tuple(rows)))
    else:
        click.echo(table(rows), nl=False)


@command(tables=True, epilog="Example: batchland trend nightly --out trend.html --reference 2026-11-01 2026-11-07")
@click.argument("name", type=JOB_NAME)
@runs_option
@click.option(
    "-o",
    "--out",
    required=True,
    type=PATH,
    help="The page, NAME.html; its table is NAME.parquet beside it. Earlier ones of the same job are replaced.",
)
@options_of(
    "batchland.trend.options:TrendOptions",
    Flag("nights", "--last"),
    "reference_nights",
    Flag("reference", metavar="FROM TO"),
    "map",
)
@overwrite_option
def trend(name: str, runs: Path, out: Path, overwrite: bool, **values: Any) -> None:
    """Plot accuracy, drift and speed of job NAME over its nights.

    Writes a page with plots of accuracy, predicted classes, confidence, drift against a reference, failures and speed,
    and a table with the same numbers.
    """
    from batchland.nightly.dates import local_today, without_future
    from batchland.nightly.history import job_records
    from batchland.report.options import ReportOptions
    from batchland.trend.measure import measure
    from batchland.trend.options import TrendOptions
    from batchland.trend.page import terminal_summary
    from batchland.trend.write import write_trend

    options = build(TrendOptions, values)
    found = measure(without_future(job_records(runs, name), local_today()), options)
    files = write_trend(found, out, ReportOptions(inputs=(str(runs / name),), overwrite=overwrite))
    click.echo(terminal_summary(found) + f"Trend: {files.html}; table: {files.parquet}.")


@command(epilog="Example: batchland index --runs runs")
@runs_option
def index(runs: Path) -> None:
    """Write runs/index.html, the page over all jobs.

    It shows how the last nights ended, with links to reports and trends. `batchland run` does this after every night;
    this command is for a page that was deleted.
    """
    from batchland.nightly.dates import local_today
    from batchland.trend.write import write_overview

    click.echo(f"Jobs: {write_overview(runs, local_today())}.")
