"""Merge complete shards into one output, the one that a single process would have written."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from batchland.errors import Interrupted, UsageError
from batchland.predictions.reader import StoredPredictions
from batchland.predictions.schema import MergedShard, PredictionsInfo, Seconds, ShardInfo
from batchland.predictions.storage import (
    display_location,
    manifest_location,
    open_output,
    output_location,
    public_location,
)
from batchland.predictions.writer import PredictionSink, Survey
from batchland.scoring.account import Progress
from batchland.scoring.manifest import complete_manifest, run_id
from batchland.scoring.merge.check import FinishedShard, finished_shards
from batchland.scoring.merge.order import BLOCK_SIZE, ordered_rows
from batchland.scoring.score import RunSummary
from batchland.system.names import display_path
from batchland.system.signals import StopSignal
from batchland.system.urls import is_url


def merge(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
    block_size: int = BLOCK_SIZE,
) -> RunSummary:
    """Merge the shards that `score` wrote below `folder` into `out`, a `*.parquet` file or a folder of parts.

    The output and its manifest are what one process would have written. The shards are not changed. A rerun after an
    interruption resumes after the last part written. block_size: rows sorted at once, in memory.

    Raises MissingInputError if shards are missing or unfinished, UsageError if they are damaged, do not fit together
    or have rows missing, InputError if they vanish, OutputError, LockedError, and Interrupted on SIGINT or SIGTERM.
    """
    begin = time.monotonic()
    if is_url(folder):
        raise UsageError(f"{display_path(folder)}: is a URL; copy the shards to a local folder to merge them")
    folder, out = Path(folder), output_location(out)
    shards = finished_shards(folder)
    _check_output(out, folder, shards)
    config = shards[0].manifest.config
    identity = [shard.manifest_sha256 for shard in shards]
    with (
        StopSignal() as signal,
        PredictionSink(
            open_output(out),
            {"merge": identity},
            batch_size=config["batch_size"],
            part_size=config["part_size"],
            overwrite=overwrite,
        ) as sink,
    ):
        for _ in sink.keep(ordered_rows(folder, shards, block_size)):  # after each part
            if on_progress:
                on_progress(Progress(sink.kept_images, 0, 0))
            if signal.received is not None:
                raise Interrupted(
                    f"{display_location(out)}: stopped while merging; run the same command again to resume",
                    signal.received,
                )
        survey = sink.survey()
        _check_complete(folder, shards[0].info, survey)
        info = _info(shards, survey)
        files = sink.assemble(info.model_dump_json())
        if changed := [shard.folder for shard in shards if not shard.is_unchanged()]:
            raise UsageError(f"{changed[0]}: was scored again during the merge; run the command again")
        manifest = complete_manifest(
            info,
            survey,
            config=config | {"shard": None, "out": display_location(out), "overwrite": overwrite},
            ignored=_ignored(shards),
            resumed_images=sum(shard.manifest.resumed_images for shard in shards),
            seconds=_seconds(shards, sink.write_seconds, time.monotonic() - begin),
            reused_images=sum(shard.manifest.reused_images for shard in shards),
            copied_images=sum(shard.manifest.copied_images for shard in shards),
            images_per_second=_rate(shards),
            files=tuple(files),
            shards=tuple(map(_merged, shards)),
        )
        sink.publish(manifest.model_dump_json(indent=2) + "\n")
    return RunSummary(public_location(out), manifest_location(out), manifest, None)


def _check_output(out: Path | str, folder: Path, shards: list[FinishedShard]) -> None:
    if not isinstance(out, Path):
        return
    where = out.resolve()
    if folder.resolve().is_relative_to(where) or any(where.is_relative_to(shard.folder.resolve()) for shard in shards):
        raise UsageError(f"{out}: lies among the shards to merge, or contains them", advice="other_out")


def _check_complete(folder: Path, info: ShardInfo, survey: Survey) -> None:
    """Raise UsageError if images are missing. Of containers, no shard knows how many images there are."""
    listed = survey.counts.listed
    if not listed:
        raise UsageError(f"{folder}: all shards are empty, so there is nothing to merge")
    if info.dealt_by == "image" and (listed, survey.names_sha256) != (info.listed, info.names_sha256):
        raise UsageError(
            f"{folder}: the shards have {listed} rows for {info.listed} images, or other names",
            advice="overwrite_shards",
        )


def _info(shards: list[FinishedShard], survey: Survey) -> PredictionsInfo:
    """The metadata that one process would have written."""
    first = next(shard for shard in shards if shard.manifest.files)
    devices = {shard.manifest.device for shard in shards}
    changes: dict[str, Any] = {
        "run_id": run_id(first.info.fingerprint, survey.input_fingerprint),
        "counts": survey.counts,
        "device": devices.pop() if len(devices) == 1 else first.manifest.device.partition(":")[0],
    }
    return StoredPredictions(first.folder).info().model_copy(update=changes)


def _ignored(shards: list[FinishedShard]) -> dict[str, int]:
    """Every shard lists all images, but only its own containers."""
    if shards[0].info.dealt_by == "image":
        return dict(shards[0].manifest.ignored)
    kinds = sorted({kind for shard in shards for kind in shard.manifest.ignored})
    return {kind: sum(shard.manifest.ignored.get(kind, 0) for shard in shards) for kind in kinds}


def _seconds(shards: list[FinishedShard], write: float, total: float) -> Seconds:
    names = ("list", "read", "decode", "infer", "write", "total")
    sums = {name: sum(getattr(shard.manifest.seconds, name) for shard in shards) for name in names}
    sums["write"] += write
    sums["total"] += total
    return Seconds(**{name: round(value, 3) for name, value in sums.items()})


def _rate(shards: list[FinishedShard]) -> float:
    """Images per second of a shard, on average."""
    scored = sum(shard.manifest.counts.listed - shard.manifest.resumed_images for shard in shards)
    return round(scored / sum(shard.manifest.seconds.total for shard in shards), 1)


def _merged(shard: FinishedShard) -> MergedShard:
    return MergedShard(
        index=shard.info.index,
        images=shard.manifest.counts.listed,
        host=shard.manifest.host,
        device=shard.manifest.device,
        seconds=shard.manifest.seconds.total,
        manifest_sha256=shard.manifest_sha256,
    )
