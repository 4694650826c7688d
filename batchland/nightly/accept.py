"""Accept a suspicious night that a person has checked."""

import getpass
from datetime import date, datetime
from pathlib import Path
from typing import NamedTuple

from batchland.errors import UsageError
from batchland.monitoring.schema import Acceptance
from batchland.nightly.judge_night import named_reference, next_reference
from batchland.nightly.record_files import LOCK_FILE, RUN_FILE, read_run, read_runs, update_run
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
    """Whether the job names the nights of its reference, so that no acceptance changes them."""


def accept_night(folder: Path, night: date, *, reason: str | None = None, once: bool = False) -> Accepted:
    """Accept a suspicious night of the job with the records in `folder` (`runs/NAME`).

    Earlier nights with the same lasting change are accepted with it, unless they are already. once: the nights are
    added to the reference; else a new reference begins with the first of them. Raises UsageError if the night is not
    suspicious, failed for another reason, or is accepted already; LockedError while the job runs.
    """
    path = folder / str(night) / RUN_FILE
    if not path.is_file():
        raise UsageError(f"{path}: no such record; see the job's history for its nights")
    with locked(folder / LOCK_FILE, f"job {folder.name}", wait=1.0):
        record = read_run(path.parent)
        if problem := _problem(record):
            raise UsageError(f"{path}: {problem}")
        first = min((model.monitor.since or night for model in record.models if model.monitor), default=night)
        same = [each for each in read_runs(folder) if first <= each.date <= night and _is_acceptable(each)]
        acceptance = Acceptance(
            accepted_at=datetime.now().astimezone().isoformat(),
            by=getpass.getuser(),
            reason=reason,
            since=same[0].date,
            once=once,
        )
        new = [each for each in same if each.accepted is None]
        for each in new:
            update_run(folder / str(each.date), each.model_copy(update={"accepted": acceptance}))
        compared = next_reference(read_runs(folder), record)
    nights = [each.date for each in new]
    counted = [each for each in nights if each in compared]
    return Accepted(nights, acceptance.since, counted, fixed=named_reference(record) is not None)


def _problem(record: RunRecord) -> str | None:
    """Why a night cannot be accepted; None if it can be."""
    outcome = record.outcome.replace("_", " ")
    if not is_suspicious(record):
        return f"the night is not suspicious ({outcome})"
    if record.accepted:
        reason = f", reason: {record.accepted.reason}" if record.accepted.reason else ""
        return f"accepted already on {record.accepted.accepted_at[:10]} by {record.accepted.by}{reason}"
    if record.outcome not in ("ok", "suspicious"):
        return f"the night failed ({outcome}: {record.error}); correct that and run it again before you accept it"
    if any(model.counts and not model.counts.ok for model in record.models):
        return "no image of the night could be scored; correct that and run it again"
    return None


def _is_acceptable(record: RunRecord) -> bool:
    """Whether a night could be accepted, or is."""
    return _problem(record.model_copy(update={"accepted": None})) is None


def is_suspicious(record: RunRecord) -> bool:
    """Whether a night was judged suspicious, with any `action` of the job."""
    return any(model.monitor and model.monitor.verdict == "suspicious" for model in record.models)
