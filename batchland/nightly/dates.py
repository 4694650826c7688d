"""Nights and today: which dates lie in the future, and which record of a job is the newest."""

from collections.abc import Iterable
from datetime import date, datetime

from batchland.errors import UsageError
from batchland.nightly.run_record import RunRecord


def local_today() -> date:
    """Today's date, by local time."""
    return datetime.now().astimezone().date()


def local_now() -> str:
    """The local time with its offset from UTC, as ISO 8601 writes it."""
    return datetime.now().astimezone().isoformat()


def check_date(night: date, today: date) -> None:
    """Raise UsageError if the night is after today, because that is usually a typing error."""
    if night > today:
        raise UsageError(f"night {night}: is after today, {today} by this machine's clock", advice="future")


def without_future(records: Iterable[RunRecord], today: date) -> list[RunRecord]:
    """The records that are not in the future; all of them if all are (a slow clock, or only test runs)."""
    records = list(records)
    return [record for record in records if record.date <= today] or records
