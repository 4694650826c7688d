"""`batchland accept`: say that a suspicious night is good."""

from datetime import datetime
from pathlib import Path

import click

from batchland.cli.command import command
from batchland.cli.options import NIGHT, runs_option


@command(epilog="Example: batchland accept nightly --date 2026-11-23 --reason 'new camera'")
@click.argument("name", metavar="JOB")
@click.option("--date", "night", type=NIGHT, required=True, help="The suspicious night.")
@click.option("--reason", help="Why it is good; stored in the record.")
@click.option(
    "--once", is_flag=True, help="The night is odd, but nothing has changed: keep the reference, and add the night."
)
@runs_option
def accept(name: str, night: datetime, reason: str | None, once: bool, runs: Path) -> None:
    """Accept a suspicious night of job JOB as the new normal.

    The nights before it with the same change are accepted, too. From now on later nights are compared with the accepted
    ones: the reference begins anew with the first of them.
    """
    from batchland.nightly.accept import accept_night
    from batchland.nightly.dates import local_today
    from batchland.trend.write import write_night_pages

    accepted = accept_night(runs / name, night.date(), reason=reason, once=once)
    write_night_pages(runs / name, local_today())
    nights = f"{accepted[0]}" if len(accepted) == 1 else f"{accepted[0]} to {accepted[-1]}, {len(accepted)} nights"
    after = "joins the reference" if once else f"the reference begins anew with {accepted[0]}, without earlier nights"
    click.echo(f"Accepted: job {name}, {nights}; {after}.")
