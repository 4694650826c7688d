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
import pyarrow.parquet as pq
from pydantic import ValidationError

from batchland.errors import UsageError
from batchland.nightly.job import Job
from batchland.nightly.run_record import CONFIDENCE_BINS, PredictionMix
from batchland.predictions.layout import manifest_path
from batchland.predictions.schema import METADATA_KEY, Manifest, PredictionsInfo
from batchland.scoring.manifest import ROW_OPTIONS
from batchland.system.names import display_path


def read_manifest(partition: Path) -> Manifest | None:
    """The manifest of a complete partition; None if there is none. Raises UsageError if it cannot be read."""
    path = manifest_path(partition)
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise UsageError(f"{path}: is no manifest that this batchland reads; move {partition} away") from error


def check_owner(job: Job, model: str, night: date, *, force: bool = False) -> Manifest | None:
    """Check that a night's partition belongs to this job, and return its manifest; None if it is not complete.

    A partition that `batchland score` wrote has no job and is accepted. Raises UsageError if the partition lies inside
    the images to score or, without `force`, if it holds the predictions of another job or of other images.
    """
    partition, root = job.partition(model, night), job.images_of(night)
    if partition.resolve().is_relative_to(root.resolve()):
        raise UsageError(f'{partition}: lies inside the images to score; give job {job.name} another "output"')
    manifest = read_manifest(partition)
    if manifest is None or force:
        return manifest
    owner, images = manifest.config.get("job"), display_path(root.resolve())
    if owner not in (None, job.name):
        held = f"of job {owner}"
    elif manifest.images != images:
        held = f"of {manifest.images}, not of {images}"
    else:
        return manifest
    advice = f'give job {job.name} another "output", or replace them by a forced run'
    raise UsageError(f"{partition}: holds the predictions {held}; {advice}")


def model_name(job: Job, model: str, manifest: Manifest) -> str:
    """The name of the model that made a partition. A job's only model is named after its file, which may change."""
    return model if job.models else Path(manifest.model.file).stem


def differences(job: Job, file: Path, manifest: Manifest) -> Iterator[str]:
    """What the job would do differently now: another model file, other options that decide about rows."""
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


def has_unfinished_parts(partition: Path) -> bool:
    """Whether an interrupted run has left parts that the next run resumes from."""
    return any((partition.parent / f".{partition.name}.parts").glob("part-*.parquet"))


def other_partitions(partition: Path) -> list[Path]:
    """The complete partitions of the same output, in the order of their dates."""
    return sorted(path.parent for path in partition.parent.glob("date=*/_manifest.json") if path.parent != partition)


def open_part(path: Path) -> tuple[pq.ParquetFile, PredictionsInfo]:
    """A predictions file and its metadata. Close the file. Raises UsageError if it cannot be read."""
    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        reason = str(error).partition("\n")[0]
        message = f"{path}: cannot be read as Parquet ({reason}); restore it, or score again by a forced run"
        raise UsageError(message) from error
    try:
        return file, PredictionsInfo.model_validate_json((file.schema_arrow.metadata or {})[METADATA_KEY])
    except (KeyError, ValidationError) as error:
        file.close()
        raise UsageError(f"{path}: is no predictions file of this batchland; move it out of the partition") from error


def prediction_mix(partition: Path) -> PredictionMix:
    """Count the predicted classes and their probabilities."""
    histogram = np.zeros(CONFIDENCE_BINS, np.int64)
    total = 0.0
    classes: dict[str, int] = {}
    for path in sorted(partition.glob("*.parquet")):
        file, info = open_part(path)
        with file:
            classes = classes or {name.label: 0 for name in info.classes}
            table = file.read(columns=["label", "probability"]).drop_null()
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
