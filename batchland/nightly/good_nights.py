"""Which nights of a job are good, and with which of them, and which of their runs, another night is compared.

One answer for reference, usual numbers, baseline, history, trend and the page over all jobs.
"""

from collections.abc import Container, Iterable, Sequence
from datetime import date

from batchland.monitoring.schema import CanaryCheck
from batchland.nightly.run_record import ModelRun, RunRecord


def last_good(records: Iterable[RunRecord], before: date | None = None) -> RunRecord | None:
    """The newest good night; with `before`, the newest one before that date. None if there is none."""
    good = [record for record in records if record.good and (before is None or record.date < before)]
    return max(good, key=lambda record: record.date, default=None)


def reference_nights(records: Sequence[RunRecord], model: ModelRun) -> list[RunRecord]:
    """The nights that may be in the reference of a model, see `may_be_in_reference`."""
    starts = reference_starts(records)
    runs = ((record, run_of(record, model)) for record in records)
    return [record for record, run in runs if run and may_be_in_reference(record, run, starts)]


def may_be_in_reference(record: RunRecord, run: ModelRun, starts: Container[date | None]) -> bool:
    """Whether a night with this run is good, and was judged by a reference that still holds.

    A night that was accepted once is good, but stays out, so that the same fault is found again. Nights that were
    judged by the nights of an accepted change do not count after that acceptance was withdrawn.
    starts: see `reference_starts`.
    """
    if run.monitor is None or run.monitor.verdict == "not_judged" or not record.good:
        return False
    return not record.accepted.once if record.accepted else run.monitor.reference_start in starts


def reference_starts(records: Iterable[RunRecord]) -> set[date | None]:
    """First nights of the references that hold: of each accepted change, and None for the job's begin."""
    return {None, *(each.accepted.since for each in records if each.accepted and not each.accepted.once)}


def reference_start(records: Iterable[RunRecord], night: date) -> date:
    """First night of the last accepted change up to a night, with which the night's reference begins."""
    accepted = [record.accepted for record in records if record.accepted and not record.accepted.once]
    return max((each.since for each in accepted if each.since <= night), default=date.min)


def suspicious_since(record: RunRecord) -> date:
    """The first night of the change that makes a night suspicious; by default, this night."""
    return min((model.monitor.since or record.date for model in record.models if model.monitor), default=record.date)


def last_canaries(records: Iterable[RunRecord], night: date, name: str) -> tuple[CanaryCheck | None, int]:
    """The check of a model's canaries in the last night before this one, if that was good, and its number of images."""
    last = max((each for each in records if each.date < night), key=lambda each: each.date, default=None)
    for run in last.models if last and last.good else ():
        if run.name == name and run.counts:
            return run.canaries, run.counts.listed
    return None, 0


def run_of(record: RunRecord, model: ModelRun) -> ModelRun | None:
    """The run of a night with which a run of `model` is compared; None if the night scored nothing.

    It is the run of the same model (by sha256), else of the same name, else of the first model: only a model's own
    answers tell about its answers, but pictures and files are the job's, whatever the model and its name.
    """
    runs = [run for run in record.models if run.counts]
    own = [run for run in runs if is_same_model(run, model)]
    named = [run for run in own or runs if run.name == model.name]
    return next(iter(named or own or runs), None)


def is_same_model(run: ModelRun, other: ModelRun) -> bool:
    """Whether two runs are of the same ONNX file, by its content."""
    return run.model is not None and other.model is not None and run.model.sha256 == other.model.sha256


def evaluated_name(record: RunRecord, name: str, *, only: bool) -> str | None:
    """The name of the evaluated run that is the baseline of a model in the job; None if there is none.

    only: whether the job has one model. That is named after its file, so a new file is compared with the old one.
    """
    names = [run.name for run in record.models if run.evaluation]
    return name if name in names else names[0] if only and len(names) == 1 else None
