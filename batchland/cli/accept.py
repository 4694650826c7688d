"""`batchland accept`: say that a suspicious night is good."""

from datetime import date, datetime
from pathlib import Path

import click

from batchland.cli.command import command
from batchland.cli.options import NIGHT, runs_option

FIXED = "the reference stays as it is, because the job names its nights"


@command(epilog="Example: batchland accept nightly --date 2026-11-23 --reason 'new camera'")
@click.argument("name", metavar="JOB")
@click.option("--date", "night", type=NIGHT, required=True, help="The suspicious night.")
@click.option("--reason", help="Why it is good; stored in the record.")
@click.option("--once", is_flag=True, help="For a single unusual night: keep the reference, and add the night to it.")
@runs_option
def accept(name: str, night: datetime, reason: str | None, once: bool, runs: Path) -> None:
    """Accept a suspicious night of job JOB as the new normal.

    The nights before it with the same change are accepted, too. A new reference begins with the first of them; later
    nights are compared with that. A night that also failed for another reason, or is accepted already, is refused.
    """
    from batchland.nightly.accept import accept_night
    from batchland.nightly.dates import local_today
    from batchland.trend.write import write_night_pages

    nights, since, reference, fixed = accept_night(runs / name, night.date(), reason=reason, once=once)
    write_night_pages(runs / name, local_today())
    named = f"{nights[0]}" if len(nights) == 1 else f"{nights[0]} to {nights[-1]}, {len(nights)} nights"
    effect = FIXED if fixed else _effect(nights, since, reference, once=once)
    click.echo(f"Accepted: job {name}, {named}; {effect}.")


def _effect(nights: list[date], since: date, reference: list[date], *, once: bool) -> str:
    if not once:
        few = (
            "" if reference else f", but nothing is compared with {nights[-1]}, which has fewer than 5 readable images"
        )
        return f"a new reference begins with {since}, without earlier nights{few}"
    if not reference:
        return "the reference stays: it is full or begins later, or the night has fewer than 5 readable images"
    joined = "it joins" if len(nights) == 1 else "all join" if reference == nights else f"{len(reference)} join"
    return f"{joined} the reference"
