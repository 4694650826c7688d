"""The steps of a job for one night: score, judge, evaluate, check the limits, delete old nights."""

import logging
import os.path
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import islice
from typing import Literal, NamedTuple

from batchland.errors import (
    BatchlandError,
    GateFailedError,
    ModelError,
    SuspiciousNightError,
    TimeLimitError,
)
from batchland.models.canaries import canaries_path
from batchland.monitoring.canaries import check_canaries
from batchland.monitoring.schema import CanaryCheck
from batchland.nightly.contract import check_contract
from batchland.nightly.delivery import delivered_images
from batchland.nightly.evaluate_night import compare_models, evaluate_night
from batchland.nightly.good_nights import last_canaries
from batchland.nightly.job_tables import EvaluationTable
from batchland.nightly.judge_night import broken_limits, explain, judge_night, replaces_images, unchecked_limits
from batchland.nightly.known_images import KnownImages, changes_of_delivery
from batchland.nightly.notifications.send import report_late
from batchland.nightly.partitions import check_owner, differences, model_name, other_partitions, prediction_mix
from batchland.nightly.record_files import read_runs
from batchland.nightly.recorder import Recorder
from batchland.nightly.retention import delete, find_expired
from batchland.nightly.run_record import EndEstimate, ModelRun, ModelState, RunRecord
from batchland.nightly.run_text import describe_model
from batchland.nightly.time_budget import EndEstimator, TimeBudget, rest_of_night
from batchland.predictions.schema import Manifest
from batchland.predictions.storage import Location, display_location, remove_leftovers
from batchland.scoring.account import Progress
from batchland.scoring.engines.local import LocalEngine
from batchland.scoring.listing import ALREADY_SCORED, ImageListing, Skip
from batchland.scoring.options import FailureLimit, ScoreOptions, ScoreSettings, check_failures
from batchland.scoring.progress import ScoreProgress
from batchland.scoring.score import score
from batchland.system.text import counted, first_few, images

_log = logging.getLogger("batchland")


WorkState = Literal["scored", "replaced", "extended"]


class _Work(NamedTuple):
    """What a model has to score."""

    listing: ImageListing
    state: WorkState
    """Of the model's run afterwards."""


class _Checked(NamedTuple):
    """The open engine of a model, and the result of its canaries; None if they are not checked."""

    engine: LocalEngine
    canaries: CanaryCheck | None


