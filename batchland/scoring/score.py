"""Score images: list, decode, infer, write. Composes the other modules and does none of their work."""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path, PurePath
from typing import Final, NamedTuple

from batchland.errors import Interrupted, TimeLimitError, UsageError
from batchland.images.sources.open import open_source
from batchland.images.sources.refs import Ignored, ImageRef
from batchland.images.sources.selection import select_images
from batchland.images.sources.source import ContainerSource, Source
from batchland.models.session import OpenModel
from batchland.predictions.layout import is_file_output
from batchland.predictions.schema import PREDICTIONS, SHARD_PREDICTIONS, Manifest, Seconds
from batchland.predictions.storage import below, display_location, manifest_place, open_output, place, public_place
from batchland.predictions.writer import Entry, PredictionSink
from batchland.scoring.engines.local import Engine, LocalEngine, Scored
from batchland.scoring.manifest import complete_manifest, config, execution, fingerprint, predictions_info
from batchland.scoring.options import ScoreOptions, find_model
from batchland.scoring.retry import EarlierOutput
from batchland.scoring.shard import ROW_GROUP_SIZE, Deal, finished_before
from batchland.system.names import display_path
from batchland.system.signals import GRACE_SECONDS, StopSignal

ALREADY_SCORED: Final = "already scored"
"""Under this the manifest's `ignored` counts what `skip` has left out."""


class Progress(NamedTuple):
    """How far a run is."""

    done: int
    """Images with a row, those of an interrupted or earlier run included."""
    failed: int
    """Failed ones among those of this process."""
    resumed: int
    """Images taken over from an interrupted run."""


class RunSummary(NamedTuple):
    """What a run did; the same facts are in its manifest."""

    out: Path | str
    """A path, or a URL without credentials and options."""
    manifest_path: Path | str
    manifest: Manifest
    fallback: str | None
    """With device `auto`: why it did not run on CUDA."""
    done_before: bool = False
    """The shard was finished already, by an earlier run of the same options."""


