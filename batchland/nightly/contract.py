"""The delivery contract of a job, `[delivery]`: numbers, names, checksums and copies, checked before scoring.

A delivery with too few images is incomplete, and the rest may still arrive (exit code 66). A delivery with too many or
wrong images is wrong (exit code 4).
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

from batchland.errors import ImageError, IncompleteDeliveryError, UsageError, WrongDeliveryError
from batchland.images.sources.refs import ImageRef, content_hash, read_image
from batchland.nightly.good_nights import reference_start
from batchland.nightly.job import Job
from batchland.nightly.job_fields import amount_of, expand
from batchland.nightly.job_tables import DeliveryTable
from batchland.nightly.run_record import RunRecord
from batchland.predictions.reader import StoredPredictions
from batchland.predictions.storage import display_location
from batchland.scoring.listing import Skip, open_listing
from batchland.system.cores import usable_cores
from batchland.system.csv_files import read_columns
from batchland.system.text import counted, first_few, images

USUAL_NIGHTS: Final = 28
"""The usual number of images is the median of this many of the newest good nights ..."""
USUAL_WEEKDAYS: Final = 56
"""... or of those of the same weekday among this many."""
MIN_NIGHTS: Final = 5
"""With fewer good nights there is no usual number yet."""
MIN_WEEKDAYS: Final = 4
"""With at least this many good nights of the same weekday, only these are used."""
COPIED_NIGHTS: Final = 30
"""Copies are looked for in this many scored nights, the newest ones."""
_MAX_SIZE_DIGITS: Final = 20
_NOT_IGNORED: Final = ("hidden", "excluded", "not included", "blank line")
"""Kinds of files that `max_ignored` does not count, because the job leaves them out on purpose."""


class ExpectedImage(NamedTuple):
    """A row of the list of expected images."""

    size: int | None
    """Bytes."""
    sha256: str | None


def check_contract(job: Job, night: date, records: Sequence[RunRecord], skip: Skip | None = None) -> None:
    """Check a night's images against `[delivery]`. Lists the folder once, and reads the images if the job asks for it.

    records: of the job's nights. skip: returns whether an image is already scored; such images count only as expected
    ones. Raises IncompleteDeliveryError, WrongDeliveryError, or UsageError if the list of expected images is invalid.
    """
    correct = f"or correct [delivery] in {job.file}"
    try:
        _check(job, night, records, skip)
    except IncompleteDeliveryError as error:
        raise IncompleteDeliveryError(f"{error}; run the night again when everything has arrived, {correct}") from error
    except WrongDeliveryError as error:
        raise WrongDeliveryError(f"{error}; correct the delivery, {correct}, then run the night again") from error


def _check(job: Job, night: date, records: Sequence[RunRecord], skip: Skip | None) -> None:
    table = job.delivery
    if table is None:
        return
    images_of = job.images_of(night)
    root, listing = display_location(images_of), open_listing(images_of, job)
    delivered = [ref for ref in listing.images() if ref.error is None] if listing.first() else []
    refs = [ref for ref in delivered if not (skip and skip(ref))]
    good = [record for record in records if record.good and record.date < night]
    start = reference_start(records, night)
    _check_number(table, root, len(refs), night, [record for record in good if record.date >= start])
    if table.expected:
        _check_expected(root, delivered, refs, expand(table.expected, night))
    if table.max_ignored:
        ignored = {kind: count for kind, count in listing.ignored.counts.items() if kind not in _NOT_IGNORED}
        if sum(ignored.values()) > amount_of(table.max_ignored, len(refs)):
            kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(ignored.items()))
            number = counted(sum(ignored.values()), "file")
            raise WrongDeliveryError(f"{root}: {number} ignored ({kinds}), more than max_ignored {table.max_ignored}")
    if table.max_duplicates:
        scored = [record for record in records if record.date < night and any(run.counts for run in record.models)]
        _check_duplicates(job, table, root, _hash_images(refs), scored)


def usual_number(night: date, good: Iterable[RunRecord]) -> float | None:
    """Median number of images of recent good nights, of the same weekday if there are enough; None with too few."""
    numbers = {
        record.date: max(model.counts.listed for model in record.models if model.counts)
        for record in good
        if any(model.counts for model in record.models)
    }
    newest = sorted(numbers, reverse=True)
    same = [day for day in newest[:USUAL_WEEKDAYS] if day.weekday() == night.weekday()]
    days = same if len(same) >= MIN_WEEKDAYS else newest[:USUAL_NIGHTS]
    return median(numbers[day] for day in days) if len(numbers) >= MIN_NIGHTS else None


def read_expected(path: Path) -> dict[str, ExpectedImage]:
    """Read a CSV file with the column `image`, and maybe `size` (bytes) and `sha256`. Returns them by image name.

    Raises IncompleteDeliveryError if the file does not exist, UsageError if it is invalid.
    """
    if not path.exists():
        raise IncompleteDeliveryError(f"{path}: the list of expected images does not exist")
    columns = read_columns(path, ("image",), "a list of expected images", optional=("size", "sha256"))
    found: dict[str, ExpectedImage] = {}
    for number, (image, size, sha256) in enumerate(zip(*columns, strict=True), 2):
        expected = _expected(f"{path}: row {number}", size.strip(), sha256.strip().lower())
        if not image:
            raise UsageError(f"{path}: row {number}: has no image")
        if found.setdefault(image, expected) != expected:
            raise UsageError(f"{path}: row {number}: {image} has other values than before")
    return found


def _expected(where: str, size: str, sha256: str) -> ExpectedImage:
    if size and not (size.isdecimal() and len(size) <= _MAX_SIZE_DIGITS):
        raise UsageError(f"{where}: size {size!r} is not a number of bytes")
    if sha256 and not re.fullmatch("[0-9a-f]{64}", sha256):
        raise UsageError(f"{where}: sha256 {sha256!r} is not 64 hexadecimal digits")
    return ExpectedImage(int(size) if size else None, sha256 or None)


def _check_number(table: DeliveryTable, root: str, number: int, night: date, good: Sequence[RunRecord]) -> None:
    found = f"{root}: {images(number)}"
    if table.min_images is not None and number < table.min_images:
        raise IncompleteDeliveryError(f"{found}, fewer than min_images {table.min_images}")
    if table.max_images is not None and number > table.max_images:
        raise WrongDeliveryError(f"{found}, more than max_images {table.max_images}")
    usual = usual_number(night, good)
    if usual is None:
        return
    if table.min_of_usual and number < amount_of(table.min_of_usual, usual):
        limit = f"min_of_usual {table.min_of_usual} of {usual:g}"
        raise IncompleteDeliveryError(f"{found}, fewer than {limit}")
    if table.max_of_usual and number > amount_of(table.max_of_usual, usual):
        raise WrongDeliveryError(f"{found}, more than max_of_usual {table.max_of_usual} of {usual:g}")


def _check_expected(root: str, delivered: Sequence[ImageRef], new: Sequence[ImageRef], path: Path) -> None:
    """path: the list of expected images."""
    expected, by_name = read_expected(path), {ref.name: ref for ref in delivered}
    problems = []
    if missing := [name for name in expected if name not in by_name]:
        problems.append(f"lacks {len(missing)} of {images(len(expected))} of the list {path} ({first_few(missing)})")
    differences = {name: _difference(by_name[name], image) for name, image in expected.items() if name in by_name}
    if different := [f"{name} {difference}" for name, difference in differences.items() if difference]:
        problems.append(f"not as in the list {path}: {first_few(different)}")
    incomplete = bool(problems)
    if unexpected := [ref.name for ref in new if ref.name not in expected]:
        problems.append(f"{images(len(unexpected))} not in the list {path} ({first_few(unexpected)})")
    if problems:
        error = IncompleteDeliveryError if incomplete else WrongDeliveryError
        raise error(f"{root}: {'; '.join(problems)}")


def _difference(ref: ImageRef, expected: ExpectedImage) -> str | None:
    if expected == (None, None):
        return None
    try:
        file = read_image(ref)
    except ImageError as error:
        return str(error)
    if expected.size is not None and file.size != expected.size:
        return f"has {file.size} bytes, not {expected.size}"
    if expected.sha256 is not None and content_hash(file.data) != expected.sha256:
        return "has another sha256"
    return None


def _hash_images(refs: Sequence[ImageRef]) -> dict[str, str]:
    """Hashes of the contents, by image name. Unreadable images have none."""
    with ThreadPoolExecutor(usable_cores()) as pool:
        hashed = zip(refs, pool.map(_hash, refs), strict=True)
        return {ref.name: digest for ref, digest in hashed if digest is not None}


def _hash(ref: ImageRef) -> str | None:
    try:
        return content_hash(read_image(ref).data)
    except ImageError:
        return None


def _check_duplicates(
    job: Job, table: DeliveryTable, root: str, hashes: dict[str, str], scored: Sequence[RunRecord]
) -> None:
    assert table.max_duplicates is not None
    seen: dict[str, str] = {}
    copies: dict[str, str] = {}
    for night, earlier in _earlier_contents(job, scored):
        for name, digest in hashes.items():
            if digest in earlier:
                copies.setdefault(name, f"the night {night}")
    for name, digest in hashes.items():
        if name not in copies and digest in seen:
            copies[name] = "this delivery"
        seen.setdefault(digest, name)
    if len(copies) > amount_of(table.max_duplicates, len(hashes)):
        origins = ", ".join(f"{count} of {origin}" for origin, count in Counter(copies.values()).most_common(3))
        raise WrongDeliveryError(
            f"{root}: {len(copies)} of {images(len(hashes))} are copies ({origins}; {first_few(list(copies))}), "
            f"more than max_duplicates {table.max_duplicates}"
        )


def _earlier_contents(job: Job, scored: Sequence[RunRecord]) -> Iterator[tuple[date, set[str]]]:
    """Hashes of the images of those nights that still have predictions, also by models that are gone."""
    for record in sorted(scored, key=lambda record: record.date, reverse=True)[:COPIED_NIGHTS]:
        now = [job.partition(model, record.date) for model in job.model_names]
        for partition in (*now, *(run.partition for run in record.models)):
            stored = StoredPredictions(partition)
            if stored.is_complete() and all("sha256" in stored.schema(part).names for part in stored.parts()):
                rows = stored.rows(["sha256"])
                yield record.date, {digest for batch in rows for digest in batch["sha256"].to_pylist() if digest}
                break
