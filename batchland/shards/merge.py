"""Merge finished shards into one output, the rows in the order of the whole listing. Scores nothing.

Memory is bounded: one row group of every shard, and a part of the output.
"""

import heapq
import os
import socket
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from batchland.cores import usable_cores
from batchland.errors import Interrupted, UsageError
from batchland.output import manifest_path, open_output
from batchland.schemas import (
    METADATA_KEY,
    SHARD_PREDICTIONS,
    Manifest,
    MergedShard,
    PredictionsInfo,
    Seconds,
    ShardInfo,
)
from batchland.scoring import Progress, RunSummary, run_id
from batchland.shards.deal import PLACE_BITS
from batchland.shards.finished import FinishedShard, finished_shards
from batchland.signals import StopSignal
from batchland.sink import PredictionSink, Survey
from batchland.source import shown

BLOCK_SIZE: Final = 32768
"""Rows put in order at once: many of each shard, so that a thousand shards cost little more than ten."""
_ADVICE: Final = "which no undisturbed shards leave behind; score all shards again with --overwrite"


def merge(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> RunSummary:
    """Merge the shards that `score` has left in `folder` into `out`, a `*.parquet` file or a folder of parts.

    The output is what one process would have written, with its manifest. Shards are never changed. A rerun after an
    interruption goes on from the last part written.

    Raises MissingInputError if shards are missing or unfinished, UsageError if they are damaged, do not fit together
    or leave something out, OutputError, LockedError, and Interrupted on SIGINT or SIGTERM.
    """
    begin = time.monotonic()
    folder, out = Path(folder), Path(os.path.abspath(out))  # noqa: PTH100 - keeps links as they are
    shards = finished_shards(folder)
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
        for _ in sink.keep(_Stream(folder, shards)):  # after each part
            if on_progress:
                on_progress(Progress(sink.kept_images, 0, 0))
            if signal.received is not None:
                raise Interrupted(f"{out}: stopped while merging; the same command goes on there", signal.received)
        survey = sink.survey()
        _check_complete(folder, shards[0].info, survey)
        info = _info(shards, survey)
        files = sink.assemble(info.model_dump_json())
        if changed := [shard.folder for shard in shards if not shard.is_unchanged()]:
            raise UsageError(f"{changed[0]}: was scored anew meanwhile; run the same command again")
        manifest = Manifest(
            **info.model_dump(include={"run_id", "model", "images", "device", "provider", "versions"}),
            created_at=datetime.now(UTC).isoformat("T", "seconds"),
            config=config | {"shard": None, "out": shown(out), "overwrite": overwrite},
            input_fingerprint=survey.input_fingerprint,
            ignored=_ignored(shards),
            counts=survey.counts,
            resumed_images=sum(shard.manifest.resumed_images for shard in shards),
            seconds=_seconds(shards, sink.write_seconds, time.monotonic() - begin),
            images_per_second=_rate(shards),
            files=tuple(files),
            host=socket.gethostname(),
            cores=usable_cores(),
            shards=tuple(map(_merged, shards)),
        )
        sink.publish(manifest.model_dump_json(indent=2) + "\n")
    return RunSummary(out, manifest_path(out), manifest, None)


class _Rows:
    """Rows of a shard that are not merged yet, a row group at a time; its files are not kept open."""

    def __init__(self, shard: FinishedShard) -> None:
        self._groups = _row_groups(shard)
        self._next_group()

    def _next_group(self) -> None:
        self.rows: pa.RecordBatch | None = next(self._groups, None)
        if self.rows is not None:
            self._positions: npt.NDArray[np.int64] = self.rows.column("position").to_numpy()

    @property
    def head(self) -> int:
        """Position of the first row. Only while there are rows."""
        return int(self._positions[0])

    def take(self, end: int) -> Iterator[pa.RecordBatch]:
        """All rows with a position below `end`."""
        while self.rows is not None:
            count = int(np.searchsorted(self._positions, end))
            if count:
                yield self.rows.slice(0, count)
            if count < self.rows.num_rows:
                self.rows, self._positions = self.rows.slice(count), self._positions[count:]
                return
            self._next_group()


def _row_groups(shard: FinishedShard) -> Iterator[pa.RecordBatch]:
    for file in shard.manifest.files:
        path = shard.folder / file.path
        for number in range(pq.read_metadata(path).num_row_groups):
            with path.open("rb") as opened, pq.ParquetFile(opened) as parquet:
                table = parquet.read_row_group(number, use_threads=False)
            yield from table.replace_schema_metadata(None).cast(SHARD_PREDICTIONS).combine_chunks().to_batches()


class _Stream:
    """All rows of all shards in order, in blocks of BLOCK_SIZE rows or fewer.

    Raises UsageError where a row is lacking or there twice.
    """

    def __init__(self, folder: Path, shards: list[FinishedShard]) -> None:
        self._folder = folder
        self._shards = shards
        self._by_container = shards[0].info.dealt_by == "container"

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        rows = [_Rows(shard) for shard in self._shards]
        heads = [(each.head, index) for index, each in enumerate(rows) if each.rows is not None]
        heapq.heapify(heads)
        begin = 0
        while heads:
            if self._by_container and heads[0][0] > begin and not heads[0][0] % (1 << PLACE_BITS):
                begin = heads[0][0]  # the next container that holds anything
            block = self._block(rows, heads, begin)
            begin += block.num_rows
            yield block.drop_columns(["position"])

    def _block(self, rows: list[_Rows], heads: list[tuple[int, int]], begin: int) -> pa.RecordBatch:
        """The next rows, from position `begin` on."""
        found: list[pa.RecordBatch] = []
        while heads and heads[0][0] < begin + BLOCK_SIZE:
            _, index = heapq.heappop(heads)
            found += rows[index].take(begin + BLOCK_SIZE)
            if rows[index].rows is not None:
                heapq.heappush(heads, (rows[index].head, index))
        if not found:
            raise UsageError(f"{self._folder}: no shard has row {begin}, {_ADVICE}")
        table = pa.Table.from_batches(found).combine_chunks()
        positions = table["position"].to_numpy()
        order = np.argsort(positions, kind="stable")
        wrong = np.flatnonzero(positions[order] != np.arange(begin, begin + len(order)))
        if len(wrong):
            lacking = positions[order][wrong[0]] > begin + wrong[0]
            what = f"no shard has row {begin + wrong[0]}" if lacking else f"two have row {begin + wrong[0] - 1}"
            raise UsageError(f"{self._folder}: {what}, {_ADVICE}")
        return table.take(order).combine_chunks().to_batches()[0]


def _check_complete(folder: Path, info: ShardInfo, survey: Survey) -> None:
    """Of containers, each shard has listed its own, and nobody all images."""
    listed = survey.counts.listed
    if not listed:
        raise UsageError(f"{folder}: all shards are empty, there was no image in any container; nothing to merge")
    if info.dealt_by == "image" and (listed, survey.names_sha256) != (info.listed, info.names_sha256):
        raise UsageError(f"{folder}: there are {listed} rows for {info.listed} images, or other names, {_ADVICE}")


def _info(shards: list[FinishedShard], survey: Survey) -> PredictionsInfo:
    """As one process would have written it."""
    first = next(shard for shard in shards if shard.manifest.files)
    metadata = pq.read_metadata(first.folder / first.manifest.files[0].path).metadata
    devices = {shard.manifest.device for shard in shards}
    changes: dict[str, Any] = {
        "run_id": run_id(first.info.fingerprint, survey.input_fingerprint),
        "counts": survey.counts,
        "device": devices.pop() if len(devices) == 1 else first.manifest.device.partition(":")[0],
    }
    return PredictionsInfo.model_validate_json(metadata[METADATA_KEY]).model_copy(update=changes)


def _ignored(shards: list[FinishedShard]) -> dict[str, int]:
    """Each shard lists everything, but of containers only its own."""
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
    """Of a shard, on the average."""
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
