"""Run a job for one night: lock, retention, scoring, evaluation, gates, notifications.

record = run_night(load_job(Path("jobs/nightly.toml")), date(2026, 11, 23))
"""

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import date
from typing import Final, NamedTuple

from batchland.errors import (
    BatchlandError,
    DeviceError,
    GrowingDeliveryError,
    InputError,
    Interrupted,
    LockedError,
    MissingInputError,
    OutputError,
)
from batchland.nightly.dates import check_date, local_today
from batchland.nightly.job import Job
from batchland.nightly.notifications.heartbeat import ping_end
from batchland.nightly.notifications.send import report_end, report_start
from batchland.nightly.record_files import LOCK_FILE, LOG_FILE
from batchland.nightly.recorder import Ending, Recorder
from batchland.nightly.run_log import run_log
from batchland.nightly.run_record import Attempt, RunRecord
from batchland.nightly.steps import Steps
from batchland.nightly.time_budget import ESTIMATE_AFTER
from batchland.system.cores import out_of_memory
from batchland.system.lock import locked
from batchland.system.retries import storage_failed
from batchland.system.signals import signals_raise

_LOCK_WAIT: Final = 1.0
"""Seconds to wait for the job's lock: a process that only looks up the holder has the lock for a moment."""
_TEMPORARY: Final = (MissingInputError, InputError, OutputError, DeviceError, LockedError)
"""Errors that another attempt may avoid."""

_log = logging.getLogger("batchland")


class NightResult(NamedTuple):
    """The record that `run_night` wrote, and its last attempt."""

    record: RunRecord
    """The whole night, including the attempts of other processes."""
    attempt: Attempt
    """The last one of this process."""


def run_night(
    job: Job,
    night: date,
    *,
    force: bool = False,
    quiet: bool = False,
    future: bool = False,
    today: date | None = None,
    estimate_after: float = ESTIMATE_AFTER,
    advise: Callable[[BatchlandError], str] = str,
) -> NightResult:
    """Run a job for one date, and write its record to `runs/NAME/DATE/run.json`.

    Complete partitions are kept, unfinished ones resumed; `force` replaces complete ones. quiet: no heartbeat and no
    notification, for backfills. future: allow a night after `today`, by default the local date; `latest`, metrics and
    retention ignore such nights. estimate_after: seconds until the end is estimated, with `finish_by`. advise: gives
    the text of an error in the record; without it, the error's own.

    A start while another process runs the same night gives no heartbeat and no notification.
    A failed night is returned, not raised: see the attempt's outcome, exit code and error.
    Raises UsageError if the night is in the future, OutputError if the job's folder of records cannot be written at
    all. An unexpected exception is recorded and logged; only that the memory is full is raised again.
    """
    today = today or local_today()
    if not future:
        check_date(night, today)
    recorder = Recorder(job, night, today, advise)
    try:
        hide = job.placeholders.hide_all
        with run_log(recorder.folder / LOG_FILE, hide, run_id=recorder.run_id, job=job.name, date=str(night)):
            try:
                with signals_raise(), _job_lock(job):
                    recorder.open()
                    try:
                        _Night(recorder, force=force, quiet=quiet, estimate_after=estimate_after).run()
                    finally:
                        report_end(recorder, quiet=quiet)
            except LockedError as error:
                recorder.fail(error)
                if all(attempt.outcome != "running" for attempt in recorder.record.attempts):
                    report_end(recorder, quiet=quiet)
    except OutputError as error:
        if job.heartbeat and not quiet:
            ping_end(job.heartbeat, error.exit_code)
        raise
    return NightResult(recorder.record, recorder.attempt)


@contextmanager
def _job_lock(job: Job) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(job.folder / LOCK_FILE, f"job {job.name}", wait=_LOCK_WAIT))
        except OSError as error:
            raise OutputError(f"{job.folder}: cannot be written ({error.strerror}); the job was not started") from error
        yield


class _Night:
    """The run of the process that holds the job's lock."""

    def __init__(self, recorder: Recorder, *, force: bool, quiet: bool, estimate_after: float) -> None:
        self.recorder = recorder
        self.job = recorder.job
        self._quiet = quiet
        self._steps = Steps(recorder, force=force, quiet=quiet, estimate_after=estimate_after)

    def run(self) -> None:
        """Attempt the night, as often as the job allows."""
        try:
            if not self._quiet:
                report_start(self.recorder)
            self._attempts()
        except Interrupted as error:  # between two attempts
            self.recorder.fail(error)

    def _attempts(self) -> None:
        first = self.job.retry.wait.total_seconds()
        waits = [first * 2**number for number in range(self.job.retry.attempts - 1)]
        error = self._attempt()
        while waits and isinstance(error, _TEMPORARY):
            wait = waits.pop(0)
            if isinstance(error, GrowingDeliveryError) and (settled := math.ceil(error.seconds)) < wait:
                waits.insert(0, wait - settled)  # for a delivery that goes on growing
                wait = settled
            left = self._steps.time.left()
            if left is not None and left <= wait:
                break
            _log.warning("%s; trying again in %g s", self.job.placeholders.hide(str(error)), wait)
            error = self._attempt(wait)

    def _attempt(self, wait: float = 0.0) -> BatchlandError | None:
        """Wait, work, and record the ending."""
        try:
            time.sleep(wait)
            self.recorder.start()
            skipped = self._steps.run()
        except BatchlandError as error:
            if self.job.skips_night(error):
                self.recorder.finish(Ending("skipped", 0, str(error)))
            else:
                self.recorder.fail(error)
            return error
        except OSError as error:
            if not storage_failed(error):  # else the message says all
                _log.exception("system error")
            fault = OutputError(f"{error.filename or self.job.folder}: {error.strerror or error}")
            self.recorder.fail(fault)
            return fault
        except Exception as error:
            _log.exception("unexpected error")
            message = f"{type(error).__name__}: {error} (a bug; the log has its traceback)"
            self.recorder.finish(Ending("failed", 1, message))
            if out_of_memory(error):
                raise
            return None
        self.recorder.finish(Ending("skipped", 0, skipped) if skipped else Ending("ok", 0, None))
        return None