class Steps:
    """All steps of a job for one night, by the process that holds the job's lock. They fill in the record.

    quiet: no notification. estimate_after: see `run_night`.
    """

    def __init__(self, recorder: Recorder, *, force: bool, quiet: bool, estimate_after: float) -> None:
        self.recorder = recorder
        self.job = recorder.job
        self.night = recorder.night
        self.time = TimeBudget(self.job)
        self._force = force
        self._quiet = quiet
        self._begin = time.monotonic()
        self._estimate_after = estimate_after
        self._late = False

    def run(self) -> str | None:
        """Run them. Returns a message if there was nothing to do, else None."""
        records = read_runs(self.job.folder)
        refused = self._score_all(records)
        self._judge(records)
        with self._verdict_in_errors():
            if self.job.evaluation:
                self._evaluate(self.job.evaluation, records)
            if refused:
                raise refused[0]
            self._check_limits()
        if all(model.state == "nothing_new" for model in self.recorder.models.values()):
            return "every image was scored already"
        self._delete_expired(records)
        return None

    def _delete_expired(self, records: list[RunRecord]) -> None:
        """Delete old nights, after this one is complete and good."""
        for expired in find_expired(self.job, self.night, records, self.recorder.today):
            try:
                deletion = delete(expired, self.recorder.run_id)
            except OSError as error:
                folder = display_location(expired.folder)
                self.recorder.warn(f"retention: {folder} cannot be deleted ({error.strerror})")
                continue
            extra = {"data": deletion.model_dump(mode="json"), "in_summary": True}
            _log.info("retention: deleted %s", deletion.path, extra=extra)
            self.recorder.deleted.append(deletion)

    def _score_all(self, records: list[RunRecord]) -> list[ModelError]:
        """Keep or score every model's partition, and return the errors of models that cannot be used."""
        refused: list[ModelError] = []
        work: dict[str, _Work] = {}
        manifests = {name: check_owner(self.job, name, self.night, force=self._force) for name in self.job.model_names}
        delivered = False
        for name, manifest in manifests.items():
            late = 0
            state: WorkState = "replaced" if manifest else "scored"
            if manifest is not None and not self._force:
                with self._model_errors(name, refused):
                    late = self._keep(name, manifest)
                if not late:
                    continue
                state = "extended"
            skip = self._skip(name)
            listing = delivered_images(self.job, self.job.images_of(self.night), skip, settled=delivered)
            if not delivered:
                check_contract(self.job, self.night, records, skip)
                delivered = True
            if late:
                _log.info("%s: scoring %s that came late", name, images(late))
            if manifest is None:
                partition = display_location(self.job.partition(name, self.night))
                self.recorder.models[name] = ModelRun(name=name, partition=partition, state="unfinished")
                self.recorder.save()
            work[name] = _Work(listing, state)
        later = [
            record.date for record in records if record.date > self.night and any(run.counts for run in record.models)
        ]
        if work and later and replaces_images(self.job, self.night):
            folder = display_location(self.job.images_of(self.night))
            self.recorder.warn(
                f"{folder}: is the folder of all nights, and may hold the images of a later one, {later[-1]}"
            )
        self._score_models(work, refused, records)
        return refused

    def _score_models(self, work: dict[str, _Work], refused: list[ModelError], records: list[RunRecord]) -> None:
        """Open all models and check their canaries before the first image is scored, and score in the same sessions."""
        checked: dict[str, _Checked | None] = {}
        try:
            for name, (listing, _) in work.items():
                with self._model_errors(name, refused):
                    if listing.first() is None:
                        _log.info("%s: every image was scored already", name)
                        partition = display_location(self.job.partition(name, self.night))
                        self.recorder.add(name, ModelRun(name=name, partition=partition, state="nothing_new"))
                        continue
                    self.time.check()
                    checked[name] = self._open_model(name, records)
            for name in list(checked):
                with self._model_errors(name, refused):
                    self.recorder.add(name, self._score(name, work[name], checked.pop(name)))
        finally:
            checked.clear()  # an error that is kept until the next attempt keeps this frame

    @contextmanager
    def _model_errors(self, name: str, refused: list[ModelError]) -> Iterator[None]:
        """Collect the error of a model, so that the other models still run, and save the record."""
        try:
            yield
        except ModelError as error:
            if len(self.job.model_names) > 1:  # the night's error is the first one
                _log.error("%s: %s", name, error)
            refused.append(error)
        self.recorder.save()

    def _keep(self, name: str, manifest: Manifest) -> int:
        """Keep a complete partition. Returns the number of late images that must be scored.

        It is 0 unless the job has `late = "score"`, and model and options are the same.
        """
        partition = self.job.partition(name, self.night)
        earlier = self.recorder.models.get(name)
        same = earlier if earlier and earlier.run_id == manifest.run_id else None
        model = same.name if same else model_name(self.job, name, manifest)
        _log.info("%s: complete since %s, kept: %s", model, manifest.created_at, display_location(partition))
        remedy = "a run with force scores it again"
        try:
            changes = list(differences(self.job, self.job.model_file(name), manifest))
        except ModelError as error:  # of the registry
            changes, remedy = [str(error)], "correct that before a run with force"
        for difference in changes:
            _log.warning("%s: %s; %s", model, difference, remedy)
        try:
            remove_leftovers(partition)
        except BatchlandError as error:
            _log.warning("%s: leftovers of a killed run cannot be removed (%s)", model, error)
        delivered = changes_of_delivery(self.job, partition, self.night)
        add = delivered.late and self.job.delivery and self.job.delivery.late == "score" and not changes
        if text := (delivered._replace(late=[]) if add else delivered).describe():
            self.recorder.warn(f"{model}: {text}")
        if add:
            return len(delivered.late)
        run = _model_run(model, partition, "kept", manifest)
        if earlier:
            run = run.model_copy(update={"canaries": earlier.canaries})
        if same:
            run = run.model_copy(update={"version": same.version, "monitor": same.monitor})
        elif not changes:
            run = run.model_copy(update={"version": self.job.model_version(name)})
        self.recorder.add(name, run)
        return 0

    def _skip(self, name: str) -> Skip | None:
        """With mode "new": whether another partition of the model holds an image unchanged."""
        if self.job.mode == "all":
            return None
        partitions = other_partitions(self.job.partition(name, self.night))
        return KnownImages(partitions, self.job.images_of(self.night)).__contains__

    def _reuse(self, partition: Location) -> tuple[str, ...]:
        """The partitions that `[reuse]` names: the newest others."""
        if self.job.reuse is None:
            return ()
        newest = reversed(other_partitions(partition))
        return tuple(str(other) for other in islice(newest, self.job.reuse.nights))

    def _options(self, name: str) -> ScoreOptions:
        settings = self.job.model_dump(include=set(ScoreSettings.model_fields))
        return ScoreOptions(**settings, model=self.job.model_file(name), overwrite=self._force, job=self.job.name)

    def _score(self, name: str, work: _Work, checked: _Checked | None) -> ModelRun:
        listing, state = work
        engine, canaries = checked or (None, None)
        partition = self.job.partition(name, self.night)
        self.time.check()
        own = {"add_missing": state == "extended", "time_limit": self.time.left(), "reuse": self._reuse(partition)}
        options = self._options(name).model_copy(update=own)
        with ScoreProgress(listing) as progress, self._estimates(name, listing) as estimate:

            def on_progress(done: Progress) -> None:
                progress.update(done)
                estimate(done)

            try:
                summary = score(listing, partition, options, engine=engine, on_progress=on_progress)
            except TimeLimitError as error:
                raise self.time.over(str(error)) from error
        if summary.fallback:
            level = logging.INFO if self._last_device(name) == "cpu" else logging.WARNING
            _log.log(level, "%s: device auto: ran on the CPU, because %s", name, summary.fallback)
        resumed = state == "scored" and summary.manifest.resumed_images
        run = _model_run(name, partition, "resumed" if resumed else state, summary.manifest)
        run = run.model_copy(update={"canaries": canaries, "version": self.job.model_version(name)})
        extra = {"data": run.model_dump(mode="json", exclude={"mix", "evaluation"}), "in_summary": True}
        _log.info("%s", describe_model(run), extra=extra)
        return run

    @contextmanager
    def _estimates(self, name: str, listing: ImageListing) -> Iterator[Callable[[Progress], None]]:
        """A callback for progress that estimates the end of the night, if the job has `finish_by`."""
        if self.time.finish_by is None:
            yield lambda _: None
            return
        rest = rest_of_night(self.job, name, read_runs(self.job.folder))
        with EndEstimator(
            listing, rest, self._report_estimate, begin=self._begin, after=self._estimate_after
        ) as estimator:
            yield estimator.update

    def _report_estimate(self, estimate: EndEstimate) -> None:
        """Log and record the first estimate; warn and notify the first time that the night will be late."""
        finish_by, end = self.time.finish_by, datetime.fromisoformat(estimate.end)
        assert finish_by is not None
        if self.recorder.estimate is None:
            self.recorder.estimate = estimate
            _log.info("the night will end at about %s", f"{end:%H:%M}", extra={"data": estimate.model_dump()})
            self.recorder.save()
        if end > finish_by and not self._late:
            self._late = True
            self.recorder.warn(
                f"the night would end at about {end:%H:%M on %A}, so it will be stopped at {finish_by:%H:%M}: "
                f"{estimate.images_done} of {images(estimate.images)}, {estimate.images_per_second:g} images/s"
            )
            self.recorder.save()
            if self.job.notify and not self._quiet:
                report_late(self.recorder)

    def _open_model(self, name: str, records: list[RunRecord]) -> _Checked | None:
        """Open the model, and score its canaries if it has any and the job checks them. None on a cluster."""
        model = self.job.model_file(name)
        if self.job.engine != "local":
            return None
        engine = LocalEngine(model, self._options(name))
        if not (self.job.checks_canaries and os.path.lexists(canaries_path(model))):
            return _Checked(engine, None)
        last, scored = (None, 0) if self._force else last_canaries(records, self.night, name)
        check = check_canaries(engine, last, scored)
        canaries = counted(check.images, "canary agrees", "canaries agree")
        _log.info("%s: %s, largest difference %.1e", name, canaries, check.largest_difference)
        return _Checked(engine, check)

    def _judge(self, records: list[RunRecord]) -> None:
        """Judge each model's night without labels, unless that was done before for the same predictions."""
        models = self.recorder.models
        for name, model in models.items():
            if self.job.monitor.action == "off" or not model.counts or (model.state == "kept" and model.monitor):
                continue
            self.time.check()
            verdict = judge_night(self.job, name, model, self.night, records)
            models[name] = model.model_copy(update={"monitor": verdict})
            for note in verdict.notes:
                _log.info("%s: monitor: %s", name, note)
        self.recorder.save()

    @contextmanager
    def _verdict_in_errors(self) -> Iterator[None]:
        """Add what is suspicious to the message of another error, which alone would hide it."""
        try:
            yield
        except SuspiciousNightError:
            raise
        except BatchlandError as error:
            suspicious = explain(self.recorder.models.values())
            if suspicious and not self.recorder.accepted:
                error.args = (f"{error}; the night is suspicious, too: {suspicious}; {self._where_to_look()}",)
            raise

    def _last_device(self, name: str) -> str | None:
        """The device of the latest earlier night in which the model scored."""
        records = [record for record in read_runs(self.job.folder) if record.date != self.night]
        devices = [run.device for record in records for run in record.models if run.name == name and run.device]
        return devices[-1] if devices else None

    def _evaluate(self, table: EvaluationTable, records: list[RunRecord]) -> None:
        models = self.recorder.models
        for name, model in models.items():
            if model.counts:
                self.time.check()
                evaluation = evaluate_night(self.job, model.name, self.night, records)
                for label, count in evaluation.failed_classes.items() if evaluation else ():
                    self.recorder.warn(f"{name}: all {count} images of class {label!r} failed")
                models[name] = model.model_copy(update={"evaluation": evaluation})
        evaluated = [name for name in self.job.model_names if name in models and models[name].evaluation]
        if table.compare and len(evaluated) > 1:
            self.time.check()
            self.recorder.comparisons = compare_models(self.job, evaluated, self.night)

    def _check_limits(self) -> None:
        """Raise the error of failed images or of the first failed gate, after everything is written."""
        models = self.recorder.models
        for model in models.values():
            for text in unchecked_limits(self.job.monitor, model):
                self.recorder.warn(text)
        limit = FailureLimit.parse(self.job.max_failed) if self.job.max_failed else None
        for counts in (model.counts for model in models.values() if model.counts):
            check_failures(counts, limit)
        self._check_gates()
        if suspicious := explain(self.recorder.models.values()):
            if self.recorder.accepted:
                return
            if self.job.monitor.action == "fail":
                raise SuspiciousNightError(
                    f"{suspicious}; {self._where_to_look()}; accept the night, or correct the delivery and replace it",
                    advice="suspicious",
                    job=self.job.name,
                    night=self.night,
                    runs=self.job.folder.parent,
                    job_file=self.job.file,
                )
            self.recorder.warn(f"suspicious: {suspicious}")

    def _where_to_look(self) -> str:
        """Advice about a suspicious night. It names pictures, if any show what is suspicious."""
        verdicts = [model.monitor for model in self.recorder.models.values() if model.monitor]
        pictures = next((each.pictures for each in verdicts if each.verdict == "suspicious" and each.pictures), ())
        return f"look at {first_few(pictures)}" if pictures else "look at the delivery"

    def _check_gates(self) -> None:
        failed = [
            f"{model.name}: {problem}"
            for model in self.recorder.models.values()
            for problem in broken_limits(self.job.monitor, model)
        ]
        failed += [
            f"{model.name}: {gate.message}; see {model.evaluation.report}/report.html"
            for model in self.recorder.models.values()
            if model.evaluation
            for gate in model.evaluation.gates
            if gate.verdict == "failed"
        ]
        if failed:
            more = f" (and {counted(len(failed) - 1, 'more gate')})" if len(failed) > 1 else ""
            raise GateFailedError(f"{failed[0]}{more}")


def _model_run(name: str, partition: Location, state: ModelState, manifest: Manifest) -> ModelRun:
    return ModelRun(
        name=name,
        partition=display_location(partition),
        state=state,
        run_id=manifest.run_id,
        model=manifest.model,
        device=manifest.device,
        provider=manifest.provider,
        counts=manifest.counts,
        ignored={kind: number for kind, number in manifest.ignored.items() if kind != ALREADY_SCORED},
        already_scored=manifest.ignored.get(ALREADY_SCORED, 0),
        resumed_images=manifest.resumed_images,
        seconds=manifest.seconds,
        images_per_second=manifest.images_per_second if 2 * manifest.timed_images >= manifest.counts.listed else None,
        mix=prediction_mix(partition),
    )
