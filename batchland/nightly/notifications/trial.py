"""Send a notification now, to try the channels of a job: about its newest night, or about a made-up one."""

from collections.abc import Iterator
from pathlib import Path

from batchland.errors import UsageError
from batchland.nightly.dates import local_today, without_future
from batchland.nightly.job import Job
from batchland.nightly.notifications.channels import send_all
from batchland.nightly.notifications.message import Notification, compose
from batchland.nightly.record_files import RUN_FILE, read_runs


def send_trial(job: Job) -> Iterator[tuple[str, str | None]]:
    """Each channel's name with an error message, or with None if it was sent. Raises UsageError without `[notify]`."""
    if job.notify is None:
        raise UsageError(f"{job.file}: has no table [notify]; docs/jobs.md shows one")
    today = local_today()
    records = read_runs(job.folder)
    note = "a test of the notification"
    if not records:
        path: Path = job.folder / str(job.night(today)) / RUN_FILE
        notification = Notification(
            job=job.name,
            date=job.night(today),
            outcome="ok",
            exit_code=0,
            good=True,
            title=f"{job.name}: {note}",
            error=None,
            summary=f"{note.capitalize()} of job {job.name}. It has no record of a night yet.\n",
            figures=(),
            links=(),
        )
    else:
        newest = without_future(records, today)[-1]
        path = job.folder / str(newest.date) / RUN_FILE
        notification = compose(newest, newest.deciding, link=job.notify.link, note=note)
    for channel, fault in send_all(job.notify, notification.model_copy(update={"test": True}), path):
        yield channel, fault and job.placeholders.hide(fault)
