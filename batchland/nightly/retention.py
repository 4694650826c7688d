"""Delete the predictions and reports of old nights, by the job's rules. Run records and logs stay.

Only files that a manifest of this job names are deleted, and only if the job's record of that night names the
manifest's run. All other files stay, and so does the last good night.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import NamedTuple

from batchland.errors import UsageError
from batchland.evaluation.saved import COMPARISON_FILES, REPORT_FILES
from batchland.nightly.job import Job
from batchland.nightly.job_tables import RetentionTable
from batchland.nightly.run_record import Deletion, RunRecord
from batchland.predictions.layout import MANIFEST
from batchland.predictions.reader import read_manifest
from batchland.predictions.storage import Location, display_location
from batchland.predictions.stored_folder import StoredFolder


class Expired(NamedTuple):
    """A folder of an old night, and the names of the files in it to delete, in this order."""

    date: date
    folder: Location
    files: tuple[str, ...]
    bytes: int


def find_expired(job: Job, night: date, records: Sequence[RunRecord], today: date) -> list[Expired]:
    """The folders that the job's rules no longer keep after a good run of `night`, the oldest first.

    The rules count from the newest good night that is not in the future, not from `night`. Nights after that one are
    kept and not counted.
    """
    if job.retention is None:
        return []
    found = {record.date: folders for record in records if (folders := list(_claimed(job, record)))}
    kept = _kept_nights(job.retention, night, found, records, today)
    return [folder for day in sorted(found) if day not in kept for folder in found[day]]


def delete(expired: Expired, run_id: str) -> Deletion:
    """Delete the files, and the folder if nothing else is in it. run_id: of this attempt. Raises OSError."""
    folder = StoredFolder(expired.folder)
    for name in expired.files:
        folder.remove(name)
    folder.remove_if_empty()
    if isinstance(expired.folder, Path):
        StoredFolder(expired.folder.parent).remove_if_empty()  # of the night's reports, when this was the last one
    return Deletion(
        date=expired.date,
        path=display_location(expired.folder),
        files=len(expired.files),
        bytes=expired.bytes,
        run_id=run_id,
    )


def _kept_nights(
    rules: RetentionTable, night: date, found: Iterable[date], records: Sequence[RunRecord], today: date
) -> set[date]:
    good = sorted({night, *(record.date for record in records if record.good)})
    newest = max((day for day in good if day <= today), default=date.min)
    before = max((day for day in good if day < newest), default=newest)
    kept = {night, newest, before, *[day for day in good if day < night][-1:]}
    if rules.keep_days is not None:
        # After a gap that would expire everything, wait for a second night: the clock may have been wrong.
        anchor = before if (newest - before).days >= rules.keep_days else newest
        kept.update(day for day in found if (anchor - day).days < rules.keep_days)
    if rules.keep_nights is not None:
        kept.update(day for day in found if day > newest)
        kept.update(sorted({*found, newest} - {day for day in found if day > newest})[-rules.keep_nights :])
    return kept


def _claimed(job: Job, record: RunRecord) -> Iterator[Expired]:
    """The folders of a night that this job wrote, by its record and their manifests."""
    for model in record.models:
        partition = job.partition(model.name, record.date)
        manifest = None
        with suppress(UsageError):  # an unreadable manifest does not show that the files belong to the job
            manifest = read_manifest(partition)
        if manifest is not None and (manifest.config.get("job"), manifest.run_id) == (job.name, model.run_id):
            names = [file.path for file in manifest.files if Path(file.path).name == file.path]
            # The manifest is deleted last, so that the next run resumes an interrupted deletion.
            yield _expired(record, partition, [*names, MANIFEST])
        report = job.report(model.name, record.date)
        if model.evaluation is not None and (report / REPORT_FILES[0]).exists():
            yield _expired(record, report, _summary_last(REPORT_FILES))
    for comparison in map(Path, record.comparisons):
        if (
            comparison.parent == job.folder / str(record.date) / "comparison"
            and (comparison / REPORT_FILES[0]).exists()
        ):
            yield _expired(record, comparison, _summary_last(COMPARISON_FILES))


def _summary_last(names: Sequence[str]) -> Sequence[str]:
    """Put the summary last, like the manifest, so that the next run finds the rest after an interrupted deletion."""
    return (*names[1:], names[0])


def _expired(record: RunRecord, folder: Location, names: Sequence[str]) -> Expired:
    sizes = StoredFolder(folder).sizes()
    existing = tuple(name for name in names if name in sizes)
    return Expired(record.date, folder, existing, sum(sizes[name] for name in existing))
