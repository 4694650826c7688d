"""The cost of sources other than folders: the same photos from each source, and the listing of ten million keys.

    python -m benchmarks.sources overhead --model scratch --count 1000
    python -m benchmarks.sources listing --folders 10000 --keys 1000
    python -m benchmarks.sources listing --folders 1 --keys 1000000

overhead: `score` on a folder and on the same photos in a bucket of an S3 server on this machine, in tar shards and in
Parquet, here and in the bucket, and as a list; all take their turns, round after round. The server (tests/s3_server.py,
of the extra `dev`) shares the cores, so the bucket's figures hold its work, too; the CPU seconds do not.
listing: a file system of pyarrow that makes keys up is listed by the S3 source, with the names hashed as in a run. Then
it is listed alone, to subtract the time of making keys up.
"""

import argparse
import hashlib
import os
import shutil
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from batchland.images.sources.refs import Ignored
from batchland.images.sources.remote import Remote
from batchland.system.filesystems import OpenUrl
from benchmarks.machine import describe_machine, timed
from benchmarks.models import find_model
from benchmarks.photos import SIZES, draw_photos, photo_files

SHARD_IMAGES = 250


def main() -> None:
    options = _options()
    print({"overhead": _overhead, "listing": _listing, "list": _list}[options.what](options))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("overhead", "listing", "list"))
    parser.add_argument("--model", default="scratch", help="scratch, transfer (both with random weights) or a file")
    parser.add_argument("--size", choices=SIZES, default="small", help="of the drawn photos")
    parser.add_argument("--count", type=int, default=1000, help="of the drawn photos")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folders", type=int, default=10_000)
    parser.add_argument("--keys", type=int, default=1_000, help="in each folder")
    parser.add_argument("--bare", action="store_true", help="for list: without the source")
    parser.add_argument("--work", type=Path, default=Path("build/bench"), help="where photos and models are kept")
    return parser.parse_args()


def _overhead(options: argparse.Namespace) -> str:
    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    from s3_server import S3Server

    model = find_model(options.model, options.work)
    photos = draw_photos(options.work / "photos", options.size, options.count).absolute()
    with tempfile.TemporaryDirectory(dir=options.work) as name:
        server = S3Server(Path(name) / "buckets", Path(name) / "log")
        bucket = server.folder / "bucket"
        bucket.mkdir(parents=True)
        server.start()
        os.environ.update(server.environment)
        try:
            layouts = _lay_out(photos, bucket)
            rounds = [
                {kind: _scored(arguments, model, Path(name)) for kind, arguments in layouts.items()}
                for _ in range(options.rounds)
            ]
        finally:
            server.kill()
    return _table(rounds, options)


def _lay_out(photos: Path, bucket: Path) -> dict[str, list[str]]:
    """The arguments of `score` for each kind of source, with the photos laid there."""
    names = sorted(str(path.relative_to(photos)) for path in photo_files(photos))
    shutil.copytree(photos, bucket / "photos")
    for number, begin in enumerate(range(0, len(names), SHARD_IMAGES)):
        with tarfile.open(bucket / f"shard-{number:03}.tar", "w") as tar:
            for name in names[begin : begin + SHARD_IMAGES]:
                tar.add(photos / name, name)
    rows = pa.table({"image": [(photos / name).read_bytes() for name in names]})
    pq.write_table(rows, bucket / "images.parquet", row_group_size=SHARD_IMAGES, use_dictionary=False)
    (bucket / "list.txt").write_text("\n".join(names))
    shards = f"shard-{{000..{number:03}}}.tar"
    return {
        "folder": [str(photos)],
        "list": [str(photos), "--images", str(bucket / "list.txt")],
        "tar": [str(bucket / shards)],
        "Parquet": [str(bucket / "images.parquet")],
        "S3": ["s3://bucket/photos"],
        "S3, list": ["s3://bucket/photos", "--images", str(bucket / "list.txt")],
        "S3, tar": [f"s3://bucket/{shards}"],
        "S3, Parquet": ["s3://bucket/images.parquet"],
    }


def _scored(arguments: list[str], model: Path, work: Path) -> dict[str, Any]:
    out = work / "out.parquet"
    return timed(
        [
            sys.executable,
            "-m",
            "batchland",
            "score",
            *arguments,
            "--model",
            str(model),
            "--out",
            str(out),
            "--overwrite",
        ]
    )


