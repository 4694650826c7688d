"""Dry run: list the steps of a job for one night, and the errors that they would cause."""

import json
from collections.abc import Callable, Iterator
from datetime import date, datetime
from pathlib import Path
from typing import NamedTuple

from batchland.data.corrections import read_corrections
from batchland.errors import BatchlandError, MissingInputError, ModelError, UsageError, WrongDeliveryError
from batchland.evaluation.label_files import read_labels
from batchland.evaluation.saved import read_report
from batchland.evaluation.slices import check_columns
from batchland.models.canaries import canaries_path, own_canaries
from batchland.monitoring.estimate import estimator_path, read_estimator
from batchland.nightly.contract import check_contract
from batchland.nightly.dates import check_date, local_today
from batchland.nightly.delivery import delivered_images
from batchland.nightly.evaluate_night import baseline_night
from batchland.nightly.job import Job
from batchland.nightly.job_fields import expand
from batchland.nightly.job_tables import LAST_GOOD, EvaluationTable
from batchland.nightly.judge_night import read_photos, repeats_hint
from batchland.nightly.known_images import KnownImages, changes_of_delivery
from batchland.nightly.notifications.channels import channel_names
from batchland.nightly.partitions import check_owner, differences, has_unfinished_parts, model_name, other_partitions
from batchland.nightly.record_files import LOCK_FILE, RUN_FILE, read_runs
from batchland.nightly.retention import find_expired
from batchland.nightly.run_record import RunRecord
from batchland.nightly.time_budget import next_time
from batchland.predictions.schema import Manifest
from batchland.predictions.storage import display_location
from batchland.scoring.listing import ALREADY_SCORED, ImageListing
from batchland.system.lock import holder
from batchland.system.text import files, images


class NightPlan(NamedTuple):
    """The steps of a run, and the errors that would end it."""

    lines: tuple[str, ...]
    """Text to show, one line per step, in order."""
    problems: tuple[BatchlandError, ...]
    """The errors that would end the run, as far as they can be found. Each has a line with `fail:`."""


class _Step(NamedTuple):
    text: str
    problem: BatchlandError | None = None

    @classmethod
    def fail(cls, error: BatchlandError) -> "_Step":
        return cls(f"  fail: {error}", error)


def plan_night(
    job: Job,
    night: date,
    *,
    force: bool = False,
    future: bool = False,
    today: date | None = None,
    open_models: bool = False,
    advise: Callable[[BatchlandError], str] = str,
) -> NightPlan:
    """Check everything that a run would need.

    open_models: open the models, too, on the CPU. advise: see `run_night`.
    """
    today = today or local_today()
    steps = list(_steps(job, night, today, force=force, open_models=open_models))
    first = {step.text: index for index, step in reversed(list(enumerate(steps)))}
    # Each problem once, also if several models have it.
    steps = [step for index, step in enumerate(steps) if not step.problem or first[step.text] == index]
    if not future:
        try:
            check_date(night, today)
        except UsageError as error:
            steps.insert(1, _Step.fail(error))
    texts = (f"  fail: {advise(step.problem)}" if step.problem else step.text for step in steps)
    lines = tuple(map(job.placeholders.hide, texts))
    return NightPlan(lines, tuple(step.problem for step in steps if step.problem))


def _steps(job: Job, night: date, today: date, *, force: bool, open_models: bool) -> Iterator[_Step]:
    records = read_runs(job.folder)
    yield _Step(f"job {job.name} of {job.file}, night {night}")
    if (running := holder(job.folder / LOCK_FILE)) is not None:
        yield _Step(f"locked: process {running.get('pid')} runs the job since {running.get('since')}")
    for model in job.model_names:
        try:
            file = job.model_file(model)
        except ModelError as error:
            yield _Step.fail(error)
            continue
        yield from _steps_of_model(job, model, file, night, records, force=force, open_model=open_models)
    if job.evaluation:
        yield from (_Step(f"gate: fail if {gate}") for gate in job.evaluation.gates)
    yield from _rules(job)
    if job.monitor.action != "off" and (hint := repeats_hint(job, night)):
        yield _Step(f"note: {hint}")
    if job.finish_by:
        end = next_time(job.finish_by, datetime.now().astimezone())
        yield _Step(f"stop at {end:%Y-%m-%d %H:%M}, if it is not finished")
    if job.max_failed is not None:
        yield _Step(f"fail if more than {job.max_failed} of the images fail")
    for expired in find_expired(job, night, records, today):
        size = f"{files(len(expired.files))}, {expired.bytes} bytes"
        yield _Step(f"if all this is good, delete {display_location(expired.folder)}: {size}")
    yield _Step(f"record {job.folder / str(night) / RUN_FILE}")
    if job.metrics:
        yield _Step(f"metrics {job.metrics}")
    if job.heartbeat:
        yield _Step("ping the heartbeat")
    if job.notify:
        yield _Step(f"on {job.notify.on}, {', '.join(channel_names(job.notify))}")


def _rules(job: Job) -> Iterator[_Step]:
    """The settings of the job in the tables that judge a night or delete old ones."""
    for name in ("delivery", "monitor", "retention"):
        table = getattr(job, name)
        given = table.model_dump(mode="json", include=table.model_fields_set) if table else {}
        if given:
            yield _Step(f"[{name}] " + ", ".join(f"{key} = {json.dumps(value)}" for key, value in given.items()))


