"""Score a folder of images: list, decode, infer, write. Composes the other modules and does none of their work."""

import hashlib
import json
import os
import platform
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from pathlib import Path
from typing import Annotated, Final, NamedTuple

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from batchland import __version__
from batchland.cores import usable_cores
from batchland.errors import Interrupted, TimeLimitError, TooManyFailedError, UsageError
from batchland.loader import Batch, BatchLoader
from batchland.predictions import to_rows
from batchland.schemas import Counts, Manifest, ModelInfo, PredictionsInfo, Seconds
from batchland.session import Session, open_session
from batchland.signals import StopSignal
from batchland.sink import PredictionSink, Survey, manifest_path
from batchland.source import Ignored, ImageRef, choose, list_images

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
    """Decoding threads; None takes one per usable core."""
    prefetch_factor: PositiveInt = 2
    """Batches prepared ahead."""
    intra_op_threads: PositiveInt | None = None
    """onnxruntime's threads on the CPU; None takes one per usable core."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:N`."""
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


class ScoreOptions(ScoreSettings):
    """How one run scores."""

    model: Path | None = None
    """ONNX file; None takes $BATCHLAND_MODEL, else models/transfer.onnx, else models/scratch.onnx."""
    overwrite: bool = False
    """Replace an output that exists."""
    restart: bool = False
    """Discard what an interrupted run has left instead of resuming it."""
    time_limit: Annotated[float, Field(gt=0)] | None = None
    """Seconds after which the run stops in good order, for a rerun to go on."""


class FailureLimit(NamedTuple):
    """How many images may fail before a finished run counts as a bad one: a number or a share."""

    text: str
    number: int | None
    share: float | None

    @classmethod
    def parse(cls, text: str) -> "FailureLimit":
        """Read `20` or `1.5%`. Raises UsageError."""
        number, percent, rest = text.strip().partition("%")
        with suppress(ValueError):
            if not percent and int(number) >= 0:
                return cls(text, int(number), None)
            if percent and not rest and 0 <= float(number) <= 100:
                return cls(text, None, float(number) / 100)
        raise UsageError(f"max-failed {text!r} is neither a number of images nor a percentage; give 20 or 1.5%")

    def check(self, counts: Counts) -> None:
        """Raise TooManyFailedError if more images failed than allowed."""
        allowed = self.number if self.number is not None else (self.share or 0.0) * counts.listed
        if counts.failed > allowed:
            codes = ", ".join(f"{code} {count}" for code, count in counts.failed_by_code.items())
            raise TooManyFailedError(
                f"{counts.failed} of {counts.listed} images failed ({codes}), more than --max-failed {self.text}; "
                f"the predictions are written, look at the rows with status = 'failed'"
            )


class Progress(NamedTuple):
    """How far a run is."""

    done: int
    """Images with a row, those of an interrupted run included."""
    failed: int
    """Failed ones among those of this process."""
    resumed: int
    """Images taken over from an interrupted run."""


class RunSummary(NamedTuple):
    """What a run did; the same facts are in its manifest."""

    out: Path
    manifest_path: Path
    manifest: Manifest
    fallback: str | None
    """With device `auto`: why it did not run on CUDA."""


