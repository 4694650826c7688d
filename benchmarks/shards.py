"""The cost of shards: merging a thousand of them, and scoring with two at once instead of one process.

    python -m benchmarks.shards merge --shards 1000 --rows 1000000
    python -m benchmarks.shards in-place --shards 1000 --rows 100000000
    python -m benchmarks.shards bucket --shards 1000 --rows 100000
    python -m benchmarks.shards assign --rows 10000000
    python -m benchmarks.shards throughput --model scratch --count 3000

merge: draws finished shards (rows of 50 classes with their top 5, no images behind them) and merges them, in a
separate process. in-place: the same for the shards of a plan, which are not rewritten; one shard is drawn, and all
others are hard links to its files, so their bytes come from the page cache. bucket: shards in a bucket of an S3 server
on this machine (rclone): those of a plan merged in place, others into one object. assign: finds the names of a shard
among that many names, as they would come from a listing. throughput: `score` on all cores, against two shards at once
on half of the cores each, and their merge; each round runs both ways.
"""

import argparse
import hashlib
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batchland.images.sources.refs import ImageRef
from batchland.models.card import class_names
from batchland.predictions.layout import manifest_path
from batchland.predictions.schema import (
    METADATA_KEY,
    PREDICTIONS,
    SHARD_PREDICTIONS,
    Counts,
    Manifest,
    ModelInfo,
    PredictionsInfo,
    Seconds,
    WrittenFile,
)
from batchland.scoring.options import ScoreOptions, Shard
from batchland.scoring.shard import ROW_GROUP_SIZE, ShardAssignment
from benchmarks.models import find_model
from benchmarks.photos import SIZES, draw_photos

CLASSES = class_names([f"{number:02}.Class_{number}" for number in range(50)])
MODEL = ModelInfo(name="drawn", architecture="none", sha256="0" * 64, file="none.onnx")
RUN: dict[str, Any] = {"model": MODEL.sha256, "provider": "CPUExecutionProvider", "images": "/photos"}


def main() -> None:
    options = _options()
    ways = {"merge": _merge, "in-place": _in_place, "bucket": _bucket, "assign": _assign, "throughput": _throughput}
    print(ways[options.what](options))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("merge", "in-place", "bucket", "assign", "throughput"))
    parser.add_argument("--shards", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=1_000_000, help="images of all shards together")
    parser.add_argument("--model", default="scratch", help="scratch, transfer (both with random weights) or a file")
    parser.add_argument("--size", choices=SIZES, default="small", help="of the drawn photos")
    parser.add_argument("--count", type=int, default=1000, help="of the drawn photos")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--work", type=Path, default=Path("build/bench"), help="where photos, models and shards are kept"
    )
    return parser.parse_args()


def _merge(options: argparse.Namespace) -> str:
    folder = options.work / f"shards-{options.shards}-{options.rows}"
    if not folder.exists():
        draw_shards(folder, options.shards, options.rows)
    out = options.work / "merged.parquet"
    run = _together((_merging(folder, out), _cores()))
    sizes = [path.stat().st_size for path in folder.rglob("*.parquet")]
    manifests = [path.stat().st_size for path in folder.rglob("_manifest.json")]
    return (
        "| shards | rows | their files MB | a manifest KB | merged MB | wall s | CPU s | rows/s | peak MB |\n"
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        f"| {options.shards} | {options.rows} | {sum(sizes) / 1e6:.1f} | {median(manifests) / 1e3:.1f} "
        f"| {out.stat().st_size / 1e6:.1f} | {run.wall:.1f} | {run.cpu:.1f} | {options.rows / run.wall:.0f} "
        f"| {run.peak_mb:.0f} |"
    )


