"""Keep `run.json` up to date while a night runs: attempts as they begin and end, models as they finish."""

import logging
import os
import platform
import secrets
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import date, datetime
from typing import Final, NamedTuple

from batchland._version import __version__
from batchland.errors import (
    BatchlandError,
    GateFailedError,
    Interrupted,
    LockedError,
    MissingInputError,
    ModelError,
    OutputError,
    SuspiciousNightError,
    TimeLimitError,
    TooManyFailedError,
    UsageError,
    WrongDeliveryError,
)
from batchland.monitoring.schema import Acceptance, Withdrawal
from batchland.nightly.dates import local_now
from batchland.nightly.job import Job
from batchland.nightly.record_files import LATEST, RUN_FILE, point_to_latest, read_run, update_run
from batchland.nightly.run_record import Attempt, Deletion, EndEstimate, ModelRun, Outcome, RunRecord
from batchland.predictions.storage import display_location
from batchland.system.files import cannot_write, replace_file
from batchland.system.text import reason

_RESERVE_BYTES: Final = 64 * 1024
"""Disk space held until the end of the run, so that its record can be written on a full disk."""

_log = logging.getLogger("batchland")


class Ending(NamedTuple):
    """How an attempt ended."""

    outcome: Outcome
    exit_code: int
    error: str | None


