"""Judge a night by the good nights of the job, and keep its figures for judging later nights.

`runs/NAME/DATE/monitor/MODEL.parquet` holds the figures of the night's images, because predictions may be deleted.
"""

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from batchland._version import __version__
from batchland.errors import OutputError, UsageError
from batchland.monitoring.estimate import estimator_path, read_estimator
from batchland.monitoring.kept_reference import read_reference, write_reference
from batchland.monitoring.observations import NOTHING, Observations, observe, read_night
from batchland.monitoring.reference import MIN_PHOTOS, Reference
from batchland.monitoring.rules import COPIED_NIGHTS, MIN_IMAGES, Night
from batchland.monitoring.schema import Estimator, Finding, NightVerdict
from batchland.monitoring.verdict import MAX_NIGHTS, MIN_NIGHTS, SURE_NIGHTS, judge
from batchland.nightly.contract import usual_number
from batchland.nightly.good_nights import is_same_model, reference_nights, reference_start, run_of
from batchland.nightly.job import Job
from batchland.nightly.job_fields import amount_of
from batchland.nightly.job_tables import MonitorTable
from batchland.nightly.run_record import ModelRun, RunRecord
from batchland.predictions.reader import StoredPredictions
from batchland.system.files import remove_leftovers, write_file
from batchland.system.text import first_line, images, interval, percent

_log = logging.getLogger("batchland")
FOLDER: Final = "monitor"
"""Name of a folder in the folder of a night's record."""
RECENT_NIGHTS: Final = 28
"""Number of good nights that are used for the numbers of images and usual shares."""


def judge_night(job: Job, name: str, model: ModelRun, night: date, records: Sequence[RunRecord]) -> NightVerdict:
    """The verdict on a model's complete partition. Writes the partition's figures beside the record.

    name: of the model in the job; a kept partition may be of another one. records: of the job's nights. Raises
    UsageError if the partition is damaged, and OutputError.
    """
    assert model.counts
    stored = StoredPredictions(job.partition(name, night))
    rows = read_night(stored)
    if rows is None:
        note = "the predictions were written by an earlier version, without figures of the images"
        return NightVerdict(verdict="not_judged", judged_by="rules", images=0, notes=(note,))
    figures = _figures_file(job, night, model)
    _write_figures(figures, rows)
    remove_leftovers(figures.parent, locked=figures.name)
    present = Night(night, observe(rows), model.counts.listed, model.counts.failed)
    good = [record for record in reference_nights(records, model) if record.date < night]
    start = reference_start(records, night)
    chosen, photos = job.monitor.reference, None
    if isinstance(chosen, Path):
        labelled = read_photos(chosen)
        photos = labelled.observed
        compared = _Compared([], labelled.model_sha256 == _sha256(model), [])
    else:
        compared = _reference(chosen, model, good, start)
    recent = [record for record in good if _has_same_images(job, model, run_of(record, model))][-RECENT_NIGHTS:]
    runs = [(record, run_of(record, model)) for record in records if record.date < night]
    judged = [
        (record, run, run.monitor)
        for record, run in runs
        if run and run.monitor and run.monitor.verdict != "not_judged"
    ]
    delivered = [record for record, run, _ in judged if _has_same_images(job, model, run)][-COPIED_NIGHTS:]
    needed = {record.date: record for record in (*compared.nights, *compared.other_model, *recent, *delivered)}
    known = {day: _night(job, record, model) for day, record in needed.items()}
    before = [
        (known.get(record.date) or _night(job, record, model), verdict)
        for record, _, verdict in judged[-1:]
        if record.date >= start
    ]
    verdict = judge(
        present,
        [known[record.date] for record in compared.nights],
        [known[record.date] for record in recent],
        [each.label for each in stored.info().classes],
        usual=usual_number(night, [record for record in recent if record.date >= start]),
        before=next(iter(before), None),
        start=None if start == date.min else start,
        photos=photos,
        budget=job.monitor.false_alarms,
        same_model=compared.same_model,
        new_images=not job.monitor.repeats,
        estimator=_estimator(job.model_file(name), model),
        cache=_ReferenceFiles(job, model, needed.values()),
        other_model=[known[record.date] for record in compared.other_model],
        delivered=[known[record.date] for record in delivered],
    )
    hint = repeats_hint(job, night)
    if hint and any(finding.kind == "earlier_copies" for finding in verdict.findings):
        return verdict.model_copy(update={"notes": (*verdict.notes, hint)})
    return verdict


