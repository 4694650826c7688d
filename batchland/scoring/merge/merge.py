"""Merge complete shards into one output, the one that a single process would have written."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from batchland.errors import Interrupted, UsageError
from batchland.predictions.parts import PartSpec
from batchland.predictions.reader import StoredPredictions
from batchland.predictions.schema import PREDICTIONS, ShardInfo, full_schema, own_schema
from batchland.predictions.storage import display_location, join_location, open_output, output_location
from batchland.predictions.stored_folder import StoredFolder
from batchland.predictions.writer import PredictionSink, Survey
from batchland.scoring.account import Progress
from batchland.scoring.merge.check import FinishedShard, finished_shards
from batchland.scoring.merge.describe import merged_info, merged_manifest
from batchland.scoring.merge.order import BLOCK_SIZE, ordered_rows
from batchland.scoring.score import RunSummary
from batchland.system.paths import resolved
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
    common, out = open_shards(folder), output_location(out)
    shards = finished_shards(common)
    _check_output(out, common)
    config, stored = shards[0].manifest.config, _schema(shards)
    spec = PartSpec.of(
        {"merge": [shard.manifest_sha256 for shard in shards]},
        batch_size=config["batch_size"],
        part_size=config["part_size"],
        schema=full_schema(stored),
        own=own_schema(stored),
    )
    with (
        StopSignal() as signal,
        PredictionSink(open_output(out), spec, overwrite=overwrite) as sink,
    ):
        for _ in sink.keep(ordered_rows(common.name, shards, block_size)):  # after each part
            if on_progress:
                on_progress(Progress(sink.kept_images, 0, 0))
            if signal.received is not None:
                raise Interrupted(
                    f"{display_location(out)}: stopped while merging; run the same command again to resume",
                    signal.received,
                )
        survey = sink.survey()
        _check_complete(common.name, shards[0].info, survey)
        info = merged_info(shards, survey)
        files = sink.assemble(info.model_dump_json())
        if changed := [shard.name for shard in shards if not shard.is_unchanged()]:
            raise UsageError(f"{changed[0]}: was scored again during the merge; run the command again")
        manifest = merged_manifest(
            shards,
            info,
            survey,
            config={"out": display_location(out), "overwrite": overwrite},
            write_seconds=sink.write_seconds,
            total_seconds=time.monotonic() - begin,
            files=files,
        )
        sink.publish(manifest.model_dump_json(indent=2) + "\n")
    return RunSummary.of(out, manifest)


def open_shards(folder: str | os.PathLike[str]) -> StoredFolder:
    """The folder of shards at a path or a URL. Raises UsageError or InputError if the URL cannot be used."""
    return StoredFolder(os.fspath(folder) if is_url(folder) else Path(folder))


def _schema(shards: list[FinishedShard]) -> pa.Schema:
    """Schema of the shards' rows. All shards have the same columns."""
    for shard in shards:
        if shard.manifest.files:
            stored = StoredPredictions(join_location(shard.common.location, shard.folder))
            return stored.schema(shard.manifest.files[0].path)
    return PREDICTIONS


def _check_output(out: Path | str, common: StoredFolder) -> None:
    where, folder = (_comparable(location) for location in (out, common.location))
    if f"{folder}/".startswith(f"{where}/") or where.startswith(f"{folder}/"):
        raise UsageError(f"{out}: lies among the shards to merge, or contains them", advice="other_out")


def _comparable(location: Path | str) -> str:
    return str(resolved(location)) if isinstance(location, Path) else display_location(location)


def _check_complete(folder: str, info: ShardInfo, survey: Survey) -> None:
    """Raise UsageError if images are missing. With containers, no shard knows the number of images."""
    listed = survey.counts.listed
    if not listed:
        raise UsageError(f"{folder}: all shards are empty, so there is nothing to merge")
    if info.dealt_by != "container" and (listed, survey.names_sha256) != (info.listed, info.names_sha256):
        raise UsageError(
            f"{folder}: the shards have {listed} rows for {info.listed} images, or other names",
            advice="overwrite_shards",
        )
