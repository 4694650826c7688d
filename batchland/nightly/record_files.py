"""Read and write the records of a job's nights: `runs/NAME/DATE/run.json`.

for record in read_runs(Path("runs/nightly")): print(record.date, record.outcome)
"""

import logging
import os
import secrets
from contextlib import suppress
from datetime import date, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from batchland.errors import OutputError, UsageError
from batchland.nightly.run_record import Attempt, RunRecord
from batchland.system.files import read_error, remove_leftovers, replace_file
from batchland.system.lock import holder, locked
from batchland.system.regular_files import read_regular
from batchland.system.text import near_miss

RUN_FILE: Final = "run.json"
LOG_FILE: Final = "log.jsonl"
LATEST: Final = "latest"
"""A link beside the dates, to the newest of them."""
KILLED: Final = 137
"""Exit code of a process that was killed, as shells give it."""
LOCK_FILE: Final = ".lock"
"""Beside the dates; a run of the job holds the kernel's lock on it."""

_log = logging.getLogger("batchland")


def job_names(runs: Path) -> list[str]:
    """The jobs that have a record below the folder of all records, by name; none if it does not exist."""
    return [name for name in sorted(_names(runs)) if _dates(runs / name)]


def read_runs(folder: str | os.PathLike[str], newest: int | None = None) -> list[RunRecord]:
    """The records of a job, `folder` being `runs/NAME`, oldest date first; none if the folder does not exist.

    newest: read only that many, the latest ones.

    An attempt that says `running` while no process holds the job's lock reads as `killed`. A record that cannot be read
    (perhaps of another version) is skipped with a warning in the log, because it must not end tonight's run.
    """
    root = Path(folder)
    records = []
    dates = _dates(root)
    for name in dates[-newest:] if newest else dates:
        try:
            records.append(read_run(root / name))
        except UsageError as error:
            _warn_once(f"{error}; move it away")
    return records


@lru_cache(maxsize=1000)
def _warn_once(message: str) -> None:
    """A night reads the records several times."""
    _log.warning("%s", message)


def read_run(folder: Path) -> RunRecord:
    """The record of one night, `folder` being `runs/NAME/DATE`; see `read_runs`. Raises UsageError."""
    path = folder / RUN_FILE
    # The lock is read first, so that a run that ends in between does not count as killed.
    running = holder(folder.parent / LOCK_FILE)
    try:
        record = RunRecord.model_validate_json(read_regular(path))
    except OSError as error:
        raise read_error(error, str(path), expected="a folder runs/NAME/DATE") from error
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"])) or "the file"
        raise UsageError(f"{path}: is not a record that this version of batchland can read ({where})") from error
    if _is_date(folder.name) and str(record.date) != folder.name:
        raise UsageError(f"{path}: is the record of the night {record.date}, perhaps a copy")
    if _is_date(folder.name) and record.job != folder.parent.name:
        raise UsageError(f"{folder.parent}: holds records of the job {record.job}, perhaps copies")
    if record.outcome in ("ok", "suspicious") and not record.models:
        raise UsageError(f"{path}: is damaged, it has no models")
    attempts = (_killed_if_dead(attempt, running) for attempt in record.attempts)
    return record.model_copy(update={"attempts": tuple(attempts)})


def update_run(folder: Path, record: RunRecord) -> RunRecord:
    """Write `record` into `folder` (`runs/NAME/DATE`), with the attempts of other processes, and return it.

    A run without the job's lock may call this while another one writes: it only adds its attempt. Raises OSError if the
    record cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / RUN_FILE
    with locked(folder / f".{RUN_FILE}.lock", str(path), wait=10):
        if path.exists():
            before = read_run(folder)
            merged = {(attempt.run_id, attempt.started_at): attempt for attempt in (*before.attempts, *record.attempts)}
            attempts = tuple(sorted(merged.values(), key=lambda attempt: datetime.fromisoformat(attempt.started_at)))
            locked_out = all(attempt.outcome == "locked" for attempt in record.attempts)
            record = (before if locked_out else record).model_copy(update={"attempts": attempts})
        remove_leftovers(folder, locked=RUN_FILE)
        replace_file(path, record.model_dump_json(indent=2) + "\n")
    return record


def point_to_latest(root: Path, today: date) -> None:
    """Make `runs/NAME/latest` a link to the newest date that has a record and is not in the future.

    If all are in the future, it is the newest of them; without records the link is removed. Raises OSError.
    """
    names = _dates(root)
    newest = max((name for name in names if name <= today.isoformat()), default=max(names, default=None))
    if newest is None:
        (root / LATEST).unlink(missing_ok=True)
        return
    temporary = root / f".{LATEST}.{secrets.token_hex(8)}.new"
    temporary.symlink_to(newest)
    try:
        temporary.replace(root / LATEST)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise


def existing_record(root: Path, night: date) -> Path:
    """The file of a night's record of the job with the records in `root`. Raises UsageError if there is none."""
    path = root / str(night) / RUN_FILE
    if not os.path.lexists(path):
        nights = _dates(root)
        if not nights:
            raise no_record(root)
        raise UsageError(f"{path}: no such record; the job has records from {nights[0]} to {nights[-1]}")
    return path


def no_record(root: Path) -> UsageError:
    """The error for a job without a record: it names similar or all other jobs beside `root`."""
    runs = root.parent
    others = sorted({path.name for path in runs.iterdir() if path.is_dir()} - {root.name}) if runs.is_dir() else []
    near = near_miss(root.name, others)
    advice = f"did you mean {near!r}?" if near else f"there is {', '.join(others)}" if others else "no job ran here yet"
    return UsageError(f"{root}: no night of this job is recorded ({advice})", advice=None if near else "runs")


def remove_record(root: Path, night: date, today: date) -> Path:
    """Remove the record of one night of the job with the records in `root` (`runs/NAME`): rename its file.

    Log, report and predictions of the night stay. Returns the new path. Raises UsageError if there is no such record,
    LockedError while the job runs, OutputError if it cannot be renamed.
    """
    path = existing_record(root, night)
    removed = path.with_name(f"{RUN_FILE}.removed")
    try:
        with locked(root / LOCK_FILE, f"job {root.name}", wait=1.0):
            path.replace(removed)
            point_to_latest(root, today)
    except OSError as error:
        raise OutputError(f"{path}: cannot be removed ({error.strerror})") from error
    return removed


def _killed_if_dead(attempt: Attempt, running: dict[str, Any] | None) -> Attempt:
    """The attempt; `killed` if it says `running` and its process does not hold the job's lock."""
    if attempt.outcome != "running":
        return attempt
    if running and (running.get("pid"), running.get("host")) == (attempt.pid, attempt.host):
        begin, since = (datetime.fromisoformat(time) for time in (attempt.started_at, running["since"]))
        if begin >= since:  # else an earlier process had the same pid
            return attempt
    error = "killed, or the machine went down; run it again to resume"
    return attempt.model_copy(update={"outcome": "killed", "exit_code": KILLED, "error": error})


def _dates(root: Path) -> list[str]:
    """The names of the folders in `runs/NAME` that hold a record, in order."""
    return sorted(name for name in _names(root) if _is_date(name) and os.path.lexists(root / name / RUN_FILE))


def _names(root: Path) -> list[str]:
    with suppress(FileNotFoundError, NotADirectoryError):
        return os.listdir(root)
    return []


def _is_date(name: str) -> bool:
    with suppress(ValueError):
        return date.fromisoformat(name).isoformat() == name
    return False
