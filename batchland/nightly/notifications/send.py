"""Tell others of a night: metrics, notification, heartbeat. What goes wrong with that becomes a warning, no more."""

from batchland.errors import OutputError
from batchland.nightly.notifications.command import notify
from batchland.nightly.notifications.heartbeat import ping_end, ping_start
from batchland.nightly.notifications.prometheus import write_metrics
from batchland.nightly.recorder import Recorder
from batchland.nightly.run_record import RUN_FILE, read_runs
from batchland.nightly.run_text import describe_run


def tell_start(recorder: Recorder) -> None:
    """Say that the night's run begins."""
    if recorder.job.heartbeat:
        _note(recorder, ping_start(recorder.job.heartbeat))


def tell_end(recorder: Recorder, *, quiet: bool) -> None:
    """Say how it ended. quiet: only to the metrics file, which is about the job's newest night in any case."""
    job, attempt = recorder.job, recorder.attempt
    known = len(recorder.warnings)
    records = [record for record in read_runs(job.folder) if record.date != recorder.night]
    if job.metrics and attempt.outcome != "locked":
        try:
            write_metrics(job.metrics, sorted([*records, recorder.record], key=lambda record: record.date))
        except OutputError as error:
            _note(recorder, f"metrics: {error}")
    if job.notify and not quiet:
        on, failed = job.notify.on, attempt.exit_code != 0
        before = [record.exit_code for record in records if record.date < recorder.night][-1:]
        if recorder.before is not None:
            before = [recorder.before.exit_code]
        if failed or on == "always" or (on == "change" and before and before[0] != 0):
            summary = describe_run(recorder.record)
            _note(recorder, notify(job.notify, recorder.record, attempt, recorder.folder / RUN_FILE, summary))
    if job.heartbeat and not quiet:
        _note(recorder, ping_end(job.heartbeat, attempt.exit_code or 0))
    if len(recorder.warnings) > known:
        recorder.save()


def _note(recorder: Recorder, trouble: str | None) -> None:
    if trouble:
        recorder.warn(trouble)
