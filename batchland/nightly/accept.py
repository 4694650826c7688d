"""Accept a suspicious night that a person has checked, or withdraw an acceptance."""

import getpass
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import NamedTuple

from batchland.errors import UsageError
from batchland.monitoring.schema import Acceptance, Withdrawal
from batchland.nightly.dates import local_now
from batchland.nightly.good_nights import may_be_in_reference, reference_start, reference_starts, suspicious_since
from batchland.nightly.judge_night import explain, named_reference, next_reference
from batchland.nightly.record_files import LOCK_FILE, existing_record, read_run, read_runs, update_run
from batchland.nightly.run_record import RunRecord
from batchland.system.lock import locked


class Accepted(NamedTuple):
    """What an acceptance has changed. The nights are in order."""

    nights: list[date]
    since: date
    """The first night of the change."""
    reference: list[date]
    """Those of `nights` with which later nights are compared."""
    fixed: bool
    """Whether the job names what its nights are compared with, so that no acceptance changes it."""
    later_start: date | None
    """First night of a later accepted change, with which the reference of the next night begins."""
    open: list[date]
    """Later nights of the same change, which are still suspicious."""
    unusual: list[str]
    """What was unusual in each of `nights`."""


class Withdrawn(NamedTuple):
    """What a withdrawal has changed. The nights are in order."""

    nights: list[date]
    """They are suspicious again."""
    since: date
    once: bool
    """Whether the acceptance had not begun a new reference."""
    later_start: date | None
    """First night of a later accepted change, with which the reference still begins."""
    doubtful: list[date]
    """Later nights that no longer count as good, because they were compared with the accepted ones."""


def accept_night(folder: Path, night: date, *, reason: str | None = None, once: bool = False) -> Accepted:
    """Accept a suspicious night of the job with the records in `folder` (`runs/NAME`).

    Earlier nights with the same lasting change are accepted with it, unless they are already. once: the reference stays
    as it is, without these nights; else a new one begins with the first of them. Raises UsageError if the night is not
    suspicious, failed for another reason, or is accepted already; LockedError while the job runs.
    """
    path = existing_record(folder, night)
    with locked(folder / LOCK_FILE, f"job {folder.name}", wait=1.0):
        record = read_run(path.parent)
        if problem := _problem(record):
            raise UsageError(f"{path}: {problem}")
        first = suspicious_since(record)
        records = read_runs(folder)
        same = [each for each in records if _lasts(each, first) and each.date <= night and _is_acceptable(each)]
        acceptance = Acceptance(
            accepted_at=local_now(), by=getpass.getuser(), reason=reason, since=same[0].date, once=once
        )
        new = [each for each in same if each.accepted is None]
        changed = _changed(folder, new, lambda _: {"accepted": acceptance})
        after = [changed.get(each.date, each) for each in records]
        compared = next_reference(after, record)
    nights = [each.date for each in new]
    counted = [each for each in nights if each in compared]
    later = [each for each in records if each.date > night and not each.accepted and _is_acceptable(each)]
    fixed = named_reference(record) is not None
    still_open = [each.date for each in later if _lasts(each, first)]
    later_start = _later_start(after, acceptance)
    return Accepted(
        nights, acceptance.since, counted, fixed, later_start, still_open, [explain(each.models) for each in new]
    )


def withdraw_acceptance(folder: Path, night: date, *, reason: str | None = None) -> Withdrawn:
    """Withdraw the acceptance of a night, and of all nights of the same accepted change. `folder` is `runs/NAME`.

    With an acceptance `once`, they are those that were accepted together. They are suspicious again, and the reference
    is the one before. Who did it and when is recorded. Raises UsageError
    if the night is not accepted; LockedError while the job runs.
    """
    path = existing_record(folder, night)
    with locked(folder / LOCK_FILE, f"job {folder.name}", wait=1.0):
        acceptance = read_run(path.parent).accepted
        if acceptance is None:
            raise UsageError(f"{path}: the night is not accepted, so there is nothing to withdraw")
        new = Withdrawal(withdrawn_at=local_now(), by=getpass.getuser(), reason=reason, acceptance=acceptance)
        records = read_runs(folder)
        together = [each for each in records if each.accepted and _begins_same(each.accepted, acceptance)]

        def withdrawn(record: RunRecord) -> dict[str, object]:
            own = new.model_copy(update={"acceptance": record.accepted})
            return {"accepted": None, "withdrawn": (*record.withdrawn, own)}

        changed = _changed(folder, together, withdrawn)
        after = [changed.get(each.date, each) for each in records]
        lost = _comparable(records) - _comparable(after)
    nights = [each.date for each in together]
    later_start = _later_start(after, acceptance)
    return Withdrawn(nights, acceptance.since, acceptance.once, later_start, sorted(lost - set(nights)))


def _later_start(records: Sequence[RunRecord], acceptance: Acceptance) -> date | None:
    """First night of the last accepted change, if that began after this one."""
    start = reference_start(records, date.max)
    return start if start > acceptance.since else None


def _lasts(record: RunRecord, first: date) -> bool:
    """Whether a night belongs to the change that began with the night `first`."""
    return suspicious_since(record) == first or record.date == first


def _begins_same(one: Acceptance, other: Acceptance) -> bool:
    """Whether two acceptances begin the same reference, or are one."""
    return one == other or (not one.once and not other.once and one.since == other.since)


def _changed(
    folder: Path, records: Sequence[RunRecord], changes: Callable[[RunRecord], dict[str, object]]
) -> dict[date, RunRecord]:
    """Write some records with changes, and return them by date.

    They are not read again: after the last one is written, no fault of the storage makes it look undone.
    """
    written = {}
    for record in records:
        written[record.date] = record.model_copy(update=changes(record))
        update_run(folder / str(record.date), written[record.date])
    return written


def _comparable(records: Sequence[RunRecord]) -> set[date]:
    """The nights that may be in the reference of one of their models."""
    starts = reference_starts(records)
    return {each.date for each in records if any(may_be_in_reference(each, run, starts) for run in each.models)}


def _problem(record: RunRecord) -> str | None:
    """Why a night cannot be accepted; None if it can be."""
    outcome = record.outcome.replace("_", " ")
    if not record.suspicious:
        return f"the night is not suspicious ({outcome}), so there is nothing to accept"
    if record.accepted:
        reason = f", reason: {record.accepted.reason}" if record.accepted.reason else ""
        return f"accepted already on {record.accepted.accepted_at[:10]} by {record.accepted.by}{reason}"
    if record.outcome not in ("ok", "suspicious"):
        return f"the night failed ({outcome}: {record.error}); correct that and run it again before you accept it"
    return None


def _is_acceptable(record: RunRecord) -> bool:
    """Whether a night could be accepted, or is."""
    return _problem(record.model_copy(update={"accepted": None})) is None
