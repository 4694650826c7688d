"""The state of a job as a file for Prometheus's node exporter (textfile collector)."""

import logging
import os
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import BinaryIO

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from batchland.errors import OutputError
from batchland.nightly.dates import without_future
from batchland.nightly.record_files import read_runs
from batchland.nightly.run_record import RunRecord
from batchland.system.files import write_file

_log = logging.getLogger("batchland")


def write_metrics(path: Path, records: Sequence[RunRecord], today: date) -> None:
    """Write the metrics of a job's newest night that is not in the future, and of the last one that ended well.

    The file is replaced by rename, and everybody may read it, because the node exporter is another user.
    records: as `read_runs` gives them, at least one. Raises OutputError.
    """
    registry = CollectorRegistry()
    records = without_future(records, today)
    newest = records[-1]
    ended = next((each for each in reversed(records) if each.good or each.exit_code == 0), None)

    def gauge(name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"batchland_{name}", text, ["job_name", *labels], registry=registry)

    for name, text, value in (
        ("night_timestamp_seconds", "Midnight, local time, of the newest night's date.", _midnight(newest)),
        ("finished_timestamp_seconds", "When the newest night's run ended.", _finished(newest)),
        (
            "success_timestamp_seconds",
            "When the run of the newest night that is accepted or has exit code 0 ended.",
            _finished(ended) if ended else None,
        ),
        (
            "exit_code",
            "Exit code of the newest night's run; 0 if the night is suspicious and accepted.",
            0 if newest.good else newest.exit_code,
        ),
        ("duration_seconds", "Wall seconds of the newest night's run.", newest.seconds),
    ):
        if value is not None:
            gauge(name, text).labels(newest.job).set(value)
    _describe_models(newest, gauge)

    def write(file: BinaryIO) -> None:
        os.fchmod(file.fileno(), 0o644)
        file.write(generate_latest(registry))

    write_file(path, write)


def metrics_file(records: Sequence[RunRecord], today: date) -> Path | None:
    """The metrics file of the newest record that is not in the future; None if there is none."""
    path = without_future(records, today)[-1].config.get("metrics") if records else None
    return Path(path) if path else None


def refresh_metrics(folder: Path, today: date, before: Path | None = None) -> None:
    """Write the metrics again after the records in `folder` (`runs/NAME`) have changed, if the job has metrics.

    before: the metrics file before the change; it is removed if there is no record any more. A fault is a warning in
    the log.
    """
    records = read_runs(folder)
    try:
        if path := metrics_file(records, today):
            write_metrics(path, records, today)
        elif before and not records:
            before.unlink(missing_ok=True)
    except (OutputError, OSError) as error:
        _log.warning("metrics: %s", error)


def _describe_models(record: RunRecord, gauge: Callable[..., Gauge]) -> None:
    images = gauge("images", "Images of the newest night, by status.", "model", "status")
    failed = gauge("failed_images", "Failed images of the newest night, by error code.", "model", "code")
    rate = gauge("images_per_second", "Throughput of the newest night, start-up included.", "model")
    info = gauge("model_info", "Model and device of the newest night.", "model", "sha256", "device", "provider")
    accuracy = gauge(
        "accuracy", "Top-1 accuracy of the newest night, with the bounds of its interval.", "model", "bound"
    )
    suspicious = gauge("suspicious", "Whether the newest night is not like the good ones, without labels.", "model")
    estimated = gauge(
        "estimated_accuracy",
        "Accuracy of the newest night, estimated without labels, with its bounds.",
        "model",
        "bound",
    )
    deviation = gauge(
        "deviation", "Largest deviation of the newest night, as a multiple of the largest that a good one has.", "model"
    )
    passed = gauge("gate_passed", "Whether the newest night passed the gate.", "model", "gate")
    for model in record.models:
        own = (record.job, model.name)
        if model.counts and model.model:
            images.labels(*own, "ok").set(model.counts.ok)
            images.labels(*own, "failed").set(model.counts.failed)
            for code, count in model.counts.failed_by_code.items():
                failed.labels(*own, code).set(count)
            info.labels(*own, model.model.sha256, model.device, model.provider).set(1)
        if model.monitor and model.monitor.verdict != "not_judged":
            suspicious.labels(*own).set(model.monitor.verdict == "suspicious" and record.accepted is None)
        if model.monitor and (estimate := model.monitor.accuracy) and estimate.value is not None:
            for bound in ("value", "low", "high"):
                estimated.labels(*own, bound).set(getattr(estimate, bound))
        if model.monitor and model.monitor.strength is not None:
            deviation.labels(*own).set(model.monitor.strength)
        if model.images_per_second is not None:
            rate.labels(*own).set(model.images_per_second)
        if model.evaluation and (top1 := model.evaluation.figures.top1):
            for bound in ("value", "low", "high"):
                accuracy.labels(*own, bound).set(getattr(top1, bound))
        for gate in model.evaluation.gates if model.evaluation else ():
            if gate.verdict != "not_checked":
                passed.labels(*own, gate.gate).set(gate.verdict == "passed")


def _midnight(record: RunRecord) -> float:
    midnight = datetime.combine(record.date, time())
    try:
        return midnight.timestamp()
    except (ValueError, OverflowError):  # the first and the last day of the calendar have no local time
        return midnight.replace(tzinfo=UTC).timestamp()


def _finished(record: RunRecord) -> float | None:
    end = record.deciding.finished_at
    return datetime.fromisoformat(end).timestamp() if end else None
