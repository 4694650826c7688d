"""The nights of a job as a table, one row per night and model, for people and for scripts.

rows = nights(job_records(Path("runs"), "nightly"))
print(table(rows))
"""

from collections import Counter
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Literal

from pydantic import Field

from batchland.evaluation.schema import Figure
from batchland.monitoring.schema import AccuracyEstimate, Verdict
from batchland.nightly.dates import local_today
from batchland.nightly.good_nights import reference_starts
from batchland.nightly.record_files import no_record, read_runs
from batchland.nightly.run_record import ModelRun, ModelState, Outcome, RunRecord
from batchland.nightly.run_text import outcome_text
from batchland.system.documents import Count, Document
from batchland.system.text import NONE, aligned, count, counted, ignored_files, interval, one_line, percent, visible

_Day = date
GateState = Literal["passed", "failed", "not_checked"]

_HEAD = ("date", "outcome", "tries", "model", "images", "failed", "images/s", "accuracy", "gates", "duration")
_RIGHT = ("tries", "images", "failed", "images/s", "duration")


class Night(Document):
    """One model in one night. A night that ended before any model is one row without a model."""

    job: str
    date: date
    outcome: Outcome
    exit_code: int | None
    good: bool
    """Whether it is complete and passed every check; a suspicious night only if a person accepted it."""
    error: str | None
    """One sentence, if the night did not end with outcome ok."""
    attempts: Count
    """Starts and retries, including those that were locked out by another run."""
    seconds: float | None
    """Wall seconds of the deciding attempt, all models together."""
    model: str | None = None
    model_sha256: str | None = None
    state: ModelState | None = None
    images: Count | None = None
    """Listed; None while the model's partition is not complete."""
    failed: Count | None = None
    failed_by_code: dict[str, Count] | None = None
    ignored: dict[str, Count] = Field(default_factory=dict)
    """Numbers of files that were not listed, by extension or kind."""
    already_scored: Count = 0
    images_per_second: float | None = None
    accuracy: Figure | None = None
    """Top-1 accuracy, with its interval."""
    gates: GateState | None = None
    """failed if one failed, not_checked if one could not be checked; None without gates."""
    gate_messages: tuple[str, ...] = ()
    monitor: Verdict | None = None
    """Verdict of the monitor; None if the night was not judged."""
    since: _Day | None = None
    """For a suspicious night: the first night of the change."""
    unusual: tuple[str, ...] = ()
    """For a suspicious night: sentences about what changed, and by how much."""
    accepted: bool = False
    """Whether a person accepted the suspicious night."""
    reference_withdrawn: bool = False
    """Whether it was judged by the nights of an accepted change, and the acceptance was withdrawn later."""
    estimated_accuracy: AccuracyEstimate | None = None
    """Accuracy estimated without labels; None if the model has no estimator."""
    report: str | None = None
    warnings: tuple[str, ...] = ()


def job_records(runs: Path, job: str) -> list[RunRecord]:
    """The records of a job below the folder `runs`, oldest first. Raises UsageError if it has none."""
    records = read_runs(runs / job)
    if not records:
        raise no_record(runs / job)
    return records


def nights(records: Sequence[RunRecord], last: int | None = None) -> list[Night]:
    """The rows of a job's records, in their order, models in the job's order. last: of so many nights alone."""
    starts = reference_starts(records)
    return [
        Night.model_validate(night_fields(record) | (_model_fields(model, starts) if model else {}))
        for record in records[-last if last else 0 :]
        for model in record.models or (None,)
    ]


def gate_state(model: ModelRun) -> GateState | None:
    """The result of all gates of a model together; None without gates."""
    verdicts = {gate.verdict for gate in model.evaluation.gates} if model.evaluation else set()
    order: tuple[GateState, ...] = ("failed", "not_checked", "passed")
    return next((verdict for verdict in order if verdict in verdicts), None)


