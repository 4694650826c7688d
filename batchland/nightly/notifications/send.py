"""Report a night: metrics, notifications, heartbeat. A failure of these becomes a warning in the record."""

from collections.abc import Iterator, Sequence

from batchland.errors import OutputError
from batchland.nightly.job_tables import NotifyTable
from batchland.nightly.notifications.channels import send_all
from batchland.nightly.notifications.heartbeat import ping_end, ping_start
from batchland.nightly.notifications.message import Notification, Picture, compose
from batchland.nightly.notifications.metrics import write_metrics
from batchland.nightly.notifications.pictures import choose_pictures
from batchland.nightly.record_files import RUN_FILE, read_runs
from batchland.nightly.recorder import Recorder
from batchland.nightly.run_record import RunRecord
from batchland.system.deadline import within


def report_start(recorder: Recorder) -> None:
    """Ping the heartbeat."""
    if recorder.job.heartbeat:
        recorder.warn(ping_start(recorder.job.heartbeat))


def report_end(recorder: Recorder, *, quiet: bool) -> None:
    """Write the metrics, send the notifications, ping the heartbeat. quiet: only the metrics."""
    job, attempt = recorder.job, recorder.attempt
    warnings = len(recorder.warnings)
    others = [record for record in read_runs(job.folder) if record.date != recorder.night]
    if job.metrics and attempt.outcome != "locked":
        try:
            records = sorted([*others, recorder.record], key=lambda record: record.date)
            write_metrics(job.metrics, records, recorder.today)
        except OutputError as error:
            recorder.warn(f"metrics: {error}")
    if job.notify and not quiet and _wanted(job.notify, recorder, others):
        for channel, fault in notify_night(recorder):
            recorder.warn(fault and f"notify: {channel}: {fault}")
    if job.heartbeat and not quiet:
        recorder.warn(ping_end(job.heartbeat, attempt.exit_code or 0))
    if len(recorder.warnings) > warnings:
        recorder.save_ending()


def report_late(recorder: Recorder) -> None:
    """Send a notification during the run that the night will not end in time."""
    for channel, fault in notify_night(recorder, note="will not end in time"):
        recorder.warn(fault and f"notify: {channel}: {fault}")


def notify_night(recorder: Recorder, note: str | None = None) -> Iterator[tuple[str, str | None]]:
    """Send the notification about the last attempt. Gives each channel's name with an error message or None.

    note: used in the title instead of the attempt's outcome.
    """
    table = recorder.job.notify
    assert table is not None
    pictures = _pictures(table, recorder) if note is None else ()
    notification = compose(recorder.record, recorder.attempt, link=table.link, pictures=pictures, note=note)
    yield from send_all(table, _hidden(recorder, notification), recorder.folder / RUN_FILE)


def _wanted(table: NotifyTable, recorder: Recorder, others: Sequence[RunRecord]) -> bool:
    failed = recorder.attempt.exit_code != 0
    before = [record.exit_code for record in others if record.date < recorder.night][-1:]
    if recorder.before is not None:
        before = [recorder.before.exit_code]
    return failed or table.on == "always" or (table.on == "change" and bool(before) and before[0] != 0)


def _pictures(table: NotifyTable, recorder: Recorder) -> tuple[Picture, ...]:
    if not table.pictures or not (table.mail or table.teams or table.webhook):
        return ()
    try:
        return within(table.timeout.total_seconds(), lambda: choose_pictures(recorder))
    except TimeoutError:
        return ()


def _hidden(recorder: Recorder, notification: Notification) -> Notification:
    hide = recorder.job.placeholders.hide_all
    return Notification.model_validate(hide(notification.model_dump(mode="json", exclude={"pictures"}))).model_copy(
        update={"pictures": notification.pictures}
    )
