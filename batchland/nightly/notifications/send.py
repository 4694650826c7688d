"""Report a night: metrics, notification, heartbeat. A failure of these becomes a warning in the record."""

from batchland.errors import OutputError
from batchland.nightly.notifications.command import notify
from batchland.nightly.notifications.heartbeat import ping_end, ping_start
from batchland.nightly.notifications.metrics import write_metrics
from batchland.nightly.record_files import RUN_FILE, read_runs
from batchland.nightly.recorder import Recorder
from batchland.nightly.run_text import describe_run


def report_start(recorder: Recorder) -> None:
    """Ping the heartbeat."""
    if recorder.job.heartbeat:
        recorder.warn(ping_start(recorder.job.heartbeat))


def report_end(recorder: Recorder, *, quiet: bool) -> None:
    """Write the metrics, run the notification command, ping the heartbeat. quiet: only the metrics."""
    job, attempt = recorder.job, recorder.attempt
    warnings = len(recorder.warnings)
    others = [record for record in read_runs(job.folder) if record.date != recorder.night]
    if job.metrics and attempt.outcome != "locked":
        try:
            records = sorted([*others, recorder.record], key=lambda record: record.date)
            write_metrics(job.metrics, records, recorder.today)
        except OutputError as error:
            recorder.warn(f"metrics: {error}")
    if job.notify and not quiet:
        on, failed = job.notify.on, attempt.exit_code != 0
        before = [record.exit_code for record in others if record.date < recorder.night][-1:]
        if recorder.before is not None:
            before = [recorder.before.exit_code]
        if failed or on == "always" or (on == "change" and before and before[0] != 0):
            summary = describe_run(recorder.record)
            recorder.warn(notify(job.notify, recorder.record, attempt, recorder.folder / RUN_FILE, summary))
    if job.heartbeat and not quiet:
        recorder.warn(ping_end(job.heartbeat, attempt.exit_code or 0))
    if len(recorder.warnings) > warnings:
        recorder.save_ending()
