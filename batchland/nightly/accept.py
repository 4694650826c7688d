"""Accept a suspicious night: a person looked at it, and it is good."""

import getpass
from datetime import date, datetime
from pathlib import Path

from batchland.errors import UsageError
from batchland.monitoring.schema import Acceptance
from batchland.nightly.record_files import LOCK_FILE, RUN_FILE, read_run, read_runs, update_run
from batchland.nightly.run_record import RunRecord
from batchland.system.lock import locked


def accept_night(folder: Path, night: date, *, reason: str | None = None, once: bool = False) -> list[date]:
    """Accept a suspicious night of the job whose records are in `folder` (`runs/NAME`). Returns the accepted nights.

    Earlier nights with the same lasting change are accepted with it. once: the nights join the reference; else it
    begins anew with the first of them. Raises UsageError if it is not suspicious, LockedError while the job runs.
    """
    path = folder / str(night) / RUN_FILE
    if not path.is_file():
        raise UsageError(f"{path}: no such record; see the job's history for its nights")
    with locked(folder / LOCK_FILE, f"job {folder.name}", wait=1.0):
        record = read_run(path.parent)
        if not is_suspicious(record):
            raise UsageError(f"{path}: the night is not suspicious ({record.outcome.replace('_', ' ')})")
        since = min((model.monitor.since or night for model in record.models if model.monitor), default=night)
        same = [each for each in read_runs(folder) if since <= each.date <= night and is_suspicious(each)]
        acceptance = Acceptance(
            accepted_at=datetime.now().astimezone().isoformat(),
            by=getpass.getuser(),
            reason=reason,
            since=same[0].date,
            once=once,
        )
        for each in same:
            update_run(folder / str(each.date), each.model_copy(update={"accepted": acceptance}))
    return [each.date for each in same]


def is_suspicious(record: RunRecord) -> bool:
    """Whether a night was judged suspicious, whatever the job does about that."""
    return any(model.monitor and model.monitor.verdict == "suspicious" for model in record.models)