def _in_place(options: argparse.Namespace) -> str:
    folder = options.work / f"ranges-{options.shards}-{options.rows}"
    if not folder.exists():
        draw_ranges(folder, options.shards, options.rows)
    (folder / "_manifest.json").unlink(missing_ok=True)
    command = [sys.executable, "-m", "batchland", "merge", str(folder), "--in-place"]
    run = _together((command, _cores()))
    size = sum(path.stat().st_size for path in folder.rglob("*.parquet"))
    manifest = (folder / "_manifest.json").stat().st_size
    return (
        "| shards | rows | parts | their files GB | the manifest MB | wall s | CPU s | rows/s of CPU | peak MB |\n"
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        f"| {options.shards} | {options.rows:,} | {len(list(folder.rglob('*.parquet'))):,} | {size / 1e9:.1f} "
        f"| {manifest / 1e6:.1f} | {run.wall:.1f} | {run.cpu:.1f} | {options.rows / run.cpu:,.0f} | {run.peak_mb:.0f} |"
    )


def _bucket(options: argparse.Namespace) -> str:
    """Shards in a bucket of an S3 server on this machine: those of a plan merged in place, others into one object."""
    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    from s3_server import S3Server

    with tempfile.TemporaryDirectory() as name:
        server = S3Server(Path(name) / "buckets", Path(name) / "log", directories_kept="1h")
        draw_ranges(server.folder / "bucket" / "planned", options.shards, options.rows)
        draw_shards(server.folder / "bucket" / "dealt", options.shards, options.rows)
        server.start()
        os.environ.update(server.environment)
        lines = []
        try:
            for arguments in (["planned", "--in-place"], ["dealt", "--out", "s3://bucket/merged.parquet"]):
                server.requests()
                command = [sys.executable, "-m", "batchland", "merge", f"s3://bucket/{arguments[0]}", *arguments[1:]]
                run = _together((command, _cores()))
                asked = Counter(request.split()[0] for request in server.requests())
                lines.append(
                    f"| {arguments[1]} | {options.shards} | {options.rows:,} | {asked['LIST']:,} | {asked['GET']:,} "
                    f"| {asked.total():,} | {run.wall:.1f} | {run.cpu:.1f} | {run.peak_mb:.0f} |"
                )
        finally:
            server.kill()
    return (
        "| merge | shards | rows | LIST | GET | requests | wall s | CPU s, without the server's | peak MB |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n" + "\n".join(lines)
    )


def draw_ranges(folder: Path, count: int, rows: int) -> None:
    """Finished shards of a plan, with the same number of rows each: all are links to the files of the first one."""
    temporary = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(temporary, ignore_errors=True)
    each = rows // count
    names = [f"camera-{number // 10_000:05}/{number:09}.jpg" for number in range(each)]
    assignment = ShardAssignment(Shard(index=0, count=count))
    _draw_shard(temporary, Shard(index=0, count=count), names, list(range(each)), assignment, PREDICTIONS)
    first = temporary / Shard(index=0, count=count).folder_name
    drawn = Manifest.model_validate_json(manifest_path(first).read_text())
    assert drawn.shard is not None
    for index in range(count):
        shard = temporary / Shard(index=index, count=count).folder_name
        shard.mkdir(exist_ok=True)
        for file in drawn.files if index else ():
            (shard / file.path).hardlink_to(first / file.path)
        info = drawn.shard.model_copy(
            update={"index": index, "dealt_by": "range", "listed": each * count, "first": each * index,
                    "facts_sha256": tuple(file.sha256 for file in drawn.files)}
        )  # fmt: skip
        manifest_path(shard).write_text(drawn.model_copy(update={"shard": info}).model_dump_json(indent=2) + "\n")
    temporary.rename(folder)


def _assign(options: argparse.Namespace) -> str:
    assignment = ShardAssignment(Shard(index=0, count=options.shards))
    names = (f"camera-{number // 10_000:05}/{number:09}.jpg" for number in range(options.rows))
    begin = time.perf_counter()
    own = sum(1 for _ in assignment.images(ImageRef(name, b"") for name in names))
    seconds = time.perf_counter() - begin
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return (
        "| names | shards | of one shard | seconds | names/s | peak MB |\n| ---: | ---: | ---: | ---: | ---: | ---: |\n"
        f"| {options.rows} | {options.shards} | {own} | {seconds:.1f} | {options.rows / seconds:.0f} | {peak_mb:.0f} |"
    )


