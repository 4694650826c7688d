"""Check a job: its file, the next input and labels, models on its device, disks, notification, lock, last night."""

import os
import re
import shutil
import zoneinfo
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Final

from batchland.doctor.check import Check, guarded
from batchland.doctor.machine import check_disk
from batchland.doctor.model import check_model
from batchland.errors import BatchlandError, MissingInputError, UsageError
from batchland.nightly.dates import without_future
from batchland.nightly.delivery import delivered_images
from batchland.nightly.job import Job, load_job
from batchland.nightly.job_fields import expand
from batchland.nightly.notifications.mail import check_server
from batchland.nightly.record_files import LOCK_FILE, read_runs
from batchland.nightly.run_text import outcome_of
from batchland.predictions.reader import StoredPredictions
from batchland.predictions.storage import display_location
from batchland.system.lock import holder

_NAME: Final = r"([A-Za-z]{3,}|<[A-Za-z0-9+-]{3,}>)"
_RULE: Final = re.compile(rf"{_NAME}[+-]?\d{{1,2}}(:\d\d?){{0,2}}({_NAME}.*)?", re.ASCII)
"""The value of TZ without a file: `CET-1CEST`."""


def check_job(path: Path, advise: Callable[[BatchlandError], str]) -> Iterator[Check]:
    """Check a job. Yields each result at once. Raises UsageError if `path` is not a job file."""
    job = load_job(path)
    night = job.night(date.today())
    yield Check("job", "ok", f"{path}: {job.name}, next for {night}")
    yield from guarded("time zone", _time_zone)
    yield from guarded("input", _input, job, night)
    yield from guarded("labels", _labels, job, night)
    for name in job.model_names:
        yield from guarded(f"model {name}", _model, job, name)
    yield from guarded("disk", _output, job)
    yield from guarded("disk", check_disk, "disk, records", job.folder)
    if job.metrics:
        yield from guarded("disk", check_disk, "disk, metrics", job.metrics.parent)
    yield from guarded("notify", _notify, job, advise)
    yield from guarded("lock", _lock, job)
    yield from guarded("last night", _last_night, job, advise)


def _time_zone() -> Iterator[Check]:
    """Check that this machine has the zone of the variable TZ; otherwise the C library silently uses UTC."""
    zone = os.environ.get("TZ", "").removeprefix(":")
    if not zone or _RULE.fullmatch(zone) or zone in ("UTC", "GMT"):  # they need no file
        return
    if not any(Path(folder, zone).is_file() for folder in zoneinfo.TZPATH):  # an absolute zone stays as it is
        found = f"TZ={zone}: there is no such zone here, so dates and times are those of UTC"
        yield Check("time zone", "warn", found, "correct the variable, or install the package tzdata")


def _input(job: Job, night: date) -> Iterator[Check]:
    images = job.images_of(night)
    try:
        delivered_images(job, images)
    except MissingInputError as error:
        yield Check("input", "warn", str(error), "wait for the delivery, or correct the job file")
    else:
        yield Check("input", "ok", display_location(images))


def _model(job: Job, name: str) -> Iterator[Check]:
    yield from check_model(f"model {name}", job.model_file(name), job.device, canaries=job.checks_canaries)


def _output(job: Job) -> Iterator[Check]:
    if isinstance(job.output, Path):
        yield from check_disk("disk, output", job.output)
    else:
        yield Check("output", "ok", f"{StoredPredictions(job.output).name} answers")


def _labels(job: Job, night: date) -> Iterator[Check]:
    if job.evaluation is None:
        return
    labels = expand(job.evaluation.labels, night)
    if labels.exists():
        yield Check("labels", "ok", str(labels))
    else:
        ends = "fails" if job.evaluation.on_missing == "fail" else "is not evaluated"
        yield Check(
            "labels", "warn", f"{labels}: does not exist; the night {ends}", "deliver them, or correct the job file"
        )


def _notify(job: Job, advise: Callable[[BatchlandError], str]) -> Iterator[Check]:
    """Check that the mail server answers, and that the program is on this PATH. The crontab may set another PATH."""
    if job.notify is None:
        return
    if mail := job.notify.mail:
        name, error = f"mail by {mail.server}:{mail.port}", check_server(mail, job.notify.timeout.total_seconds())
        test = UsageError("correct [notify.mail]", advice="job_notify", job_file=job.file)
        advice = advise(test) if error else ""
        yield Check("notify", "warn" if error else "ok", f"{name}: {job.placeholders.hide(error or 'answers')}", advice)
    if job.notify.command is None:
        return
    program = job.notify.command[0]
    if found := shutil.which(program):
        yield Check("notify", "ok", job.placeholders.hide(found))
    else:
        missing = f"{job.placeholders.hide(program)}: no such program"
        yield Check("notify", "warn", missing, "install it, or give its full path")


def _lock(job: Job) -> Iterator[Check]:
    facts = holder(job.folder / LOCK_FILE)
    if facts is None:
        yield Check("lock", "ok", "free")
    else:
        found = f"held by process {facts.get('pid')} on {facts.get('host')} since {facts.get('since')}"
        yield Check("lock", "warn", found, "wait for that run, or stop it with SIGTERM; it can be resumed")


def _last_night(job: Job, advise: Callable[[BatchlandError], str]) -> Iterator[Check]:
    records = read_runs(job.folder)
    if not records:
        yield Check("last night", "ok", "none yet")
        return
    last = without_future(records, date.today())[-1]
    found = f"{last.date}: {outcome_of(last)}"
    if last.good or last.exit_code == 0 or last.outcome == "running":
        yield Check("last night", "ok", found)
        return
    night, file = last.date, job.file
    if last.outcome == "suspicious":
        remedy = UsageError(
            "look at its pictures",
            advice="suspicious",
            job=job.name,
            night=night,
            runs=job.folder.parent,
            job_file=file,
        )
    else:
        remedy = UsageError("correct the cause", advice="run_again", night=night, job_file=file)
    yield Check("last night", "warn", f"{found} ({last.error})", advise(remedy))
