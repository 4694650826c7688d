"""Score images: list, decode, infer, write. Composes the other modules and does none of their work."""

import hashlib
import json
import os
import platform
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from pathlib import Path, PurePath
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from batchland import __version__
from batchland.cores import usable_cores
from batchland.earlier import EarlierOutput
from batchland.engine import Engine, LocalEngine, Scored
from batchland.errors import Interrupted, TimeLimitError, TooManyFailedError, UsageError
from batchland.output import below, is_file_output, manifest_place, open_output, place, public_place, shown_place
from batchland.schemas import (
    PREDICTIONS,
    SHARD_PREDICTIONS,
    Counts,
    Execution,
    Manifest,
    ModelInfo,
    PredictionsInfo,
    Seconds,
)
from batchland.session import OpenModel
from batchland.shards.deal import Deal, Shard
from batchland.shards.finished import ROW_GROUP_SIZE, finished_before
from batchland.signals import GRACE_SECONDS, StopSignal
from batchland.sink import Entry, PredictionSink, Survey
from batchland.source import ContainerSource, Ignored, ImageRef, Source, choose, open_source, shown

DEFAULT_MODELS: Final = (Path("models/transfer.onnx"), Path("models/scratch.onnx"))
ALREADY_SCORED: Final = "already scored"
"""Under this the manifest's `ignored` counts what `skip` has left out."""
_PACKAGES: Final = ("onnxruntime-gpu", "onnxruntime", "numpy", "pillow", "simplejpeg", "pyarrow")

PositiveInt = Annotated[int, Field(gt=0)]


class ScoreSettings(BaseModel):
    """How to score, as a job file may say it, too. What the model card fixes (preprocessing, classes) is not here."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    top_k: PositiveInt = 5
    """Choices kept per image, capped by the number of classes."""
    batch_size: PositiveInt = 32
    """Images per call of the model."""
    num_workers: PositiveInt | None = None
    """Decoding threads; None takes one per usable core, and more where images are long waited for."""
    prefetch_factor: PositiveInt = 2
    """Batches prepared ahead."""
    intra_op_threads: PositiveInt | None = None
    """onnxruntime's threads per call on the CPU; None divides the usable cores among up to four calls at once."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:N`, several GPUs as `cuda:0,1` or `cuda:all`, or `tensorrt` in place of `cuda`."""
    include: tuple[str, ...] = ()
    """Score only images that match one of these patterns (as in .gitignore); none means all."""
    exclude: tuple[str, ...] = ()
    """Leave out images that match one of these patterns (as in .gitignore)."""
    all_files: bool = False
    """List every file, whatever its extension."""
    follow_links: bool = False
    """Follow links to folders."""
    part_size: PositiveInt = 8192
    """Images per part, rounded up to whole batches."""
    timeout: Annotated[float, Field(gt=0)] = 60.0
    """Seconds that one image may take to read and decode."""
    engine: Literal["local", "ray"] = "local"
    """Who decodes and infers: this process, or Ray (docs/ray.md). The rows are the same."""
    ray_address: str | None = None
    """Ray cluster to use; None takes $RAY_ADDRESS, else starts Ray on this machine for the time of the run."""


class ScoreOptions(ScoreSettings):
    """How one run scores."""

    model: Path | None = None
    """ONNX file; None takes $BATCHLAND_MODEL, else models/transfer.onnx, else models/scratch.onnx."""
    image_list: str | None = None
    """Text, CSV or Parquet file that lists the images, `-` for standard input; None scores all there are."""
    overwrite: bool = False
    """Replace an output that exists."""
    restart: bool = False
    """Discard what an interrupted run has left instead of resuming it."""
    retry_failed: bool = False
    """Score only the failed rows of an output that exists, and keep its others."""
    shard: Shard | None = None
    """Score only the images of this shard; `out` is the folder of all shards then."""
    time_limit: Annotated[float, Field(gt=0)] | None = None
    """Seconds after which the run stops in good order, for a rerun to go on."""
    job: str | None = None
    """Name of the job that asks for it; the manifest keeps it, so that retention knows what is the job's."""