def _table(rounds: list[dict[str, dict[str, Any]]], options: argparse.Namespace) -> str:
    lines = [
        f"{options.count} photos ({options.size}), model {options.model}; medians of {options.rounds} rounds.",
        "",
        "| source | wall s | of the folder's | ms more an image | CPU ms more an image | peak MB |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for kind in rounds[0]:
        wall = median(found[kind]["wall"] for found in rounds)
        ratio = median(found[kind]["wall"] / found["folder"]["wall"] for found in rounds)
        more = median(found[kind]["wall"] - found["folder"]["wall"] for found in rounds) / options.count * 1000
        cpu = median(found[kind]["cpu"] - found["folder"]["cpu"] for found in rounds) / options.count * 1000
        peak = median(found[kind]["peak_mb"] for found in rounds)
        lines.append(f"| {kind} | {wall:.1f} | {ratio:.2f} | {more:.2f} | {cpu:.2f} | {peak:.0f} |")
    return "\n".join([*lines, "", describe_machine()])


def _listing(options: argparse.Namespace) -> str:
    command = [sys.executable, "-m", "benchmarks.sources", "list"]
    size = ["--folders", str(options.folders), "--keys", str(options.keys)]
    bare, listed = timed([*command, *size, "--bare"]), timed([*command, *size])
    nothing = timed([*command, "--folders", "1", "--keys", "1"])
    count = options.folders * options.keys
    own = listed["cpu"] - bare["cpu"]
    return "\n".join(
        (
            f"{count:,} keys in {options.folders:,} folders: {listed['output'].strip()}",
            (
                f"CPU seconds: {listed['cpu']:.1f}, of which {bare['cpu']:.1f} make keys up; the source's own "
                f"{own / count * 1e6:.2f} us a key, {count / own:,.0f} keys/s"
            ),
            f"peak {listed['peak_mb']:.0f} MB; of a process that lists one key {nothing['peak_mb']:.0f} MB",
            describe_machine(),
        )
    )


def _list(options: argparse.Namespace) -> str:
    keys = MadeUpKeys(options.folders, options.keys)
    filesystem, begin = fs.PyFileSystem(keys), time.perf_counter()
    if options.bare:
        folders = filesystem.get_file_info(fs.FileSelector("bucket"))
        count = len(folders)
        for folder in folders if options.folders > 1 else []:
            count += len(filesystem.get_file_info(fs.FileSelector(folder.path))) - 1
        return f"{count:,} in {time.perf_counter() - begin:.1f} s"
    source = Remote("s3://bucket")
    source._files.__dict__["location"] = OpenUrl(filesystem, "bucket", "s3://bucket")
    names, count = hashlib.sha256(), 0
    for ref in source.images(Ignored()):
        names.update(ref.name.encode() + b"\0")
        count += 1
    return f"{count:,} in {time.perf_counter() - begin:.1f} s, names {names.hexdigest()[:12]}"


class MadeUpKeys(fs.FileSystemHandler):  # type: ignore[misc]
    """A bucket of that many folders with that many keys each. With one folder, the keys are directly in the bucket."""

    def __init__(self, folders: int, keys: int) -> None:
        self.folders = folders
        self.keys = keys

    def get_type_name(self) -> str:
        return "made up"

    def get_file_info_selector(self, selector: fs.FileSelector) -> list[fs.FileInfo]:
        base, files = selector.base_dir, range(self.keys)
        if base == "bucket" and self.folders > 1:
            return [fs.FileInfo(f"bucket/{number:05}", fs.FileType.Directory) for number in range(self.folders)]
        return [fs.FileInfo(f"{base}/IMG_{n:09}.jpg", fs.FileType.File, size=100_000 + n, mtime_ns=n) for n in files]

    def _nothing(self, *args: object) -> None:
        raise NotImplementedError

    copy_file = create_dir = delete_dir = delete_dir_contents = delete_file = delete_root_dir_contents = _nothing
    get_file_info = move = normalize_path = open_append_stream = open_input_file = _nothing
    open_input_stream = open_output_stream = _nothing


if __name__ == "__main__":
    main()