def score(
    images: str | os.PathLike[str],
    out: str | os.PathLike[str],
    options: ScoreOptions | None = None,
    *,
    skip: Callable[[ImageRef], bool] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> RunSummary:
    """Score every image below the folder `images` and write the predictions to `out`.

    out: `*.parquet` becomes one file, any other name a folder of parts; the manifest beside it is written last. Every
    listed image gets one row, in listing order: `ok` with its top-k, or `failed` with an error code. A rerun after an
    interruption goes on from the last part written and leaves the same bytes as an undisturbed run.

    skip: says of a listed image that it is scored already and shall have no row; the manifest counts those.

    Raises UsageError, ModelError, DeviceError, OutputError, LockedError, Interrupted on SIGINT or SIGTERM, and
    TimeLimitError.
    """
    options = options or ScoreOptions()
    root, out = Path(images), Path(os.path.abspath(out))  # noqa: PTH100 - keeps links as they are
    if out.resolve().is_relative_to(root.resolve()):
        raise UsageError(f"{out}: lies inside the images to score; give an --out elsewhere")
    stopwatch = _Stopwatch()
    ignored = Ignored()
    listing = list_images(root, all_files=options.all_files, follow_links=options.follow_links, ignored=ignored)
    listing = choose(listing, options.include, options.exclude, ignored)
    if skip is not None:
        listing = _unless(skip, listing, ignored)
    listing = _not_empty(stopwatch.listing(listing), root, ignored)
    session = open_session(
        find_model(options.model), options.device, intra_op_threads=options.intra_op_threads or usable_cores()
    )
    run = _fingerprint(root, options, session)
    with (
        StopSignal() as stop,
        PredictionSink(
            out,
            run,
            batch_size=options.batch_size,
            part_size=options.part_size,
            overwrite=options.overwrite,
            restart=options.restart,
        ) as sink,
        closing(iter(_loader(sink.unscored(listing), session, options))) as batches,
    ):
        done = failed = 0
        for batch in batches:
            sink.write(stopwatch.infer(batch, session, options.top_k))
            done, failed = done + len(batch.refs), failed + batch.failed
            kept = done + sink.resumed_images
            if on_progress:
                on_progress(Progress(kept, failed, sink.resumed_images))
            if stop.received is not None:
                sink.checkpoint()
                raise Interrupted(f"{out}: stopped after {kept} images; the same command goes on there", stop.received)
            if options.time_limit is not None and stopwatch.elapsed() >= options.time_limit:
                sink.checkpoint()
                raise TimeLimitError(
                    f"{out}: stopped after {kept} images, at the time limit; the same command goes on there"
                )
        survey = sink.survey()
        info = _info(root, options, session, run, survey)
        files = sink.assemble(info.model_dump_json())
        manifest = Manifest(
            run_id=info.run_id,
            created_at=datetime.now(UTC).isoformat("T", "seconds"),
            config=options.model_dump(mode="json") | {"model": str(session.path), "out": str(out)},
            model=info.model,
            images=info.images,
            input_fingerprint=survey.input_fingerprint,
            ignored=dict(sorted(ignored.counts.items())),
            device=info.device,
            provider=info.provider,
            counts=survey.counts,
            resumed_images=sink.resumed_images,
            seconds=stopwatch.seconds(sink.write_seconds),
            images_per_second=round(done / stopwatch.elapsed(), 1),
            files=tuple(files),
            versions=info.versions,
            host=socket.gethostname(),
            cores=usable_cores(),
        )
        sink.publish(manifest.model_dump_json(indent=2) + "\n")
    return RunSummary(out, manifest_path(out), manifest, session.fallback)


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


class _Stopwatch:
    """Seconds spent per stage."""

    def __init__(self) -> None:
        self._begin = time.monotonic()
        self._list = self._read = self._decode = self._infer = 0.0

    def listing(self, images: Iterable[ImageRef]) -> Iterator[ImageRef]:
        images = iter(images)
        while True:
            begin = time.perf_counter()
            ref = next(images, None)
            self._list += time.perf_counter() - begin
            if ref is None:
                return
            yield ref

    def infer(self, batch: Batch, session: Session, top_k: int) -> pa.RecordBatch:
        """Rows of a batch, timed; a batch without a single picture is not shown to the model."""
        self._read += sum(outcome.read_seconds for outcome in batch.outcomes)
        self._decode += sum(outcome.decode_seconds for outcome in batch.outcomes)
        begin = time.perf_counter()
        probabilities = session.predict(batch.pixels) if batch.failed < len(batch.refs) else None
        self._infer += time.perf_counter() - begin
        return to_rows(batch, probabilities, session.card, top_k)

    def elapsed(self) -> float:
        return time.monotonic() - self._begin

    def seconds(self, write: float) -> Seconds:
        parts = {"list": self._list, "read": self._read, "decode": self._decode, "infer": self._infer, "write": write}
        return Seconds(**{name: round(value, 3) for name, value in parts.items()}, total=round(self.elapsed(), 3))


def _loader(images: Iterable[ImageRef], session: Session, options: ScoreOptions) -> BatchLoader:
    return BatchLoader(
        images,
        session.card.preprocess,
        options.batch_size,
        options.num_workers,
        options.prefetch_factor,
        options.timeout,
    )


def _unless(skip: Callable[[ImageRef], bool], images: Iterable[ImageRef], ignored: Ignored) -> Iterator[ImageRef]:
    for ref in images:
        if skip(ref):
            ignored.counts[ALREADY_SCORED] += 1
        else:
            yield ref


def _not_empty(images: Iterator[ImageRef], root: Path, ignored: Ignored) -> Iterator[ImageRef]:
    first = next(images, None)
    if first is None:
        found = ", ".join(f"{count} {kind}" for kind, count in sorted(ignored.counts.items())) or "nothing at all"
        raise UsageError(f"{root}: no images to score (found: {found}); --all-files lists every file")
    return chain([first], images)


def _fingerprint(root: Path, options: ScoreOptions, session: Session) -> dict[str, object]:
    """Everything besides the images that decides what the rows are."""
    return {
        "schema_version": 1,
        "model": session.sha256,
        "provider": session.provider,
        "images": str(root.resolve()),
        "options": options.model_dump(
            mode="json",
            include={"top_k", "batch_size", "include", "exclude", "all_files", "follow_links", "intra_op_threads"},
        ),
        "versions": _versions(),
    }


def _info(
    root: Path, options: ScoreOptions, session: Session, run: dict[str, object], survey: Survey
) -> PredictionsInfo:
    run_id = hashlib.sha256((json.dumps(run, sort_keys=True) + survey.input_fingerprint).encode()).hexdigest()[:16]
    return PredictionsInfo(
        run_id=run_id,
        model=ModelInfo(
            name=session.card.name,
            architecture=session.card.architecture,
            sha256=session.sha256,
            file=str(session.path),
        ),
        classes=session.card.classes,
        images=str(root.resolve()),
        device=session.device,
        provider=session.provider,
        batch_size=options.batch_size,
        top_k=min(options.top_k, len(session.card.classes)),
        counts=survey.counts,
        versions=_versions(),
    )


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "batchland": __version__}
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