class FailureLimit(NamedTuple):
    """How many images may fail before a finished run counts as a bad one: a number or a share."""

    text: str
    number: int | None
    percent: Fraction | None

    @classmethod
    def parse(cls, text: str) -> "FailureLimit":
        """Read `20` or `1.5%`. Raises UsageError."""
        number, percent, rest = text.strip().partition("%")
        with suppress(ValueError):
            if not percent and int(number) >= 0:
                return cls(text, int(number), None)
            if percent and not rest and 0 <= Fraction(number) <= 100:
                return cls(text, None, Fraction(number))
        raise UsageError(f"max-failed {text!r} is neither a number of images nor a percentage; give 20 or 1.5%")

    def check(self, counts: Counts) -> None:
        """Raise TooManyFailedError if more images failed than allowed, or a folder hides an unknown number of them."""
        if folders := counts.failed_by_code.get("unreadable"):
            raise TooManyFailedError(
                f"{folders} of {counts.listed} rows stand for folders or shards that could not be read, with nobody "
                f"knows how many images; the predictions are written, mend them and run again with --retry-failed"
            )
        allowed = self.number if self.number is not None else counts.listed * (self.percent or 0) / 100
        if counts.failed > allowed:
            codes = ", ".join(f"{code} {count}" for code, count in counts.failed_by_code.items())
            raise TooManyFailedError(
                f"{counts.failed} of {counts.listed} images failed ({codes}), more than max-failed {self.text} allows; "
                f"the predictions are written, look at the rows with status = 'failed'"
            )


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
    written last. Every
    listed image gets one row, in listing order: `ok` with its top-k, or `failed` with an error code. A rerun after an
    interruption goes on from the last part written and leaves the same bytes as an undisturbed run.

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
        run = _fingerprint(source, options, engine.model)
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
            survey = sink.survey()
            model = engine.model
            info = _info(source, options, model, survey)
            files = sink.assemble(info.model_dump_json())
            manifest = Manifest(
                **info.model_dump(include={"run_id", "model", "images", "device", "provider", "versions"}),
                created_at=datetime.now(UTC).isoformat("T", "seconds"),
                config=_config(options, model=model.path, out=shown_place(out), image_list=options.image_list),
                input_fingerprint=survey.input_fingerprint,
                ignored=dict(sorted(ignored.counts.items())),
                execution=_execution(model),
                counts=survey.counts,
                resumed_images=sink.resumed_images,
                kept_images=sink.kept_images,
                seconds=stopwatch.seconds(sink.write_seconds),
                images_per_second=round(tally.scored / stopwatch.elapsed(), 1),
                files=tuple(files),
                host=socket.gethostname(),
                cores=usable_cores(),
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

    @property
    def progress(self) -> Progress:
        done = self.scored + self.sink.resumed_images + self.sink.kept_images
        return Progress(done, self.failed, self.sink.resumed_images)

    def count(self, scored: Scored) -> None:
        self.scored += scored.rows.num_rows
        self.failed += scored.failed

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


def find_model(model: Path | None = None) -> Path:
    """The model to use: as given, else $BATCHLAND_MODEL, else models/transfer.onnx, else models/scratch.onnx.

    Raises UsageError if there is none.
    """
    if model is not None:
        return model
    if chosen := os.environ.get("BATCHLAND_MODEL"):
        return Path(chosen)
    for path in DEFAULT_MODELS:
        if path.exists():
            return path
    looked = " or ".join(str(path) for path in DEFAULT_MODELS)
    raise UsageError(f"no model: give --model or set BATCHLAND_MODEL (there is no {looked} here)")


def _engine(options: ScoreOptions) -> Engine:
    if options.engine == "ray":
        from batchland.ray_engine.engine import RayEngine

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
    name = shown_place(out)
    resolved = shown(out.resolve()) if isinstance(out, Path) else name
    if options.image_list is None and resolved.startswith(source.name.rstrip("/") + "/"):
        raise UsageError(f"{name}: lies inside the images to score; give an --out elsewhere")
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
    images = _not_empty(chosen(source.images(ignored)), source, ignored)
    return deal.images(images) if deal else images


def _chosen(
    options: ScoreOptions, ignored: Ignored, skip: Callable[[ImageRef], bool] | None, images: Iterator[ImageRef]
) -> Iterator[ImageRef]:
    for ref in choose(images, options.include, options.exclude, ignored):
        if skip is not None and skip(ref):
            ignored.counts[ALREADY_SCORED] += 1
        else:
            yield ref


def _listed_again(source: Source, options: ScoreOptions, name: str) -> Iterator[ImageRef]:
    images = source.again(name)
    return choose(images, options.include, options.exclude, Ignored()) if name.endswith("/") else images


def _not_empty(images: Iterator[ImageRef], source: Source, ignored: Ignored) -> Iterator[ImageRef]:
    first = next(images, None)
    if first is None:
        found = ", ".join(f"{count} {kind}" for kind, count in sorted(ignored.counts.items())) or "nothing at all"
        raise UsageError(f"{source.name}: no images to score (found: {found}); --all-files lists every file")
    return chain([first], images)


def _retries(
    earlier: EarlierOutput | None, source: Source, options: ScoreOptions, model: OpenModel
) -> dict[str, object]:
    """For the fingerprint: whose failed rows are scored again. Raises UsageError if those were made otherwise."""
    if earlier is None:
        return {}
    earlier.check_same(
        images=source.name,
        model_sha256=model.sha256,
        provider=model.provider,
        batch_size=options.batch_size,
        top_k=min(options.top_k, len(model.card.classes)),
    )
    return {"retries": earlier.identity}


def _fingerprint(source: Source, options: ScoreOptions, model: OpenModel) -> dict[str, Any]:
    """Everything besides the images that decides what the rows are."""
    return {
        "schema_version": 1,
        "model": model.sha256,
        "provider": model.provider,
        "images": source.name,
        "options": options.model_dump(
            mode="json",
            include={"top_k", "batch_size", "include", "exclude", "all_files", "follow_links", "intra_op_threads"},
        ),
        "versions": versions(),
    }


def run_id(fingerprint: dict[str, Any], input_fingerprint: str) -> str:
    """The id of what is made of this input in this way."""
    return hashlib.sha256((json.dumps(fingerprint, sort_keys=True) + input_fingerprint).encode()).hexdigest()[:16]


def _info(source: Source, options: ScoreOptions, model: OpenModel, survey: Survey) -> PredictionsInfo:
    return PredictionsInfo(
        run_id=run_id(_fingerprint(source, options, model), survey.input_fingerprint),
        model=ModelInfo(
            name=model.card.name,
            architecture=model.card.architecture,
            sha256=model.sha256,
            file=shown(model.path),
        ),
        classes=model.card.classes,
        images=source.name,
        device=model.device,
        provider=model.provider,
        batch_size=options.batch_size,
        top_k=min(options.top_k, len(model.card.classes)),
        counts=survey.counts,
        versions=versions(),
    )


def _config(options: ScoreOptions, **places: str | Path | None) -> dict[str, object]:
    """All options, with no credentials in them."""
    return options.model_dump(mode="json") | {name: place and shown(place) for name, place in places.items()}


def _execution(model: OpenModel) -> Execution | None:
    if not model.nodes:
        return None
    return Execution(nodes=dict(model.nodes), cpu_nodes=model.cpu_nodes, settings=dict(model.settings))


def versions() -> dict[str, str]:
    """Of whatever has a say in what the rows are."""
    found = {"python": platform.python_version(), "batchland": __version__}
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