def repeats_hint(job: Job, night: date) -> str | None:
    """What to set if images stay in the folder; None if the job says that, or if nights have their own folders."""
    if not replaces_images(job, night):
        return None
    return (
        "the nights have one folder of images; if images stay in it on purpose, set repeats = true in [monitor], or "
        'mode = "new" to score only new ones'
    )


def replaces_images(job: Job, night: date) -> bool:
    """Whether all nights have one folder, and each night has other images in it."""
    other = night - timedelta(days=1) if night > date.min else night + timedelta(days=1)
    return not job.monitor.repeats and job.mode == "all" and job.images_of(night) == job.images_of(other)


def next_reference(records: Sequence[RunRecord], record: RunRecord) -> set[date]:
    """The reference of a night after all of `records`, with the models and the job of `record`."""
    fixed = named_reference(record)
    if isinstance(fixed, Path):
        return set()
    start = reference_start(records, date.max)
    nights: set[date] = set()
    for model in record.models:
        chosen = _reference(fixed, model, reference_nights(records, model), start).nights
        runs = {each.date: run_of(each, model) for each in chosen}
        nights |= {day for day, run in runs.items() if run and run.monitor and run.monitor.images >= MIN_IMAGES}
    return nights


def named_reference(record: RunRecord) -> tuple[date, date] | Path | None:
    """The first and the last night of the reference or the predictions of labelled photos, if the job names them."""
    return MonitorTable.model_validate(record.config.get("monitor", {})).reference


class LabelledPhotos(NamedTuple):
    """Labelled photos that nights are compared with."""

    observed: Observations
    model_sha256: str
    """Of the model that scored them."""


def read_photos(path: Path) -> LabelledPhotos:
    """The predictions of labelled photos. Raises UsageError if they are missing, damaged, too few or too old."""
    stored = StoredPredictions(path)
    if stored.kind is None:
        raise UsageError(f"{path}: does not exist; score the labelled photos first, and write the predictions there")
    info = stored.info()
    rows = read_night(stored)
    if rows is None:
        raise UsageError(f"{path}: was written without figures of the images; score the labelled photos again")
    if len(rows) < MIN_PHOTOS:
        raise UsageError(f"{path}: {images(len(rows))} scored, fewer than {MIN_PHOTOS}, are no reference for nights")
    return LabelledPhotos(observe(rows), info.model.sha256)


def explain(models: Iterable[ModelRun]) -> str:
    """One sentence about what is suspicious in a night; empty if nothing is."""
    texts = []
    several = len(list(models)) > 1
    for model in models:
        verdict = model.monitor
        if verdict is None or verdict.verdict != "suspicious":
            continue
        since = f"since {verdict.since}: " if verdict.since else ""
        findings = "; ".join(_dated(finding, verdict) for finding in verdict.findings[:3])
        more = f" (and {len(verdict.findings) - 3} more)" if len(verdict.findings) > 3 else ""
        texts.append(f"{f'{model.name}: ' if several else ''}{since}{findings}{more}")
    return "; ".join(texts)


def _dated(finding: Finding, verdict: NightVerdict) -> str:
    """The message, and since when if that is not the night of the verdict."""
    if verdict.since is None or finding.since == verdict.since:
        return finding.message
    return f"{finding.message} ({f'since {finding.since}' if finding.since else 'new'})"


def broken_limits(limits: MonitorTable, model: ModelRun) -> list[str]:
    """Messages about `min_accuracy` and `max_strangers`, if a night breaks them."""
    found = []
    estimate = model.monitor.accuracy if model.monitor else None
    least, share = limits.min_accuracy, model.monitor.strangers if model.monitor else None
    if least and estimate and estimate.value is not None and estimate.value < amount_of(least, 1):
        shown = f"{percent(estimate.value)} ({interval(estimate)})"
        found.append(f"estimated accuracy {shown} is below min_accuracy {least}")
    if limits.max_strangers and share is not None and share > amount_of(limits.max_strangers, 1):
        found.append(f"{percent(share)} of the images are strangers, more than max_strangers {limits.max_strangers}")
    return found


def unchecked_limits(limits: MonitorTable, model: ModelRun) -> Iterator[str]:
    """Why `min_accuracy` or `max_strangers` was not checked in a scored night, if one was not."""
    verdict = model.monitor
    no_estimate = "the night has no estimate, for there was no estimator of this model beside it"
    for name, known, missing in (
        ("min_accuracy", verdict is not None and verdict.accuracy is not None, no_estimate),
        ("max_strangers", verdict is not None and verdict.strangers is not None, "the model has no known photos"),
    ):
        limit = getattr(limits, name)
        if limit is not None and model.counts and not known:
            why = 'monitor.action is "off"' if limits.action == "off" else missing
            yield f"{model.name}: {name} {limit} is not checked: {why}"