class Recorder:
    """The record of one process's run for one date of a job."""

    def __init__(self, job: Job, night: date, today: date, advise: Callable[[BatchlandError], str] = str) -> None:
        """advise: see `run_night`."""
        self.job = job
        self.night = night
        self.today = today
        self._advise = advise
        self.folder = job.folder / str(night)
        self.run_id = f"{datetime.now().astimezone():%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
        self.before: RunRecord | None = None
        """The record as an earlier process left it."""
        self.models: dict[str, ModelRun] = {}
        """Runs by the name of the model in the job. The run of a kept partition has the name of the model that made
        it."""
        self.estimate: EndEstimate | None = None
        self.comparisons: tuple[str, ...] = ()
        self.deleted: list[Deletion] = []
        self.accepted: Acceptance | None = None
        """The acceptance in the record of an earlier process."""
        self.withdrawn: tuple[Withdrawal, ...] = ()
        """Acceptances that a person withdrew."""
        self.warnings: list[str] = []
        self.record: RunRecord
        """The record that was saved last."""
        self._attempts: list[Attempt] = []
        self._accepted_runs: dict[str, str | None] = {}
        """run_id of the predictions that were accepted, by the name of the model in the job."""
        self._reserve = self.folder / ".reserve"
        self._fault: str | None = None
        """Why the record could not be saved."""

    @property
    def attempt(self) -> Attempt:
        """The last attempt of this process."""
        return self._attempts[-1]

    def open(self) -> None:
        """Read the record that an earlier process left. Only for the holder of the job's lock."""
        path = self.folder / RUN_FILE
        if path.exists():
            try:
                self.before = read_run(self.folder)
            except UsageError as error:
                path.replace(path.with_name(f"{RUN_FILE}.unreadable"))
                self.warn(f"{error}; moved to {RUN_FILE}.unreadable")
        if self.before is not None:
            partitions = {display_location(self.job.partition(name, self.night)): name for name in self.job.model_names}
            runs = {model.partition: model for model in self.before.models}
            self.models = {name: runs[partition] for partition, name in partitions.items() if partition in runs}
            self.comparisons = self.before.comparisons
            self.deleted = list(self.before.deleted)
            self.accepted, self.withdrawn = self.before.accepted, self.before.withdrawn
            self._accepted_runs = {name: run.run_id for name, run in self.models.items()}
        with suppress(OSError):  # the work itself will report a full disk
            replace_file(self._reserve, bytes(_RESERVE_BYTES))

    def add(self, name: str, run: ModelRun) -> None:
        """Record a model's run. An acceptance ends if its predictions are not those that were accepted."""
        self.models[name] = run
        if self.accepted and run.run_id and run.run_id != self._accepted_runs.get(name):
            self.accepted = None
            self.warn(f"{run.name}: the predictions are not those that were accepted, so the night is judged again")

    def start(self) -> None:
        """Begin an attempt."""
        self._attempts.append(self._new_attempt())
        self.save()
        data = self._attempts[-1].model_dump(include={"pid", "host", "started_at"})
        _log.info("job %s, %s: begins", self.job.name, self.night, extra={"data": data})

    def fail(self, error: BatchlandError) -> None:
        """End the running attempt by an error."""
        self.finish(Ending(_outcome(error), error.exit_code, self._advise(error)))

    def finish(self, ending: Ending) -> None:
        """End the running attempt; one that ended before it began is added."""
        if not self._attempts or self._attempts[-1].outcome != "running":
            self._attempts.append(self._new_attempt())
        refused = self._is_refused(ending)
        if ending.error:
            state = "stays good" if self.before and self.before.good else "is still suspicious"
            kept = f" (nothing was changed, and the night {state})" if refused else ""
            ending = ending._replace(error=self.job.placeholders.hide(ending.error) + kept)
        changes = ending._asdict() | {"finished_at": local_now(), "refused": refused}
        self._attempts[-1] = self._attempts[-1].model_copy(update=changes)
        try:
            self._reserve.unlink(missing_ok=True)
        except OSError as fault:
            self.warn(f"{self._reserve}: cannot be removed ({fault.strerror})")
        level = logging.INFO if ending.exit_code == 0 else logging.ERROR
        error = f": {ending.error}" if ending.error else ""
        extra = {"data": changes, "in_summary": True}
        _log.log(level, "job %s, %s: %s%s", self.job.name, self.night, ending.outcome, error, extra=extra)
        self.save_ending()

    def save_ending(self) -> None:
        """Save the ended attempt. If that fails, the attempt has failed, because exit code 0 promises a record."""
        fault = self.save()
        if fault is not None and self.attempt.exit_code == 0:
            changes = {"outcome": "failed", "exit_code": OutputError.exit_code, "error": fault}
            self._attempts[-1] = self.attempt.model_copy(update=changes)
            self.save()

    def _new_attempt(self) -> Attempt:
        return Attempt(run_id=self.run_id, pid=os.getpid(), host=socket.gethostname(), started_at=local_now())

    def _is_refused(self, ending: Ending) -> bool:
        """Whether a usage error, a model error or the delivery ended the attempt, and the night stays as it was.

        Retention may have deleted its predictions; they are not scored again without the delivery.
        """
        unable = ending.exit_code in (UsageError.exit_code, ModelError.exit_code)
        harmless = unable or ending.outcome in ("missing_input", "wrong_delivery", "skipped")
        if self.before is None or self.before.outcome not in ("ok", "suspicious") or not harmless:
            return False
        earlier = self.before.models
        kept = {run.run_id for run in earlier}
        return all(run in earlier or (run.state == "kept" and run.run_id in kept) for run in self.models.values())

    def warn(self, text: str | None) -> None:
        """Log a fault that does not end the run, and add it to the record. None is no fault."""
        if text is not None:
            text = self.job.placeholders.hide(text)
            _log.warning("%s", text)
            self.warnings.append(text)

    def save(self) -> str | None:
        """Write the record as it is now. An error is returned, and logged the first time."""
        self.record = RunRecord(
            job=self.job.name,
            job_file=str(self.job.file),
            date=self.night,
            config=self.job.placeholders.hide_all(self.job.model_dump(mode="json")),
            attempts=tuple(self._attempts),
            models=tuple(self.models[name] for name in self.job.model_names if name in self.models),
            estimate=self.estimate,
            comparisons=self.comparisons,
            deleted=tuple(self.deleted),
            accepted=self.accepted,
            withdrawn=self.withdrawn,
            warnings=tuple(self.warnings),
            versions={"batchland": __version__, "python": platform.python_version()},
        )
        if self.before and self._attempts[-1].refused:
            self.record = self.before.model_copy(update={"attempts": tuple(self._attempts)})
        try:
            self.record = update_run(self.folder, self.record)
        except (OSError, BatchlandError) as error:
            fault = cannot_write(self.folder / RUN_FILE, error)
            if fault != self._fault:
                _log.error("%s", fault)
            self._fault = fault
            return fault
        try:
            point_to_latest(self.job.folder, self.today)
        except OSError as error:
            _log.warning("%s: cannot be written (%s)", self.job.folder / LATEST, reason(error))
        return None


def _outcome(error: BatchlandError) -> Outcome:
    outcomes: Mapping[type[BatchlandError], Outcome] = {
        TooManyFailedError: "too_many_failed",
        GateFailedError: "gate_failed",
        SuspiciousNightError: "suspicious",
        WrongDeliveryError: "wrong_delivery",
        MissingInputError: "missing_input",
        TimeLimitError: "time_limit",
        Interrupted: "interrupted",
        LockedError: "locked",
    }
    return next((outcome for kind, outcome in outcomes.items() if isinstance(error, kind)), "failed")