def draw_shards(folder: Path, count: int, rows: int) -> None:
    """Finished shards of a listing of `rows` images, as `score --shard` leaves them."""
    temporary = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(temporary, ignore_errors=True)
    names = [f"camera-{number // 10_000:05}/{number:09}.jpg" for number in range(rows)]
    own: list[list[int]] = [[] for _ in range(count)]
    assignment = ShardAssignment(Shard(index=0, count=count))
    for _ in assignment.images(ImageRef(name, b"") for name in names):
        pass
    for position, name in enumerate(names):
        own[Shard.owner(name, count)].append(position)
    for index in range(count):
        _draw_shard(temporary, Shard(index=index, count=count), names, own[index], assignment)
    temporary.rename(folder)


def _draw_shard(
    out: Path,
    shard: Shard,
    names: list[str],
    positions: list[int],
    assignment: ShardAssignment,
    schema: pa.Schema = SHARD_PREDICTIONS,
) -> None:
    folder = out / shard.folder_name
    folder.mkdir(parents=True)
    counts = Counts(listed=len(positions), ok=len(positions), failed=0, failed_by_code={})
    facts: dict[str, Any] = {
        "run_id": "drawn", "model": MODEL, "images": "/photos", "device": "cpu", "provider": RUN["provider"],
        "counts": counts, "versions": {},
    }  # fmt: skip
    info = PredictionsInfo(**facts, classes=CLASSES, batch_size=32, top_k=5)
    options = ScoreOptions(shard=shard)
    files = []
    for part, begin in enumerate(range(0, len(positions), options.part_size)):
        table = _rows(names, positions[begin : begin + options.part_size], schema)
        path = folder / f"part-{part:06d}.parquet"
        metadata = {METADATA_KEY: info.model_dump_json().encode()}
        table = table.replace_schema_metadata(metadata)
        group = ROW_GROUP_SIZE if schema is SHARD_PREDICTIONS else max(1, table.num_rows)
        pq.write_table(table, path, compression="zstd", row_group_size=group)
        files.append(_described(path, table.num_rows))
    manifest = Manifest(
        **facts,
        created_at="2026-11-25T00:00:00+00:00",
        config=options.model_dump(mode="json"),
        input_fingerprint="0" * 64,
        ignored={},
        resumed_images=0,
        seconds=Seconds(list=1, read=1, decode=1, infer=1, write=1, total=5),
        images_per_second=1,
        files=tuple(files),
        host=f"node-{shard.index}",
        cores=1,
        shard=assignment.info(RUN).model_copy(update={"index": shard.index}),
    )
    manifest_path(folder).write_text(manifest.model_dump_json(indent=2) + "\n")