def _figures_file(job: Job, night: date, run: ModelRun) -> Path:
    return job.folder / str(night) / FOLDER / f"{run.name}.parquet"


def _has_same_images(job: Job, model: ModelRun, run: ModelRun | None) -> bool:
    """Whether an earlier run shows how many images are usual, and which are copies.

    With mode "new", each of several models has other new images.
    """
    return job.mode == "all" or not job.models or (run is not None and run.name == model.name)


class _Compared(NamedTuple):
    """The nights to compare with, oldest first."""

    nights: list[RunRecord]
    same_model: bool
    """Whether the same model scored all of them."""
    other_model: list[RunRecord]
    """After a change of the model, also the nights before it, for pictures; else empty."""


def _reference(fixed: tuple[date, date] | None, model: ModelRun, good: Sequence[RunRecord], start: date) -> _Compared:
    """fixed: the first and the last of the nights that the job names."""
    first, last = fixed or (start, date.max)
    chosen = [record for record in good if first <= record.date <= last]
    own = [record for record in chosen if (run := run_of(record, model)) and is_same_model(run, model)]
    if len(own) == len(chosen) or len(own) >= SURE_NIGHTS:
        return _Compared(own[:MAX_NIGHTS], True, [])
    if len(own) >= MIN_NIGHTS:
        return _Compared(own, True, chosen[-MAX_NIGHTS:])
    return _Compared(chosen[-MAX_NIGHTS:], False, [])


def _estimator(path: Path, model: ModelRun) -> Estimator | None:
    estimator = read_estimator(path)
    if estimator and estimator.model_sha256 != _sha256(model):
        _log.warning("%s: is of another model; the accuracy is not estimated", estimator_path(path))
        return None
    return estimator


def _sha256(model: ModelRun | None) -> str | None:
    return model.model.sha256 if model and model.model else None


def _night(job: Job, record: RunRecord, model: ModelRun) -> Night:
    run = run_of(record, model)
    assert run is not None
    assert run.counts is not None
    assert run.monitor is not None
    file = _figures_file(job, record.date, run)
    images = run.monitor.images if file.exists() else 0
    return Night(record.date, lambda: _observed(file), run.counts.listed, run.counts.failed, images)


class _ReferenceFiles:
    """Keeps references in `runs/NAME/reference`: `MODEL.npz`, and `MODEL.pictures.npz` without answers."""

    def __init__(self, job: Job, model: ModelRun, records: Iterable[RunRecord]) -> None:
        """records: of the nights that a reference may be made of."""
        self._folder, self._name = job.folder / "reference", model.name
        runs = [(record.date, run_of(record, model)) for record in records]
        self._files = {day: _figures_file(job, day, run) for day, run in runs if run}

    def read(self, nights: Sequence[Night], *, answers: bool) -> Reference | None:
        """See `ReferenceCache`."""
        return read_reference(self._path(answers=answers), self._key(nights))

    def write(self, nights: Sequence[Night], reference: Reference, *, answers: bool) -> None:
        """See `ReferenceCache`. A file that cannot be written is only a warning."""
        path = self._path(answers=answers)
        try:
            write_reference(path, self._key(nights), reference)
        except OutputError as error:
            _log.warning("%s; the next night computes the reference again", error)
        else:
            remove_leftovers(path.parent, locked=path.name)

    def _path(self, *, answers: bool) -> Path:
        return self._folder / f"{self._name}{'' if answers else '.pictures'}.npz"

    def _key(self, nights: Sequence[Night]) -> str:
        """A digest of what the reference depends on: the program, and the files of figures."""
        stats = [(str(night.date), self._files[night.date].stat()) for night in nights]
        made_of = [(day, each.st_size, each.st_mtime_ns) for day, each in stats]
        return hashlib.sha256(json.dumps([__version__, made_of]).encode()).hexdigest()


def _write_figures(path: Path, rows: pa.Table) -> None:
    """Written so that 60 of them are read fast: columns of noise gain little from compression."""
    write_file(
        path, lambda file: pq.write_table(rows, file, compression="none", use_dictionary=False, write_statistics=False)
    )


def _observed(path: Path) -> Observations:
    """The figures of an earlier night; none if their file is missing or damaged."""
    if not path.exists():
        return NOTHING
    try:
        with pq.ParquetFile(path) as file:
            return observe(file.read(use_threads=False))
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        reason = first_line(error)
        _log.warning("%s: cannot be read (%s); nothing is compared with the figures of this night", path, reason)
        return NOTHING
