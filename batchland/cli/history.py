"""`batchland history` and `batchland trend`: what the nights of a job were like."""

from datetime import datetime
from pathlib import Path

import click

_runs = click.option(
    "--runs",
    type=click.Path(path_type=Path),
    default=Path("runs"),
    show_default=True,
    help="The folder with the records of all jobs.",
)


@click.command(epilog="Example: batchland history nightly --last 7")
@click.argument("name")
@_runs
@click.option("--last", type=click.IntRange(1), default=30, show_default=True, help="Nights to show.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one line per night and model.")
def history(name: str, runs: Path, last: int, as_json: bool) -> None:
    """Show the nights of job NAME as a table.

    What came in, what failed, how right and how fast it was, and why a night did not end well.
    """
    from batchland.nightly.history import job_records, nights, table

    rows = nights(job_records(runs, name)[-last:])
    if as_json:
        for row in rows:
            click.echo(row.model_dump_json())
    else:
        click.echo(table(rows), nl=False)


@click.command(epilog="Example: batchland trend nightly --out trend.html --reference 2026-11-01 2026-11-07")
@click.argument("name")
@_runs
@click.option(
    "-o",
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="The page; its table lies beside it, *.parquet. An earlier trend there is replaced.",
)
@click.option("--last", type=click.IntRange(1), default=90, show_default=True, help="Nights on the page.")
@click.option(
    "--reference-nights",
    type=click.IntRange(1),
    default=7,
    show_default=True,
    help="Compare with so many first good nights of each version of a model.",
)
@click.option(
    "--reference",
    nargs=2,
    type=click.DateTime(["%Y-%m-%d"]),
    metavar="FROM TO",
    help="Compare with the good nights of these dates instead.",
)
def trend(
    name: str, runs: Path, out: Path, last: int, reference_nights: int, reference: tuple[datetime, datetime] | None
) -> None:
    """Draw how job NAME develops from night to night.

    A page of accuracy, predicted classes, confidence, drift against a reference, failures and speed; and its table.
    """
    from batchland.errors import UsageError
    from batchland.nightly.dates import local_today, without_future
    from batchland.nightly.history import job_records
    from batchland.trend.measure import measure
    from batchland.trend.options import TrendOptions
    from batchland.trend.page import terminal_summary
    from batchland.trend.write import write_trend

    dates = (reference[0].date(), reference[1].date()) if reference else None
    if dates and dates[0] > dates[1]:
        raise UsageError(f"--reference {dates[0]} {dates[1]}: ends before it begins; give the earlier date first")
    options = TrendOptions(reference_nights=reference_nights, reference=dates, nights=last)
    found = measure(without_future(job_records(runs, name), local_today()), options)
    files = write_trend(found, out)
    click.echo(terminal_summary(found) + f"Trend: {files.html}; table: {files.parquet}.")
