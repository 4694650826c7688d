"""Run a job for one night: lock, retention, scoring, evaluation, gates, notifications.

record = run_night(load_job(Path("jobs/nightly.toml")), date(2026, 11, 23))
"""

import logging
import math
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import date
from pathlib import Path
from typing import Final, NamedTuple

from batchland.errors import (
    BatchlandError,
    DeviceError,
    GateFailedError,
    Interrupted,
    LockedError,
    MissingInputError,
    ModelError,
    OutputError,
    TimeLimitError,
)
from batchland.nightly.dates import check_date, local_today
from batchland.nightly.delivery import delivered_images
from batchland.nightly.evaluate_night import compare_models, evaluate_night
from batchland.nightly.job import Job
from batchland.nightly.job_tables import EvaluationTable
from batchland.nightly.known_images import KnownImages, describe_late, late_images
from batchland.nightly.notifications.heartbeat import ping_end
from batchland.nightly.notifications.send import report_end, report_start
from batchland.nightly.partitions import check_owner, differences, model_name, other_partitions, prediction_mix
from batchland.nightly.record_files import LOCK_FILE, LOG_FILE, read_runs
from batchland.nightly.recorder import Ending, Recorder
from batchland.nightly.retention import delete, find_expired
from batchland.nightly.run_log import run_log
from batchland.nightly.run_record import Attempt, ModelRun, ModelState, RunRecord
from batchland.nightly.run_text import describe_model
from batchland.predictions.schema import Manifest
from batchland.scoring.listing import ALREADY_SCORED, ImageListing
from batchland.scoring.options import FailureLimit, ScoreOptions, ScoreSettings
from batchland.scoring.progress import ScoreProgress
from batchland.scoring.score import score
from batchland.system.lock import locked
from batchland.system.signals import signals_raise

_LOCK_WAIT: Final = 1.0
"""Seconds to wait for the job's lock, because a process that asks for its holder has it for a moment."""
_TEMPORARY: Final = (MissingInputError, OutputError, DeviceError, LockedError)
"""Faults that a later attempt may not have."""

_log = logging.getLogger("batchland")