def score(
    images: str | os.PathLike[str] | None,
    out: str | os.PathLike[str],
    options: ScoreOptions | None = None,
    *,
    skip: Callable[[ImageRef], bool] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> RunSummary:
    """Score every image of `images`, a folder or a URL, and write the predictions to `out`.

    out: a path or a URL; `*.parquet` becomes one file, any other name a folder of parts; the manifest beside it is
    written last. Every listed image gets one row, in listing order: `ok` with its top-k, or `failed` with an error
    code. A rerun after an interruption goes on from the last part written and leaves the same bytes as an undisturbed
    run.

    skip: says of a listed image that it is scored already and shall have no row; the manifest counts those.

    Raises UsageError, ModelError, DeviceError, OutputError, LockedError, Interrupted on SIGINT or SIGTERM, and
    TimeLimitError.
    """
    options = options or ScoreOptions()
    out = place(out)
    deal = Deal(options.shard) if options.shard else None
    if options.shard:
        out = below(out, options.shard.folder_name)
    source = open_source(
        images, image_list=options.image_list, all_files=options.all_files, follow_links=options.follow_links
    )
    _check_places(source, out, options)
    stopwatch = _Stopwatch()
    ignored = Ignored()
    earlier = EarlierOutput(out) if options.retry_failed else None
    entries: Iterable[Entry]
    if earlier:
        entries = earlier.entries(partial(_listed_again, source, options))
        ignored.counts.update(earlier.ignored)
    else:
        entries = _listed(source, options, ignored, skip, deal)
    with _engine(options) as engine:
        run = fingerprint(source, options, engine.model)
        if deal and not options.overwrite and (done := finished_before(out, run)):
            return RunSummary(public_place(out), manifest_place(out), done, engine.model.fallback, done_before=True)
        with (
            StopSignal() as signal,
            PredictionSink(
                open_output(out),
                run | _retries(earlier, source, options, engine.model) | ({"shard": str(deal.shard)} if deal else {}),
                batch_size=options.batch_size,
                part_size=options.part_size,
                schema=SHARD_PREDICTIONS if deal else PREDICTIONS,
                row_group_size=ROW_GROUP_SIZE if deal else None,
                overwrite=options.overwrite or options.retry_failed,
                restart=options.restart,
            ) as sink,
        ):
            tally = _Tally(sink, signal, stopwatch, options.time_limit)
            images_left = sink.unscored(stopwatch.listing(entries))
            on_wait = partial(tally.stop_if_due, GRACE_SECONDS)
            with closing(engine.score(images_left, sink.notes_dir, on_wait)) as batches:
                for scored in batches:
                    stopwatch.add(scored)
                    sink.write(scored.rows)
                    tally.count(scored)
                    if on_progress:
                        on_progress(tally.progress)
                    tally.stop_if_due()
            survey, model = sink.survey(), engine.model
            info = predictions_info(source, options, model, survey)
            files = sink.assemble(info.model_dump_json())
            manifest = complete_manifest(
                info,
                survey,
                config=config(options, model=model.path, out=display_location(out), image_list=options.image_list),
                ignored=dict(sorted(ignored.counts.items())),
                execution=execution(model, tally.decoded_on_gpu),
                resumed_images=sink.resumed_images,
                kept_images=sink.kept_images,
                seconds=stopwatch.seconds(sink.write_seconds),
                images_per_second=round(tally.scored / stopwatch.elapsed(), 1),
                files=tuple(files),
                shard=deal.info(run) if deal else None,
            )
            sink.publish(manifest.model_dump_json(indent=2) + "\n")
    return RunSummary(public_place(out), manifest_place(out), manifest, model.fallback)


@dataclass
class _Tally:
    """How far a run is, and whether it must stop there."""

    sink: PredictionSink
    signal: StopSignal
    stopwatch: "_Stopwatch"
    time_limit: float | None
    scored: int = 0
    """Images that this process has given a row."""
    failed: int = 0
    decoded_on_gpu: int = 0

    @property
    def progress(self) -> Progress:
        done = self.scored + self.sink.resumed_images + self.sink.kept_images
        return Progress(done, self.failed, self.sink.resumed_images)

    def count(self, scored: Scored) -> None:
        self.scored += scored.rows.num_rows
        self.failed += scored.failed
        self.decoded_on_gpu += scored.decoded_on_gpu

    def stop_if_due(self, grace: float = 0.0) -> None:
        """Between two batches at once; while one is waited for, only when the grace for it is over."""
        error: Interrupted | None = None
        where = f"{self.sink.out}: stopped after {self.progress.done} images"
        if self.signal.received is not None and self.signal.seconds_ago >= grace:
            error = Interrupted(f"{where}; the same command goes on there", self.signal.received)
        elif self.time_limit is not None and self.stopwatch.elapsed() >= self.time_limit + grace:
            error = TimeLimitError(f"{where}, at the time limit; the same command goes on there")
        if error:
            self.sink.checkpoint()
            raise error


def _engine(options: ScoreOptions) -> Engine:
    if options.engine == "ray":
        if options.decode == "cuda":
            raise UsageError("--decode cuda goes with --engine local; Ray's tasks decode on CPUs, use --decode cpu")
        from batchland.scoring.engines.ray.engine import RayEngine

        return RayEngine(find_model(options.model), options)
    return LocalEngine(find_model(options.model), options)


class _Stopwatch:
    """Seconds spent per stage."""

    def __init__(self) -> None:
        self._begin = time.monotonic()
        self._list = self._read = self._decode = self._infer = 0.0

    def listing(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        entries = iter(entries)
        while True:
            begin = time.perf_counter()
            entry = next(entries, None)
            self._list += time.perf_counter() - begin
            if entry is None:
                return
            yield entry

    def add(self, scored: Scored) -> None:
        self._read += scored.read_seconds
        self._decode += scored.decode_seconds
        self._infer += scored.infer_seconds

    def elapsed(self) -> float:
        return time.monotonic() - self._begin

    def seconds(self, write: float) -> Seconds:
        parts = {"list": self._list, "read": self._read, "decode": self._decode, "infer": self._infer, "write": write}
        return Seconds(**{name: round(value, 3) for name, value in parts.items()}, total=round(self.elapsed(), 3))


def _check_places(source: Source, out: Path | str, options: ScoreOptions) -> None:
    name = display_location(out)
    resolved = _resolved(out)
    if options.image_list is None and resolved.startswith(source.name.rstrip("/") + "/"):
        raise UsageError(f"{name}: lies inside the images to score; give an --out elsewhere")
    for read in source.inputs() if not isinstance(out, Path) or out.exists() else ():
        if f"{_resolved(place(read))}/".startswith(f"{resolved}/"):
            raise UsageError(f"{name}: would replace {display_path(read)}, which is to be read; give another --out")
    if not _is_utf8(out):
        raise UsageError(f"{name}: its name is no valid UTF-8, few programs could read it; give another --out")
    if options.shard and is_file_output(PurePath(name).parent):
        raise UsageError(
            f"{name.rpartition('/')[0]}: is the name of a file; a shard's --out is the folder of all shards"
        )
    if options.shard and options.retry_failed:
        raise UsageError("--retry-failed works on merged predictions; run `batchland merge`, then it, without --shard")
    if options.retry_failed and options.overwrite:
        raise UsageError("--retry-failed keeps the good rows of an output, --overwrite none; give one of the two")


def _resolved(where: Path | str) -> str:
    """Of a place: what it comes to by its links."""
    return display_path(where.resolve()) if isinstance(where, Path) else display_location(where)


def _is_utf8(path: Path | str) -> bool:
    try:
        os.fsencode(path).decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _listed(
    source: Source,
    options: ScoreOptions,
    ignored: Ignored,
    skip: Callable[[ImageRef], bool] | None,
    deal: Deal | None,
) -> Iterator[ImageRef]:
    chosen = partial(_chosen, options, ignored, skip)
    if deal and isinstance(source, ContainerSource):
        return deal.containers(source, ignored, chosen)
    images = _not_empty(chosen(source.images(ignored)), source, options.image_list, ignored)
    return deal.images(images) if deal else images


def _chosen(
    options: ScoreOptions, ignored: Ignored, skip: Callable[[ImageRef], bool] | None, images: Iterator[ImageRef]
) -> Iterator[ImageRef]:
    for ref in select_images(images, options.include, options.exclude, ignored):
        if skip is not None and skip(ref):
            ignored.counts[ALREADY_SCORED] += 1
        else:
            yield ref


def _listed_again(source: Source, options: ScoreOptions, name: str) -> Iterator[ImageRef]:
    images = source.retry_refs(name)
    return select_images(images, options.include, options.exclude, Ignored()) if name.endswith("/") else images


def _not_empty(
    images: Iterator[ImageRef], source: Source, image_list: str | None, ignored: Ignored
) -> Iterator[ImageRef]:
    first = next(images, None)
    if first is None:
        found = ", ".join(f"{count} {kind}" for kind, count in sorted(ignored.counts.items())) or "nothing at all"
        where, advice = source.name, "give the place that holds them"
        if image_list is not None:
            where = "standard input" if image_list == "-" else display_path(image_list)
            advice = "give a list with one path a line"
        elif any(kind.startswith(".") or kind == "no extension" for kind in ignored.counts):
            advice = "--all-files lists every file"
        raise UsageError(f"{where}: no images to score (found: {found}); {advice}")
    return chain([first], images)


def _retries(
    earlier: EarlierOutput | None, source: Source, options: ScoreOptions, model: OpenModel
) -> dict[str, object]:
    """For the fingerprint: whose failed rows are scored again. Raises UsageError if those were made otherwise."""
    if earlier is None:
        return {}
    earlier.check_same(
        images=source.name,
        model=(model.card.name, model.sha256),
        provider=model.provider,
        decoder=model.decoder,
        batch_size=options.batch_size,
        top_k=min(options.top_k, len(model.card.classes)),
    )
    return {"retries": earlier.identity}
