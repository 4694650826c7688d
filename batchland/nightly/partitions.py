"""The partitions of a job's output, `output/date=2026-11-23/`: owner, options, and counts of the predictions.

Everything is read from the partitions' own files; there is no other state.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchland.errors import UsageError
from batchland.images.sources.open import open_source
from batchland.nightly.job import Job
from batchland.nightly.run_record import CONFIDENCE_BINS, PredictionMix
from batchland.predictions.reader import StoredPredictions, read_manifest
from batchland.predictions.schema import Manifest
from batchland.predictions.storage import Location, display_location, join_location, split_location
from batchland.scoring.manifest import ROW_OPTIONS
from batchland.system.names import display_path
from batchland.system.paths import resolved


def check_owner(job: Job, model: str, night: date, *, force: bool = False) -> Manifest | None:
    """Check that a night's partition belongs to this job, and return its manifest; None if it is not complete.

    A partition that `batchland score` wrote has no job and is accepted. Raises UsageError if the partition lies inside
    the images to score, or if it lost its manifest; without `force`, also if it lost a part, or if it holds the
    predictions of another job or of other images.
    """
    partition = job.partition(model, night)
    name, images = display_location(partition), open_source(job.images_of(night)).name
    path = display_path(resolved(partition)) if isinstance(partition, Path) else name
    if f"{path}/".startswith(f"{images.rstrip('/')}/"):
        raise UsageError(f'{name}: lies inside the images to score; give job {job.name} another "output"')
    manifest = read_manifest(partition)
    if manifest is None and _has_other_files(partition):
        raise UsageError(f"{name}: holds files but no _manifest.json; delete this folder, then run the night again")
    if manifest is None or force:
        return manifest
    for file in manifest.files if isinstance(partition, Path) else ():
        if not Path(partition, file.path).exists():
            raise _replaceable(f"{name}: lost {file.path}; restore it, or replace the night", job, night)
    owner = manifest.config.get("job")
    if owner not in (None, job.name):
        held = f"of job {owner}"
    elif manifest.images != images:
        held = f"of {manifest.images}, not of {images}"
    else:
        return manifest
    message = f'{name}: holds the predictions {held}; give job {job.name} another "output", or replace the night'
    raise _replaceable(message, job, night)


def _replaceable(message: str, job: Job, night: date) -> UsageError:
    return UsageError(message, advice="force", job_file=job.file, night=night)


def _has_other_files(partition: Location) -> bool:
    """Whether a partition without a manifest has files. At a URL, an unfinished run writes them before the manifest."""
    if isinstance(partition, Path):
        return partition.is_dir() and any(partition.iterdir())
    stored = StoredPredictions(partition)
    return stored.kind == "folder" and bool(stored.parts()) and not has_unfinished_parts(partition)


def model_name(job: Job, model: str, manifest: Manifest) -> str:
    """The name of the model that made a partition. The only model of a job is named after its file, which may
    change."""
    return model if job.models else Path(manifest.model.file).stem


def differences(job: Job, file: Path, manifest: Manifest) -> Iterator[str]:
    """Differences between the partition and the job now: another model file, or other options that affect the rows."""
    with suppress(OSError), file.open("rb") as content:
        if hashlib.file_digest(content, "sha256").hexdigest() != manifest.model.sha256:
            yield f"{file} is another model than the one that scored it"
    options = job.model_dump(mode="json", include=set(ROW_OPTIONS))
    then = {name: manifest.config.get(name, options[name]) for name in ROW_OPTIONS}
    changes = [
        f"{name} = {json.dumps(then[name])} (now {json.dumps(options[name])})"
        for name in ROW_OPTIONS
        if then[name] != options[name]
    ]
    if changes:
        yield f"it was scored with {', '.join(changes)}"


def has_unfinished_parts(partition: Location) -> bool:
    """Whether an interrupted run has left parts that the next run resumes from."""
    output, name = split_location(partition)
    parts = StoredPredictions(join_location(output, f".{name}.parts"))
    return parts.kind == "folder" and bool(parts.parts())


def other_partitions(partition: Location) -> list[Location]:
    """The complete partitions of the same output, in the order of their dates."""
    output, own = split_location(partition)
    stored = StoredPredictions(output)
    names = stored.folders() if stored.kind == "folder" else []
    others = [join_location(output, name) for name in names if name.startswith("date=") and name != own]
    return [other for other in others if StoredPredictions(other).is_complete()]


def prediction_mix(partition: Location) -> PredictionMix:
    """Count the predicted classes and their probabilities."""
    stored = StoredPredictions(partition)
    histogram = np.zeros(CONFIDENCE_BINS, np.int64)
    total = 0.0
    classes = {name.label: 0 for name in stored.info().classes}
    for table in stored.rows(["label", "probability"]):
        table = table.drop_null()
        for answer in table["label"].value_counts().to_pylist():
            classes[answer["values"]] += answer["counts"]
        probability = table["probability"].cast(pa.float64())
        bins = np.ceil(probability.to_numpy() * CONFIDENCE_BINS).astype(np.int64) - 1
        histogram += np.bincount(np.clip(bins, 0, CONFIDENCE_BINS - 1), minlength=CONFIDENCE_BINS)
        total += float(pc.sum(probability).as_py() or 0.0)
    images = int(histogram.sum())
    return PredictionMix(
        classes=classes,
        confidence_histogram=tuple(histogram.tolist()),
        mean_confidence=total / images if images else None,
    )
