"""Which nights of a job are good, and with which of them another night is compared.

One answer for reference, usual numbers, baseline, history, trend and the page over all jobs.
"""

from collections.abc import Iterable, Sequence
from datetime import date

from batchland.nightly.run_record import ModelRun, RunRecord


def last_good(records: Iterable[RunRecord], before: date | None = None) -> RunRecord | None:
    """The newest good night; with `before`, the newest one before that date. None if there is none."""
    good = [record for record in records if record.good and (before is None or record.date < before)]
    return max(good, key=lambda record: record.date, default=None)


def is_comparable(record: RunRecord) -> bool:
    """Whether other nights may be compared with this one.

    It is good and not suspicious, or accepted. A job that only warns of suspicious nights has good ones that are not
    comparable.
    """
    return record.good and (record.accepted is not None or not record.suspicious)


def reference_nights(records: Sequence[RunRecord], name: str) -> list[RunRecord]:
    """The nights that may be in the reference of a model: comparable, and judged by a reference that still holds.

    Nights that were judged by the nights of an accepted change do not count after that acceptance was withdrawn.
    """
    starts = reference_starts(records)
    found = []
    for record in records:
        run = run_of(record, name)
        if run is None or run.monitor is None or run.monitor.verdict == "not_judged" or not is_comparable(record):
            continue
        if run.monitor.reference_start in starts or record.accepted:
            found.append(record)
    return found


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


def run_of(record: RunRecord, name: str) -> ModelRun | None:
    """What a model did in a night, if it scored images."""
    return next((model for model in record.models if model.name == name and model.counts), None)