def table(rows: Sequence[Night], today: date | None = None) -> str:
    """The rows as a table for a terminal, each error below its night, and a line of totals. Ends with a newline."""
    starts = [before is None or before.date != night.date for before, night in zip([None, *rows], rows, strict=False)]
    outcomes = _outcomes(rows)
    cells = [
        _cells(night, outcomes[night.date])
        | ({} if first else dict.fromkeys(("date", "outcome", "tries", "duration"), ""))
        for night, first in zip(rows, starts, strict=True)
    ]
    align = "".join(">" if name in _RIGHT else "<" for name in _HEAD)
    head, *lines = aligned([_HEAD, *([row[name] for name in _HEAD] for row in cells)], align)
    printed = [head]
    for line, night, first in zip(lines, rows, starts, strict=True):
        printed.append(line)
        if first and night.error:
            printed.append(f"{'':12}{visible(night.error)}")
        if night.reference_withdrawn:
            printed.append(f"{'':12}{night.model}: was compared with nights that are no longer accepted")
        if night.ignored:
            printed.append(f"{'':12}{night.model}{ignored_files(night.ignored)}")
    return "\n".join([*printed, _totals(rows, today or local_today())]) + "\n"


def night_fields(record: RunRecord) -> dict[str, object]:
    """The fields of a Night that do not depend on a model."""
    return {
        "job": record.job,
        "date": record.date,
        "outcome": record.outcome,
        "exit_code": record.exit_code,
        "good": record.good,
        "error": record.error,
        "attempts": len(record.attempts),
        "seconds": record.seconds,
        "warnings": record.warnings,
        "accepted": record.accepted is not None,
    }


def _model_fields(model: ModelRun, starts: set[date | None]) -> dict[str, object]:
    evaluation = model.evaluation
    return {
        "model": model.name,
        "ignored": model.ignored,
        "model_sha256": model.model.sha256 if model.model else None,
        "state": model.state,
        "images": model.counts.listed if model.counts else None,
        "failed": model.counts.failed if model.counts else None,
        "failed_by_code": model.counts.failed_by_code if model.counts else None,
        "already_scored": model.already_scored,
        "images_per_second": model.images_per_second,
        "accuracy": evaluation.figures.top1 if evaluation else None,
        "gates": gate_state(model),
        "gate_messages": tuple(gate.message for gate in evaluation.gates) if evaluation else (),
        "monitor": model.monitor.verdict if model.monitor else None,
        "estimated_accuracy": model.monitor.accuracy if model.monitor else None,
        "reference_withdrawn": model.monitor is not None and model.monitor.reference_start not in starts,
        "since": model.monitor.since if model.monitor else None,
        "unusual": tuple(finding.message for finding in model.monitor.findings) if model.monitor else (),
        "report": evaluation.report if evaluation else None,
    }


def _cells(night: Night, outcome: str) -> dict[str, str]:
    bounds = interval(night.accuracy)
    accuracy = percent(night.accuracy.value) + (f" ({bounds})" if bounds else "") if night.accuracy else NONE
    return {
        "date": str(night.date),
        "outcome": outcome,
        "tries": str(night.attempts),
        "model": one_line(night.model, 24) if night.model else NONE,
        "images": NONE if night.images is None else count(night.images),
        "failed": NONE if night.failed is None else count(night.failed),
        "images/s": NONE if night.images_per_second is None else f"{night.images_per_second:,.1f}",
        "accuracy": accuracy,
        "gates": (night.gates or NONE).replace("_", " "),
        "duration": NONE if night.seconds is None else str(timedelta(seconds=round(night.seconds))),
    }


def _outcomes(rows: Sequence[Night]) -> dict[date, str]:
    """How each night ended, with the verdict of the monitor on any of its models."""
    suspicious = {night.date for night in rows if night.monitor == "suspicious"}
    return {
        night.date: outcome_text(night.outcome, suspicious=night.date in suspicious, accepted=night.accepted)
        for night in rows
    }


def _totals(rows: Sequence[Night], today: date) -> str:
    outcomes = _outcomes(rows)
    counts = ", ".join(f"{number} {outcome}" for outcome, number in Counter(outcomes.values()).most_common())
    good = [night.date for night in rows if night.good and night.date <= today]
    last = f"the last good one is {max(good)}" if good else "none of them good"
    future = sum(day > today for day in outcomes)
    after = f"; {counted(future, 'night')} after today, {today}" if future else ""
    return f"{counted(len(outcomes), 'night')}: {counts}; {last}{after}."