class NightResult(NamedTuple):
    """The record that `run_night` leaves, and how it ended."""

    record: RunRecord
    """Of the whole night, with the attempts of other processes."""
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
) -> NightResult:
    """Do a job's work for one date, and leave the record of it at `runs/NAME/DATE/run.json`.

    Complete partitions are kept, unfinished ones resumed; `force` replaces complete ones. quiet: no heartbeat and no
    notification, for backfills. future: allow a night after `today`, by default the local date; `latest`, metrics and
    retention ignore such nights.

    A failed night is returned, not raised: see the attempt's outcome, exit code and error.
    Raises UsageError if the night is in the future, OutputError if the job's folder of records cannot be written at
    all. An unexpected exception is recorded and raised again.
    """
    today = today or local_today()
    if not future:
        check_date(night, today)
    recorder = Recorder(job, night, today)
    try:
        with run_log(recorder.folder / LOG_FILE, run_id=recorder.run_id, job=job.name, date=str(night)):
            try:
                with signals_raise(), _job_lock(job):
                    recorder.open()
                    try:
                        _Night(recorder, force=force, quiet=quiet).run()
                    finally:
                        report_end(recorder, quiet=quiet)
            except LockedError as error:
                recorder.finish(Ending.of(error))
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

    def __init__(self, recorder: Recorder, *, force: bool, quiet: bool) -> None:
        self.recorder = recorder
        self.job = recorder.job
        self.night = recorder.night
        self._force = force
        self._quiet = quiet
        limit = self.job.time_limit
        self._deadline = time.monotonic() + limit.total_seconds() if limit else math.inf

    def run(self) -> None:
        """Attempt the night, as often as the job allows."""
        try:
            if not self._quiet:
                report_start(self.recorder)
            self._attempts()
        except Interrupted as error:  # between two attempts
            self.recorder.finish(Ending.of(error))

    def _attempts(self) -> None:
        wait = self.job.retry.wait.total_seconds()
        error = self._attempt()
        for _ in range(self.job.retry.attempts - 1):
            if not isinstance(error, _TEMPORARY) or time.monotonic() + wait >= self._deadline:
                break
            _log.info("trying again in %g s", wait)
            error = self._attempt(wait)
            wait *= 2

    def _attempt(self, wait: float = 0.0) -> BatchlandError | None:
        """Wait, work, and record the ending."""
        try:
            time.sleep(wait)
            self.recorder.start()
            skipped = self._work()
        except BatchlandError as error:
            skip = isinstance(error, MissingInputError) and self.job.on_missing == "skip"
            self.recorder.finish(Ending("skipped", 0, str(error)) if skip else Ending.of(error))
            return error
        except OSError as error:
            _log.exception("system error")
            fault = OutputError(f"{error.filename or self.job.folder}: {error.strerror or error}")
            self.recorder.finish(Ending.of(fault))
            return fault
        except Exception as error:
            _log.exception("unexpected error")
            message = f"{type(error).__name__}: {error} (a bug; the log has its traceback)"
            self.recorder.finish(Ending("failed", 1, message))
            raise
        self.recorder.finish(Ending("skipped", 0, skipped) if skipped else Ending("ok", 0, None))
        return None

    def _work(self) -> str | None:
        """Do everything that the job asks for. Returns a message if there was nothing to do, else None."""
        records = read_runs(self.job.folder)
        refused = self._score_all()
        if self.job.evaluation:
            self._evaluate(self.job.evaluation, records)
        if refused:
            raise refused[0]
        self._check_limits()
        if all(model.state == "nothing_new" for model in self.recorder.models.values()):
            return "every image was scored already"
        self._delete_expired(records)
        return None

    def _delete_expired(self, records: list[RunRecord]) -> None:
        """Delete old nights, after this one is complete and good."""
        for expired in find_expired(self.job, self.night, records, self.recorder.today):
            try:
                deletion = delete(expired, self.recorder.run_id)
            except OSError as error:
                self.recorder.warn(f"retention: {expired.folder} cannot be deleted ({error.strerror})")
                continue
            _log.info("retention: deleted %s", expired.folder, extra={"data": deletion.model_dump(mode="json")})
            self.recorder.deleted.append(deletion)

    def _score_all(self) -> list[ModelError]:
        """Keep or score every model's partition, and return the errors of models that cannot be used."""
        refused = []
        settled = False
        models = self.job.all_models
        manifests = {name: check_owner(self.job, name, self.night, force=self._force) for name in models}
        for name, file in models.items():
            partition, manifest = self.job.partition(name, self.night), manifests[name]
            if manifest is not None and not self._force:
                self.recorder.models[name] = self._keep(name, file, partition, manifest)
                continue
            root = self.job.images_of(self.night)
            known = KnownImages(other_partitions(partition), root) if self.job.mode == "new" else None
            listing = delivered_images(self.job, root, known.__contains__ if known else None, settled=settled)
            settled = True
            if manifest is None:
                self.recorder.models[name] = ModelRun(name=name, partition=str(partition), state="unfinished")
                self.recorder.save()
            try:
                self.recorder.models[name] = self._score(name, file, partition, listing, replaced=manifest is not None)
            except ModelError as error:
                if len(models) > 1:  # the other models go on; the night's error is the first one
                    _log.error("%s: %s", name, error)
                refused.append(error)
            self.recorder.save()
        return refused

    def _keep(self, name: str, file: Path, partition: Path, manifest: Manifest) -> ModelRun:
        name = model_name(self.job, name, manifest)
        _log.info("%s: complete since %s, kept: %s", name, manifest.created_at, partition)
        for difference in differences(self.job, file, manifest):
            _log.warning("%s: %s; a forced run would score it again", name, difference)
        if late := late_images(self.job, partition, self.night):
            self.recorder.warn(f"{name}: {describe_late(late)}")
        return _model_run(name, partition, "kept", manifest)

    def _score(self, name: str, file: Path, partition: Path, listing: ImageListing, *, replaced: bool) -> ModelRun:
        if listing.first() is None:
            _log.info("%s: every image was scored already", name)
            return ModelRun(name=name, partition=str(partition), state="nothing_new")
        self._check_time()
        left = None if self._deadline == math.inf else self._deadline - time.monotonic()
        settings = self.job.model_dump(include=set(ScoreSettings.model_fields))
        options = ScoreOptions(**settings, model=file, overwrite=self._force, time_limit=left, job=self.job.name)
        with ScoreProgress(listing) as progress:
            summary = score(listing, partition, options, on_progress=progress.update)
        if summary.fallback:
            _log.warning("%s: device auto: ran on the CPU, because %s", name, summary.fallback)
        state: ModelState = "replaced" if replaced else "resumed" if summary.manifest.resumed_images else "scored"
        run = _model_run(name, partition, state, summary.manifest)
        _log.info("%s", describe_model(run), extra={"data": run.model_dump(mode="json", exclude={"mix", "evaluation"})})
        return run

    def _evaluate(self, table: EvaluationTable, records: list[RunRecord]) -> None:
        models = self.recorder.models
        for name, model in models.items():
            if model.counts:
                self._check_time()
                evaluation = evaluate_night(self.job, model.name, self.night, records)
                for label, count in evaluation.failed_classes.items() if evaluation else ():
                    self.recorder.warn(f"{name}: all {count} images of class {label!r} failed")
                models[name] = model.model_copy(update={"evaluation": evaluation})
        evaluated = [name for name in self.job.all_models if name in models and models[name].evaluation]
        if table.compare and len(evaluated) > 1:
            self._check_time()
            self.recorder.comparisons = compare_models(self.job, evaluated, self.night)

    def _check_time(self) -> None:
        if time.monotonic() >= self._deadline:
            limit = self.job.time_limit
            raise TimeLimitError(f"job {self.job.name}: stopped at its time limit of {limit}; a rerun resumes")

    def _check_limits(self) -> None:
        """Raise the error of `max_failed` or of the first failed gate, after everything is written."""
        models = self.recorder.models
        limit = FailureLimit.parse(self.job.max_failed) if self.job.max_failed else None
        for model in models.values():
            if limit and model.counts:
                limit.check(model.counts)
        failed = [
            f"{model.name}: {gate.message}; see {model.evaluation.report}/report.html"
            for model in models.values()
            if model.evaluation
            for gate in model.evaluation.gates
            if gate.verdict == "failed"
        ]
        if failed:
            more = f" (and {len(failed) - 1} more gates)" if len(failed) > 1 else ""
            raise GateFailedError(f"gate failed: {failed[0]}{more}")


def _model_run(name: str, partition: Path, state: ModelState, manifest: Manifest) -> ModelRun:
    return ModelRun(
        name=name,
        partition=str(partition),
        state=state,
        run_id=manifest.run_id,
        model=manifest.model,
        device=manifest.device,
        provider=manifest.provider,
        counts=manifest.counts,
        already_scored=manifest.ignored.get(ALREADY_SCORED, 0),
        resumed_images=manifest.resumed_images,
        seconds=manifest.seconds,
        images_per_second=manifest.images_per_second,
        mix=prediction_mix(partition),
    )
