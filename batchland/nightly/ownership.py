"""Whose a complete partition is, and how it was made: what its manifest says, held against a job. Decides nothing."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from datetime import date
from pathlib import Path

from batchland.errors import UsageError
from batchland.nightly.job import Job
from batchland.predictions.reader import read_manifest
from batchland.predictions.schema import Manifest
from batchland.scoring.manifest import ROW_OPTIONS
from batchland.system.names import display_path


def held_partition(job: Job, model: str, night: date, *, force: bool = False) -> Manifest | None:
    """The manifest of the night's partition; None if it is not complete.

    Raises UsageError if no run of this job for this night may write it, or, without `force`, if what it holds is of
    another job or of other images. One that `batchland score` wrote is nobody's and serves the job as well.
    """
    partition, root = job.partition(model, night), job.images_of(night)
    if partition.resolve().is_relative_to(root.resolve()):
        raise UsageError(f'{partition}: lies inside the images to score; give job {job.name} another "output"')
    manifest = read_manifest(partition)
    if manifest is None or force:
        return manifest
    way_out = f'give job {job.name} another "output", or replace it with --force'
    owner, images = manifest.config.get("job"), display_path(root.resolve())
    if owner not in (None, job.name):
        raise UsageError(f"{partition}: holds the predictions of job {owner}; {way_out}")
    if manifest.images != images:
        raise UsageError(f"{partition}: holds the predictions of {manifest.images}, not of {images}; {way_out}")
    return manifest


def scored_by(job: Job, model: str, manifest: Manifest) -> str:
    """What the model that made a partition is called: as its file, where the job has but one. That may change."""
    return model if job.models else Path(manifest.model.file).stem


def differences(job: Job, file: Path, manifest: Manifest) -> Iterator[str]:
    """How a partition was made otherwise than the job would make it now: with another model, or other options."""
    with suppress(OSError), file.open("rb") as content:
        if hashlib.file_digest(content, "sha256").hexdigest() != manifest.model.sha256:
            yield f"{file} is another model than the one that scored it"
    options = job.model_dump(mode="json", include=set(ROW_OPTIONS))
    then = {name: manifest.config.get(name, options[name]) for name in ROW_OPTIONS}
    changed = [name for name in ROW_OPTIONS if then[name] != options[name]]
    if changed:
        told = ", ".join(f"{name} = {json.dumps(then[name])} (now {json.dumps(options[name])})" for name in changed)
        yield f"it was scored with {told}"
