"""The nights of a job in figures: accuracy, predictions, failures, speed, and drift against a reference.

trend = measure(job_records(Path("runs"), "nightly"))
write_trend(trend, Path("trend.html"))

Reads only the run records, which hold the counts of each night's predictions; the predictions may be deleted by then.
Only the map reads predictions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa

from batchland.errors import UsageError
from batchland.evaluation.intervals import Ints
from batchland.monitoring.drift import Drift, drift, equal_parts
from batchland.nightly.good_nights import is_same_model, reference_start, run_of
from batchland.nightly.history import gate_state, night_fields
from batchland.nightly.run_record import ModelRun, PredictionMix, RunRecord
from batchland.trend.night_map import NightMap, night_maps
from batchland.trend.options import TrendOptions
from batchland.trend.schema import TREND


@dataclass(frozen=True)
class Trend:
    """The nights of a job, measured."""

    job: str
    options: TrendOptions
    table: pa.Table
    """A table with the schema TREND."""
    maps: Mapping[str, NightMap] = field(default_factory=dict)
    """The map of each model with features."""


def measure(records: Sequence[RunRecord], options: TrendOptions | None = None) -> Trend:
    """Measure these nights of one job, oldest first, at least one.

    Raises UsageError if the given reference has no good night with predictions.
    """
    options = options or TrendOptions()
    starts = {record.date: reference_start(records, record.date) for record in records}
    references: dict[_Version, Nights] = {}

    def reference(record: RunRecord, model: ModelRun) -> Nights:
        version = model.name, model.model.sha256 if model.model else None, starts[record.date]
        if version not in references:
            references[version] = _reference(records, model, options, starts, version[-1])
        return references[version]

    rows = [
        night_fields(record)
        | {"reference": False}
        | (_model_row(record, model, reference(record, model)) if model else {})
        for record in records
        for model in record.models or (None,)
    ]
    if options.reference and not any(references.values()):
        first, last = options.reference
        raise UsageError(f"reference {first} to {last}: contains no good night with predictions; see the history")
    table = pa.Table.from_pylist(rows, TREND)
    return Trend(records[0].job, options, table, night_maps(records) if options.map else {})


Nights = dict[date, PredictionMix]
"""Predictions of reference nights, by date."""
_Version = tuple[str, str | None, date]
"""Name of a model, its sha256, and the first night of the last accepted change."""


def _reference(
    records: Sequence[RunRecord], model: ModelRun, options: TrendOptions, starts: Mapping[date, date], start: date
) -> Nights:
    """What a run of a model is compared with: the nights of the given dates, or the first ones of the same model.

    starts: first night of the last accepted change, by night. start: that of the run.
    """
    found: Nights = {}
    for record in records:
        run = run_of(record, model)
        if not record.good or run is None or run.mix is None or run.mix.mean_confidence is None:
            continue
        if options.reference:
            chosen = options.reference[0] <= record.date <= options.reference[1]
        else:
            own = is_same_model(run, model) and starts[record.date] == start
            chosen = own and len(found) < options.reference_nights
        if chosen:
            found[record.date] = run.mix
    return found


def _model_row(record: RunRecord, model: ModelRun, nights: Nights) -> dict[str, Any]:
    """nights: the reference."""
    row: dict[str, Any] = {
        "model": model.name,
        "model_sha256": model.model.sha256 if model.model else None,
        "images_per_second": model.images_per_second,
        "gates": gate_state(model),
    }
    if model.counts:
        row |= {"images": model.counts.listed, "failed": model.counts.failed}
    if model.evaluation and (top1 := model.evaluation.figures.top1):
        scored = model.evaluation.account.scored
        row |= {"labelled": scored, "accuracy": top1.value, "accuracy_low": top1.low, "accuracy_high": top1.high}
    if model.monitor:
        row |= {"monitor": model.monitor.verdict, "since": model.monitor.since}
        if estimate := model.monitor.accuracy:
            row |= {
                "estimated_accuracy": estimate.value,
                "estimated_low": estimate.low,
                "estimated_high": estimate.high,
            }
    if model.mix:
        others = {night: mix for night, mix in nights.items() if night != record.date}
        row |= _answers(model.mix) | _drifts(list(others.values()), model.mix)
        row |= {"compared_with": list(others), "reference": record.date in nights}
    return row


def _answers(mix: PredictionMix) -> dict[str, Any]:
    return {
        "mean_confidence": mix.mean_confidence,
        "classes": [{"label": label, "images": images} for label, images in mix.classes.items()],
        "confidence_histogram": list(mix.confidence_histogram),
    }


def _drifts(reference: Sequence[PredictionMix], mix: PredictionMix) -> dict[str, float | None]:
    if not reference:
        return {}
    labels = list(dict.fromkeys(label for each in (*reference, mix) for label in each.classes))
    before = np.sum([_counts(each, labels) for each in reference], axis=0)
    classes = drift(before, _counts(mix, labels))
    histogram = np.sum([each.confidence_histogram for each in reference], axis=0)
    parts = equal_parts(histogram)
    confidences = drift(np.add.reduceat(histogram, parts), np.add.reduceat(mix.confidence_histogram, parts))
    return _drift_columns("class", classes) | _drift_columns("confidence", confidences)


def _counts(mix: PredictionMix, labels: Sequence[str]) -> Ints:
    return np.asarray([mix.classes.get(label, 0) for label in labels], np.int64)


def _drift_columns(what: str, found: Drift | None) -> dict[str, float | None]:
    if found is None:
        return {}
    return {f"{what}_psi": found.psi, f"{what}_psi_limit": found.psi_limit, f"{what}_js": found.js}