def _described(path: Path, rows: int) -> WrittenFile:
    content = path.read_bytes()
    return WrittenFile(path=path.name, rows=rows, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def _rows(names: list[str], positions: list[int], schema: pa.Schema) -> pa.Table:
    """Rows as varied as those of a real model: probabilities do not compress."""
    count = len(positions)
    rng = np.random.default_rng(positions[0])
    probabilities = -np.sort(-rng.dirichlet(np.full(len(CLASSES), 0.1), count).astype(np.float32), axis=1)[:, :5]
    classes = rng.permuted(np.tile(np.arange(len(CLASSES), dtype=np.int32), (count, 1)), axis=1)[:, :5]
    labels = np.array([name.label for name in CLASSES])
    top_k = [
        [{"label": labels[c], "class_index": c, "probability": p} for c, p in zip(row_classes, row, strict=True)]
        for row_classes, row in zip(classes.tolist(), probabilities.tolist(), strict=True)
    ]
    columns = {
        "image": [names[position] for position in positions], "status": ["ok"] * count,
        "error_code": [None] * count, "error_message": [None] * count, "label": labels[classes[:, 0]],
        "class_index": classes[:, 0], "probability": probabilities[:, 0],
        "margin": probabilities[:, 0] - probabilities[:, 1], "top_k": top_k,
        "width": np.full(count, 500), "height": np.full(count, 375), "file_size": rng.integers(30_000, 90_000, count),
        "modified_at": rng.integers(1_700_000_000_000_000, 1_760_000_000_000_000, count), "position": positions,
    }  # fmt: skip
    arrays = [_array(field, columns, count, rng) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def _array(field: pa.Field, columns: dict[str, Any], count: int, rng: np.random.Generator) -> pa.Array:
    """A column; figures of pictures and answers are drawn, and columns of another kind are null."""
    if field.name in columns:
        return pa.array(columns[field.name], field.type)
    if field.name == "sha256":
        return pa.array([rng.bytes(32).hex() for _ in range(count)], field.type)
    if field.name == "log_probabilities":
        values = rng.normal(-4, 2, (count, len(CLASSES))).astype(np.float16)
        return pa.array(list(values), field.type)
    if pa.types.is_floating(field.type):
        return pa.array(rng.random(count, np.float32), field.type)
    return pa.nulls(count, field.type)


def _throughput(options: argparse.Namespace) -> str:
    model = find_model(options.model, options.work)
    images = draw_photos(options.work / "photos", options.size, options.count)
    rounds = []
    for _ in range(options.rounds):
        out = options.work / "plain.parquet"
        plain = _together((_scoring(images, model, "--out", str(out)), _cores())).wall
        rounds.append({"plain score": plain, **_sharded(options.work, images, model, out)})
    lines = ["| way | wall s | images/s | of plain score |", "| --- | ---: | ---: | ---: |"]
    for way in rounds[0]:
        wall = median(each[way] for each in rounds)
        ratio = median(each["plain score"] / each[way] for each in rounds)
        lines.append(f"| {way} | {wall:.2f} | {options.count / wall:.1f} | {ratio:.2f} |")
    return "\n".join(lines)


def _sharded(work: Path, images: Path, model: Path, plain: Path) -> dict[str, float]:
    """Wall seconds of two shards at once, half of the cores each, and of their merge."""
    folder, merged = work / "two-shards", work / "two-merged.parquet"
    halves = np.array_split(sorted(_cores()), 2)
    scoring = [_scoring(images, model, "--out", str(folder), "--shard", f"{index}/2") for index in (0, 1)]
    shards = _together(*((command, half.tolist()) for command, half in zip(scoring, halves, strict=True))).wall
    merging = _together((_merging(folder, merged), _cores())).wall
    print(f"byte for byte the same: {merged.read_bytes() == plain.read_bytes()}", file=sys.stderr)
    return {"two shards at once": shards, "two shards at once, and their merge": shards + merging}


def _scoring(images: Path, model: Path, *arguments: str) -> list[str]:
    command = [sys.executable, "-m", "batchland", "score", str(images), "--model", str(model), "--device", "cpu"]
    return [*command, "--overwrite", *arguments]


def _merging(folder: Path, out: Path) -> list[str]:
    return [sys.executable, "-m", "batchland", "merge", str(folder), "--out", str(out), "--overwrite"]


def _cores() -> set[int]:
    return os.sched_getaffinity(0)


class Run(NamedTuple):
    wall: float
    cpu: float
    peak_mb: float
    """Peak memory of the largest process."""


def _together(*commands: tuple[list[str], Iterable[int]]) -> Run:
    """Run commands at once, each on its cores, until all are done."""
    begin = time.perf_counter()
    running = []
    for command, cores in commands:
        pinned = ["taskset", "--cpu-list", ",".join(map(str, sorted(cores))), *command]
        running.append(subprocess.Popen(pinned, stdout=subprocess.DEVNULL))
    ends = [os.wait4(process.pid, 0) for process in running]
    if any(status for _, status, _ in ends):
        raise SystemExit("a command failed")
    used = [usage for _, _, usage in ends]
    cpu = sum(usage.ru_utime + usage.ru_stime for usage in used)
    return Run(time.perf_counter() - begin, cpu, max(usage.ru_maxrss for usage in used) / 1024)


if __name__ == "__main__":
    main()
