"""`batchland accept`: say that a suspicious night is good, or take that back."""

import os
import shlex
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchland.cli.command import command
from batchland.cli.options import JOB_NAME, NIGHT, runs_option
from batchland.system.text import first_few

if TYPE_CHECKING:
    from batchland.nightly.accept import Accepted, Withdrawn

FIXED = "the reference stays as it is, because the job names it"


@command(tables=True, epilog="Example: batchland accept nightly --date 2026-11-23 --reason 'new camera'")
@click.argument("name", type=JOB_NAME, metavar="JOB")
@click.option("--date", "night", type=NIGHT, required=True, help="The suspicious night.")
@click.option("--reason", help="Why it is good, or why it is not after all; stored in the record.")
@click.option("--once", is_flag=True, help="For a single unusual night: it is good, but the reference stays as it is.")
@click.option("--withdraw", is_flag=True, help="Withdraw the acceptance: the reference is again the one before.")
@runs_option
def accept(name: str, night: datetime, reason: str | None, once: bool, withdraw: bool, runs: Path) -> None:
    """Accept a suspicious night of job JOB as the new normal.

    The nights before it with the same change are accepted, too. A new reference begins with the first of them; later
    nights are compared with that. With --once the reference stays as it is, without this night, so a later night with
    the same fault is suspicious again. A night that also failed for another reason, or is accepted already, is refused.
    """
    from batchland.nightly.accept import accept_night, withdraw_acceptance
    from batchland.nightly.dates import local_today
    from batchland.nightly.notifications.metrics import refresh_metrics
    from batchland.trend.write import write_night_pages

    if once and withdraw:
        raise click.UsageError("--once and --withdraw exclude each other.")
    if withdraw:
        text = _withdrawn(name, withdraw_acceptance(runs / name, night.date(), reason=reason))
    else:
        text = _accepted(name, accept_night(runs / name, night.date(), reason=reason, once=once), runs, once=once)
    refresh_metrics(runs / name, local_today())
    write_night_pages(runs / name, local_today())
    click.echo(text)


def _accepted(name: str, accepted: "Accepted", runs: Path, *, once: bool) -> str:
    nights = accepted.nights
    effect = FIXED if accepted.fixed else _effect(accepted, once=once)
    text = f"Accepted: job {name}, {_nights_text(nights)}; {effect}."
    if accepted.open:
        text += f" Still suspicious by the same change: {first_few([str(night) for night in accepted.open])}."
    if not once and not accepted.fixed:
        folder = shlex.quote(os.path.abspath(runs))  # noqa: PTH100 - keeps links
        again = f"batchland accept {name} --date {nights[-1]} --runs {folder}"
        text += (
            " If nothing has changed and only this night is odd, withdraw this and accept it once: "
            f"`{again} --withdraw && {again} --once`."
        )
    if len(nights) > 1:
        text += "".join(f"\n  {night}: {found}" for night, found in zip(nights, accepted.unusual, strict=True))
    return text


def _effect(accepted: "Accepted", *, once: bool) -> str:
    nights, reference = accepted.nights, accepted.reference
    if once:
        verbs = "night is good, but does" if len(nights) == 1 else "nights are good, but do"
        return f"the {verbs} not join the reference; a later night with the same fault is suspicious again"
    if accepted.later_start:
        return f"the reference of the coming nights still begins with {accepted.later_start}, a later accepted change"
    few = "" if reference else f", but nothing is compared with {nights[-1]}, which has fewer than 5 readable images"
    rules = "; until it has 5 nights, only exact rules apply" if len(reference) < 5 else ""
    first = reference[0] if reference else accepted.since
    return f"a new reference begins with {first}, without earlier nights{few}{rules}"


def _withdrawn(name: str, withdrawn: "Withdrawn") -> str:
    before = "" if withdrawn.once else f", and the reference is again that of before {withdrawn.since}"
    if withdrawn.later_start and not withdrawn.once:
        before = f"; the reference still begins with {withdrawn.later_start}, a later change that is accepted"
    text = f"Withdrawn: job {name}, {_nights_text(withdrawn.nights)}, suspicious again{before}."
    if withdrawn.doubtful:
        nights = first_few([str(night) for night in withdrawn.doubtful])
        text += (
            f" Nights judged since then are no longer part of a reference: {nights}; run them again with --force to "
            f"judge them by the old one."
        )
    return text


def _nights_text(nights: list[date]) -> str:
    return f"{nights[0]}" if len(nights) == 1 else f"{nights[0]} to {nights[-1]}, {len(nights)} nights"
