"""Score images: list, decode, infer, write."""

import os
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from batchland.models.session import OpenModel
from batchland.predictions.parts import CHECKPOINT_SECONDS, Entry
from batchland.predictions.schema import Manifest, predictions_schema
from batchland.predictions.storage import (
    Location,
    display_location,
    manifest_location,
    output_location,
    public_location,
)
from batchland.predictions.writer import PredictionSink
from batchland.scoring.account import Account, Progress, Stopwatch
from batchland.scoring.engines.local import LocalEngine
from batchland.scoring.engines.open import open_engine
from batchland.scoring.known_rows import KnownRows, reusable_predictions
from batchland.scoring.listing import ImageListing, Skip, open_listing
from batchland.scoring.manifest import complete_manifest, config, execution, predictions_info
from batchland.scoring.options import ScoreOptions
from batchland.scoring.plan.planned_run import PlannedListing, PlannedRun
from batchland.scoring.retry import LateRun, RetryRun
from batchland.scoring.reuse import Reuse
from batchland.scoring.run import Run
from batchland.scoring.shard import ShardRun
from batchland.system.signals import GRACE_SECONDS, StopSignal

if TYPE_CHECKING:
    from batchland.scoring.engines.ray.engine import RayEngine


class RunSummary(NamedTuple):
    """The result of a run; its manifest has the same facts."""

    out: Path | str
    """A path, or a URL without credentials and options."""
    manifest_path: Path | str
    manifest: Manifest
    fallback: str | None
    """Why device `auto` does not run on CUDA."""
    done_before: bool = False
    """Whether an earlier run with the same options had already finished the shard."""

    @classmethod
    def of(cls, out: Location, manifest: Manifest, fallback: str | None = None, *, done_before: bool = False) -> Self:
        """The summary of the output at `out`."""
        return cls(public_location(out), manifest_location(out), manifest, fallback, done_before)


def score(
    images: str | os.PathLike[str] | ImageListing | None,
    out: str | os.PathLike[str],
    options: ScoreOptions | None = None,
    *,
    skip: Skip | None = None,
    engine: "LocalEngine | RayEngine | None" = None,
    on_progress: Callable[[Progress], None] | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    grace_seconds: float = GRACE_SECONDS,
) -> RunSummary:
    """Score every image of `images`, a folder, a URL or an open listing, and write the predictions to `out`.

    out: a path or a URL; `*.parquet` becomes one file, any other name a folder of parts; the manifest beside it is
    written last. Every listed image gets one row, in listing order: `ok` with its top-k, or `failed` with an error
    code. A rerun after an interruption resumes after the last part written and leaves the same bytes as an undisturbed
    run.

    skip: returns whether a listed image is already scored, and so gets no row; the manifest counts those.
    engine: an open one for these options, which is closed at the end; by default, one is opened.
    checkpoint_seconds: rows are stored at least at this interval, so that a killed run loses at most this much work
    (engine `local`). grace_seconds: after a signal or the time limit, the run waits this long for a batch that hangs.

    Raises UsageError, ModelError, DeviceError, OutputError, LockedError, Interrupted on SIGINT or SIGTERM, and
    TimeLimitError.
    """
    stopwatch = Stopwatch()
    run = _plan(images, output_location(out), options or ScoreOptions(), skip)
    entries = stopwatch.listing(run.entries())
    with engine or open_engine(run.options) as engine:
        if manifest := run.finished_before(engine.model):
            return RunSummary.of(run.out, manifest, engine.model.fallback, done_before=True)
        earlier = reusable_predictions(run.options, engine.model)
        with StopSignal() as signal, run.open_sink(engine.model, checkpoint_seconds) as sink:
            by_parts = None if isinstance(engine, LocalEngine) else engine
            account = Account(engine.model, stopwatch, sink, signal, run.options.time_limit, grace_seconds, by_parts)
            reuse = Reuse(run.options.timeout, account.stop_if_waiting_too_long, copies=by_parts is None)
            if run.options.reuse:
                with sink.errors():
                    rows = predictions_schema(engine.model.card, features=run.options.features)
                    reuse.look_in(KnownRows(earlier, sink.notes_dir / "known.arrow", rows))
            if isinstance(engine, LocalEngine):
                steps = _score_batches(engine, sink, entries, account, reuse)
            else:
                steps = _score_parts(engine, run, sink, entries, account, reuse)
            with closing(steps):
                for _ in steps:
                    if on_progress:
                        on_progress(account.progress)
                    account.stop_if_due()
            manifest = _publish(run, engine.model, sink, account, reuse, by_parts)
    return RunSummary.of(run.out, manifest, engine.model.fallback)


def _score_batches(
    engine: LocalEngine, sink: PredictionSink, entries: Iterable[Entry], account: Account, reuse: Reuse
) -> Generator[None, None, None]:
    """Score in this process, batch by batch."""
    pending = sink.pending_images(entries, reuse.find)
    with closing(engine.score(pending, sink.notes_dir, account.stop_if_waiting_too_long)) as batches:
        for scored in batches:
            account.add(scored)
            sink.write(scored.rows)
            yield


def _score_parts(
    engine: "RayEngine", run: Run, sink: PredictionSink, entries: Iterable[Entry], account: Account, reuse: Reuse
) -> Generator[None, None, None]:
    """Let workers score and write, part by part."""
    handed_out = sink.hand_out(run.parts(entries, sink.part_size), reuse.find)
    with closing(engine.score_parts(handed_out, run.out, sink.spec)) as parts:
        for part in parts:
            if part is not None:
                account.add_part(part)
            account.unfinished = engine.unfinished
            yield


def _plan(
    images: str | os.PathLike[str] | ImageListing | None, out: Path | str, options: ScoreOptions, skip: Skip | None
) -> Run:
    if options.plan is not None:
        planned = images if isinstance(images, PlannedListing) else PlannedListing(_as_text(images), options)
        return PlannedRun(planned, out, options)
    listing = images
    if not isinstance(listing, ImageListing):
        listing = open_listing(listing, options, image_list=options.image_list, skip=skip)
    if options.shard:
        return ShardRun(listing, out, options, options.shard)
    kind = LateRun if options.add_missing else RetryRun if options.retry_failed else Run
    return kind(listing, out, options)


def _as_text(images: str | os.PathLike[str] | ImageListing | None) -> str | None:
    assert not isinstance(images, ImageListing), "a plan has its own listing"
    return None if images is None else os.fspath(images)


def _publish(
    run: Run, model: OpenModel, sink: PredictionSink, account: Account, reuse: Reuse, engine: "RayEngine | None"
) -> Manifest:
    """Assemble the output and publish it with its manifest. engine: given if its workers write the files."""
    survey = sink.survey()
    info = predictions_info(run.listing.source, run.own, run.options, model, survey)
    files = sink.assemble(info.model_dump_json(), engine.write_files if engine else None)
    manifest = complete_manifest(
        info,
        survey,
        config=config(
            run.options,
            model=model.path,
            out=display_location(run.out),
            image_list=run.options.image_list,
            plan=run.options.plan,
        ),
        ignored=dict(sorted(run.ignored().items())),
        execution=execution(model, account.work.decoded_on_gpu),
        resumed_images=sink.resumed_images,
        kept_images=sink.kept_images - reuse.reused - reuse.copied,
        reused_images=reuse.reused,
        copied_images=reuse.copied,
        seconds=account.seconds(),
        images_per_second=account.images_per_second(reuse.reused + reuse.copied),
        files=tuple(files),
        **run.finish(model, survey),
    )
    sink.publish(manifest.model_dump_json(indent=2) + "\n")
    return manifest
