"""The manifest and the metadata of a merged output."""

from typing import Any

from batchland.predictions.reader import StoredPredictions
from batchland.predictions.schema import Manifest, MergedShard, PredictionsInfo, Seconds, WrittenFile
from batchland.predictions.storage import join_location
from batchland.predictions.writer import Survey
from batchland.scoring.manifest import complete_manifest, run_id
from batchland.scoring.merge.check import FinishedShard


def merged_manifest(
    shards: list[FinishedShard],
    info: PredictionsInfo,
    survey: Survey,
    *,
    config: dict[str, Any],
    write_seconds: float,
    total_seconds: float,
    files: list[WrittenFile],
) -> Manifest:
    """The manifest of an output. config: options that differ from those of the shards."""
    return complete_manifest(
        info,
        survey,
        config=shards[0].manifest.config | {"shard": None, "plan": None} | config,
        ignored=_ignored(shards),
        resumed_images=sum(shard.manifest.resumed_images for shard in shards),
        seconds=_seconds(shards, write_seconds, total_seconds),
        reused_images=sum(shard.manifest.reused_images for shard in shards),
        copied_images=sum(shard.manifest.copied_images for shard in shards),
        images_per_second=_rate(shards),
        files=tuple(files),
        shards=tuple(map(_merged, shards)),
    )


def merged_info(shards: list[FinishedShard], survey: Survey) -> PredictionsInfo:
    """The metadata that one process would have written."""
    first = next(shard for shard in shards if shard.manifest.files)
    devices = {shard.manifest.device for shard in shards}
    changes: dict[str, Any] = {
        "run_id": run_id(first.info.fingerprint, survey.input_fingerprint),
        "counts": survey.counts,
        "device": devices.pop() if len(devices) == 1 else first.manifest.device.partition(":")[0],
    }
    return StoredPredictions(join_location(first.common.location, first.folder)).info().model_copy(update=changes)


def _ignored(shards: list[FinishedShard]) -> dict[str, int]:
    """Every shard lists all images, but only its own containers."""
    if shards[0].info.dealt_by != "container":
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
    images = sum(shard.manifest.timed_images for shard in shards)
    return round(images / sum(shard.manifest.seconds.total for shard in shards), 1)


def _merged(shard: FinishedShard) -> MergedShard:
    return MergedShard(
        index=shard.info.index,
        images=shard.manifest.counts.listed,
        host=shard.manifest.host,
        device=shard.manifest.device,
        seconds=shard.manifest.seconds.total,
        manifest_sha256=shard.manifest_sha256,
    )