def _steps_of_model(
    job: Job, model: str, file: Path, night: date, records: list[RunRecord], *, force: bool, open_model: bool
) -> Iterator[_Step]:
    version = job.model_version(model)
    name = f"{version.reference}, version {version.version}: {file}" if version else str(file)
    yield _Step(f"model {model}: {name}{'' if file.exists() else ', which does not exist'}")
    if open_model and (error := _model_problem(job, file)):
        yield _Step.fail(error)
    yield from _estimate(job, file)
    try:
        manifest = check_owner(job, model, night, force=force)
    except UsageError as error:
        yield _Step.fail(error)
    else:
        if manifest is not None and not force:
            yield from _keep(job, model, file, night, manifest, records)
            model = model_name(job, model, manifest)
        else:
            yield _score(job, model, night, records, replace=manifest is not None)
    if job.evaluation:
        yield _evaluate(job, job.evaluation, model, night, records)


def _estimate(job: Job, file: Path) -> Iterator[_Step]:
    """Warnings: the night cannot be compared with labelled photos, or its estimated accuracy cannot be checked."""
    limit, path = job.monitor.min_accuracy, estimator_path(file)
    if job.monitor.action == "off":
        if limit:
            yield _Step(f'  warning: min_accuracy {limit} is not checked: monitor.action is "off"')
        return
    try:
        if isinstance(job.monitor.reference, Path):
            read_photos(job.monitor.reference)
        if read_estimator(file) is None and limit:
            yield _Step(f"  warning: min_accuracy {limit} is not checked: there is no estimator {path}")
    except UsageError as error:
        yield _Step.fail(error)


def _model_problem(job: Job, file: Path) -> ModelError | None:
    from batchland.models.session import open_session

    try:
        session = open_session(file, "cpu")
        if job.checks_canaries:
            own_canaries(file, session.sha256)
    except ModelError as error:
        return error
    return None


def _keep(
    job: Job, model: str, file: Path, night: date, manifest: Manifest, records: list[RunRecord]
) -> Iterator[_Step]:
    listed, name = images(manifest.counts.listed), display_location(job.partition(model, night))
    yield _Step(f"  keep {name}: complete since {manifest.created_at}, {listed}")
    others = list(differences(job, file, manifest))
    for difference in others:
        yield _Step(f"  though {difference}; a run with force scores it again")
    changes = changes_of_delivery(job, job.partition(model, night), night)
    if changes.late and job.delivery and job.delivery.late == "score" and not others:
        listing = _delivered(job, model, night, records)
        yield listing if isinstance(listing, _Step) else _Step(f"  add {images(len(changes.late))} that came late")
        changes = changes._replace(late=[])
    if text := changes.describe():
        yield _Step(f"  though {text}")


def _score(job: Job, model: str, night: date, records: list[RunRecord], *, replace: bool) -> _Step:
    partition, root = job.partition(model, night), job.images_of(night)
    listing = _delivered(job, model, night, records)
    if isinstance(listing, _Step):
        return listing
    count = sum(1 for _ in listing.images()) if listing.first() else 0
    what = f"{images(count + listing.ignored.counts[ALREADY_SCORED])} of {display_location(root)}"
    if job.mode == "new":
        what = f"{count} new of {what}"
    canaries = job.checks_canaries and canaries_path(job.model_file(model)).exists()
    verb = "replace" if replace else "resume" if has_unfinished_parts(partition) else "score"
    return _Step(f"  {verb} {display_location(partition)}: {what}{', after the canaries' if canaries else ''}")


def _delivered(job: Job, model: str, night: date, records: list[RunRecord]) -> ImageListing | _Step:
    """The images to score, or the step of a delivery that is missing or wrong."""
    root = job.images_of(night)
    known = KnownImages(other_partitions(job.partition(model, night)), root).__contains__ if job.mode == "new" else None
    try:
        listing = delivered_images(job, root, known)
        check_contract(job, night, records, known)
    except (MissingInputError, WrongDeliveryError, UsageError) as error:
        return _Step(f"  skip: {error}") if job.skips_night(error) else _Step.fail(error)
    return listing


def _evaluate(job: Job, table: EvaluationTable, model: str, night: date, records: list[RunRecord]) -> _Step:
    labels = expand(table.labels, night)
    if not labels.exists():
        missing = UsageError(f"{labels}: no labels there; deliver them, or correct {job.file}")
        return _Step(f"  skip: {missing}") if table.on_missing == "skip" else _Step.fail(missing)
    baseline = str(table.baseline)
    try:
        check_columns(read_labels(labels, str(job.images_of(night))).own.names, table.by)
        if table.corrections:
            read_corrections(table.corrections)
        if baseline != LAST_GOOD:
            read_report(table.baseline)
    except UsageError as error:
        return _Step.fail(error)
    if baseline == LAST_GOOD:
        good = baseline_night(job, model, night, records)
        baseline = f"the night of {good[0]}" if good else "no earlier good night"
    return _Step(f"  evaluate against {labels}, compared with {baseline}; report {job.report(model, night)}")
