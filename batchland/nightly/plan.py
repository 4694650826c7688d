"""What a job would do for one night, found out without doing any of it."""

from collections.abc import Iterator
from datetime import date

from batchland.errors import MissingInputError
from batchland.lock import holder
from batchland.nightly.assessment import baseline_night
from batchland.nightly.delivery import check_delivery, chosen_images
from batchland.nightly.job import LAST_GOOD, EvaluationTable, Job, expand
from batchland.nightly.partitions import KnownImages, is_begun, read_manifest, siblings
from batchland.nightly.retention import find_expired
from batchland.nightly.run_record import LOCK_FILE, RUN_FILE, RunRecord, read_runs


def plan_night(job: Job, night: date, *, force: bool = False) -> Iterator[str]:
    """A line for each thing that a run would do, in order. Raises UsageError."""
    records = read_runs(job.folder)
    yield f"job {job.name} of {job.file}, night {night}"
    if (running := holder(job.folder / LOCK_FILE)) is not None:
        yield f"turned away: process {running.get('pid')} runs the job since {running.get('since')}"
    for expired in find_expired(job, night, records):
        yield f"delete {expired.folder}: {len(expired.files)} files, {expired.bytes} bytes"
    for model, file in job.all_models.items():
        there = "" if file.exists() else ", which does not exist"
        yield f"model {model}: {file}{there}"
        yield f"  {_plan_partition(job, model, night, force=force)}"
        if job.evaluation:
            yield f"  {_plan_evaluation(job, job.evaluation, model, night, records)}"
    if job.evaluation:
        yield from (f"gate: fail if {gate}" for gate in job.evaluation.gates)
    if job.max_failed is not None:
        yield f"fail if more than {job.max_failed} images do"
    yield f"record {job.folder / str(night) / RUN_FILE}"
    if job.metrics:
        yield f"metrics {job.metrics}"
    if job.heartbeat:
        yield "ping the heartbeat"
    if job.notify:
        yield f"on {job.notify.on}, run {' '.join(job.notify.command)}"


def _plan_partition(job: Job, model: str, night: date, *, force: bool) -> str:
    partition, root = job.partition(model, night), job.images_of(night)
    manifest = read_manifest(partition)
    if manifest is not None and not force:
        return f"keep {partition}: complete since {manifest.created_at}, {manifest.counts.listed} images"
    try:
        check_delivery(job, root)
    except MissingInputError as error:
        return f"{job.on_missing}: {error}"
    images = list(chosen_images(job, root))
    what = f"{len(images)} images of {root}"
    if job.mode == "new":
        known = KnownImages(siblings(partition), root)
        what = f"{sum(ref not in known for ref in images)} new of {what}"
    if manifest is not None:
        return f"replace {partition}: {what}"
    return f"{'go on with' if is_begun(partition) else 'score'} {partition}: {what}"


def _plan_evaluation(job: Job, table: EvaluationTable, model: str, night: date, records: list[RunRecord]) -> str:
    labels = expand(table.labels, night)
    if not labels.exists():
        return f"{table.on_missing}: no labels at {labels}"
    baseline = str(table.baseline)
    if baseline == LAST_GOOD:
        good = baseline_night(job, model, night, records)
        baseline = f"the night of {good[0]}" if good else "no earlier good night"
    return f"evaluate against {labels}, compared with {baseline}; report {job.report(model, night)}"
