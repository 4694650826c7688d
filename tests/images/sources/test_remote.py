"""Images in an S3 bucket have the same names, order, reads and errors as those of a folder."""

import os
import pickle
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from commands import batchland
from pyarrow import fs
from s3_server import SECRET_KEY, Bucket, S3Server, new_bucket
from toys import Stop, contents, options, picture, stop_after

from batchland import score
from batchland.errors import ImageError, InputError, UsageError
from batchland.images.sources import refs
from batchland.images.sources.folder import list_images
from batchland.images.sources.open import open_source
from batchland.images.sources.refs import Ignored, read_image
from batchland.images.sources.remote import Remote, RemoteFiles
from batchland.scoring.account import Progress
from batchland.system import filesystems
from batchland.system.filesystems import OpenUrl

NAMES = [
    "a.jpg",
    "a/1.JPG",
    "a/b/2.png",
    "a b+c%25/ü #?&=.jpg",
    "a-b/3.jpeg",
    "camera/4.txt",
    "camera/.hidden.jpg",
    ".hidden/5.jpg",
    "no-extension",
]


@pytest.fixture
def filled(bucket: Bucket, tmp_path: Path) -> tuple[Bucket, Path]:
    """The same files below a prefix of a bucket and in a folder."""
    for name in NAMES:
        for root in (bucket.folder / "photos", tmp_path / "photos"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(name.encode())
            os.utime(root / name, (1_700_000_000, 1_700_000_000))
    return bucket, tmp_path / "photos"


def test_bucket_is_listed_like_a_folder(filled: tuple[Bucket, Path]) -> None:
    bucket, folder = filled
    here, there = Ignored(), Ignored()
    local = list(list_images(folder, ignored=here))
    remote = list(open_source(bucket.url("photos")).images(there))
    assert [ref.name for ref in remote] == [ref.name for ref in local]
    assert [read_image(ref) for ref in remote] == [read_image(ref) for ref in local]
    assert [ref.store.facts(ref.path) for ref in remote] == [ref.store.facts(ref.path) for ref in local]
    assert there.counts == here.counts


def test_a_time_that_a_listing_lacks_is_requested(filled: tuple[Bucket, Path]) -> None:
    """Some servers list a new object without its time, which mode "new" compares."""
    bucket, _ = filled
    size = len("a.jpg")
    without = RemoteFiles(bucket.url("photos")).ref("a.jpg", size, 0)
    assert without.store.facts(without.path) == (size, 1_700_000_000_000_000)


def test_folder_takes_one_request_and_image_two(filled: tuple[Bucket, Path]) -> None:
    bucket, _ = filled
    bucket.server.requests()
    images = list(open_source(bucket.url("photos")).images(Ignored()))
    assert bucket.server.requests() == ["LIST BUCKET"] * 6  # the folder and its five visible ones
    for ref in images:
        read_image(ref)
    assert sorted(bucket.server.requests()) == ["GET OBJECT"] * 5 + ["HEAD OBJECT"] * 5
    assert all(ref.store.facts(ref.path) for ref in images)
    assert bucket.server.requests() == []


def test_facts_of_a_remote_image_are_those_when_it_is_read(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects are replaced, deleted or made too large after they are listed and before they are read."""
    monkeypatch.setattr(refs, "MAX_FILE_BYTES", 1000)
    for name in ("changed.jpg", "gone.jpg", "huge.jpg", "empty.jpg"):
        (bucket.folder / name).write_bytes(b"" if name == "empty.jpg" else b"data")
    changed, empty, gone, huge = open_source(bucket.url()).images(Ignored())
    (bucket.folder / "changed.jpg").write_bytes(b"new data")
    os.utime(bucket.folder / "changed.jpg", (1_700_000_000, 1_700_000_000))
    (bucket.folder / "gone.jpg").unlink()
    (bucket.folder / "huge.jpg").write_bytes(bytes(1001))
    time.sleep(0.1)  # for the server's own cache
    assert read_image(changed) == (b"new data", 8, 1_700_000_000_000_000)
    assert read_image(empty).data == b""
    failures = {}
    for ref in (gone, huge):
        with pytest.raises(ImageError) as caught:
            read_image(ref)
        failures[ref.name] = (caught.value.code, str(caught.value))
    assert failures == {
        "gone.jpg": ("vanished", "No such file or directory"),
        "huge.jpg": ("too_large", "1001 bytes, more than 1000"),
    }


@pytest.mark.parametrize(
    ("place", "changes", "message"),
    [
        ("s3://no-such-bucket/photos", {}, "s3://no-such-bucket/photos: there is no such bucket; check its name, the "),
        ("s3://BUCKET/no/such", {}, "s3://BUCKET/no/such: does not exist; give a folder of images"),
        ("s3://BUCKET/a.jpg", {}, "s3://BUCKET/a.jpg: is not a folder; give the folder that contains it"),
        (
            "s3://BUCKET/",
            {"AWS_SECRET_ACCESS_KEY": "guessed"},
            "s3://BUCKET: access is refused (AWS Error SIGNATURE_DOES_NOT_MATCH during ListObjectsV2 operation: The ",
        ),
        (
            "s3://someone:guessed@BUCKET/",
            {},
            "s3://BUCKET: access is refused (AWS Error INVALID_ACCESS_KEY_ID during ListObjectsV2 operation: The ",
        ),
        (
            "s3://BUCKET?colour=red",
            {},
            "s3://BUCKET/: the URL cannot be used; look at the options behind its `?`, see ",
        ),
        (
            "ftp://host/photos",
            {},
            "ftp://host/: no such kind of storage; give a path, or a URL of s3, gs, abfs, hdfs or",
        ),
    ],
)
def test_unusable_remote_source_fails_at_once(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, place: str, changes: dict[str, str], message: str
) -> None:
    (bucket.folder / "a.jpg").write_bytes(picture())
    for variable, value in changes.items():
        monkeypatch.setenv(variable, value)
    filesystems._open.cache_clear()  # the environment has changed
    with pytest.raises(UsageError) as caught:
        next(open_source(place.replace("BUCKET", bucket.name)).images(Ignored()))
    assert str(caught.value).startswith(message.replace("BUCKET", bucket.name))
    filesystems._open.cache_clear()


def test_unreachable_server_is_an_input_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"^s3://photos: does not answer \(AWS Error NETWORK_CONNECTION .*; check the"):
        open_source("s3://me:secret@photos?endpoint_override=127.0.0.1:1&scheme=http&region=eu-west-1").images(
            Ignored()
        )


def test_hdfs_without_hadoop_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", "/nowhere")
    with pytest.raises(UsageError, match=r"^hdfs://name:8020/: hdfs needs Java and Hadoop's native library; set JAVA_"):
        open_source("hdfs://name:8020/photos").images(Ignored())


def test_file_url_is_a_local_folder(photos: Path) -> None:
    assert open_source(f"file://{photos}").name == str(photos)


def test_credentials_are_not_written_anywhere(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, toy_model: Path, tmp_path: Path
) -> None:
    bucket = new_bucket(s3_server, monkeypatch)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    (bucket.folder / "a b.jpg").write_bytes(picture())
    url = f"s3://test-key:{SECRET_KEY.replace('/', '%2F').replace('+', '%2B')}@{bucket.name}/"
    command = ["score", url, "--out", str(tmp_path / "out"), "--model", str(toy_model)]
    result = batchland(*command)
    assert result.output.startswith(f"Scored 1 image of s3://{bucket.name}/ with toy on cpu"), result.output
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert f'"images": "s3://{bucket.name}"'.encode() in written
    assert b"secret" not in written


def test_rerun_completes_a_run_after_its_storage_was_killed(
    own_s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, toy_model: Path, photos: Path, tmp_path: Path
) -> None:
    bucket = new_bucket(own_s3_server, monkeypatch)
    shutil.copytree(photos, bucket.folder / "photos")
    url = bucket.url("photos")
    score(url, tmp_path / "undisturbed", options(toy_model))

    def power_cut(progress: Progress) -> None:
        if progress.done >= 32:
            monkeypatch.setattr(filesystems, "PATIENCE_SECONDS", 0.0)
            own_s3_server.kill()

    with pytest.raises(InputError, match=r"does not answer any more \(AWS Error NETWORK_CONNECTION.*run the same"):
        score(url, tmp_path / "killed", options(toy_model), on_progress=power_cut)
    own_s3_server.start()
    summary = score(url, tmp_path / "killed", options(toy_model))
    assert summary.manifest.resumed_images > 0
    assert contents(tmp_path / "killed") == contents(tmp_path / "undisturbed")


def test_resumed_run_requests_only_missing_images(
    bucket: Bucket, toy_model: Path, photos: Path, tmp_path: Path
) -> None:
    shutil.copytree(photos, bucket.folder / "photos")

    with pytest.raises(Stop):
        score(bucket.url("photos"), tmp_path / "out", options(toy_model), on_progress=stop_after(48))
    bucket.server.requests()
    summary = score(bucket.url("photos"), tmp_path / "out", options(toy_model))
    rest = 60 - summary.manifest.resumed_images
    assert 12 <= rest < 60
    requests = Counter(bucket.server.requests())
    assert requests.pop("HEAD OBJECT") >= rest  # this server lists some objects without a time while others are read
    assert requests == {"GET OBJECT": rest, "LIST BUCKET": 4}


def test_retry_failed_scores_failed_rows_of_a_bucket(
    bucket: Bucket, toy_model: Path, photos: Path, tmp_path: Path
) -> None:
    shutil.copytree(photos, bucket.folder / "photos")
    score(bucket.url("photos"), tmp_path / "out.parquet", options(toy_model))
    for path in (bucket.folder / "photos").rglob("*7.jpg"):
        path.write_bytes(picture())
    bucket.server.requests()
    summary = score(bucket.url("photos"), tmp_path / "out.parquet", options(toy_model, retry_failed=True))
    assert (summary.manifest.counts.ok, summary.manifest.kept_images) == (60, 54)
    assert sorted(bucket.server.requests()) == ["GET OBJECT"] * 6 + ["HEAD OBJECT"] * 6
    assert pq.read_table(tmp_path / "out.parquet")["status"].to_pylist() == ["ok"] * 60


def test_remote_store_is_pickled_without_its_connection(filled: tuple[Bucket, Path]) -> None:
    first = next(open_source(filled[0].url("photos")).images(Ignored()))
    read_image(first)
    assert read_image(pickle.loads(pickle.dumps(first))) == read_image(first)


def test_scoring_a_bucket_loads_neither_torch_nor_pandas(bucket: Bucket, toy_model: Path, tmp_path: Path) -> None:
    (bucket.folder / "a.jpg").write_bytes(picture())
    code = (
        "import sys; from batchland import ScoreOptions, score; score(sys.argv[1], sys.argv[2], "
        "ScoreOptions(model=sys.argv[3])); print({'torch', 'pyarrow.dataset', 'pandas'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", code, bucket.url(), str(tmp_path / "out"), str(toy_model)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "set()\n"


class SameFolderAgain(fs.FileSystemHandler):  # type: ignore[misc]
    """As Arrow lists `a/b.jpg` and `a//c.jpg` of a bucket: the folder without a name has the path of the one above."""

    def get_file_info_selector(self, selector: fs.FileSelector) -> list[fs.FileInfo]:
        below = [fs.FileInfo("bucket/a/b.jpg", fs.FileType.File, size=1)] if selector.base_dir == "bucket/a" else []
        return [fs.FileInfo("bucket/a", fs.FileType.Directory), *below]

    def _nothing(self, *args: object) -> None:
        raise AssertionError(f"a listing needs no {args}")

    copy_file = create_dir = delete_dir = delete_dir_contents = delete_file = delete_root_dir_contents = _nothing
    get_file_info = move = normalize_path = open_append_stream = open_input_file = _nothing
    open_input_stream = open_output_stream = _nothing

    def get_type_name(self) -> str:
        return "s3"


def test_keys_with_a_double_slash_have_an_unreadable_row() -> None:
    source = Remote("s3://bucket")
    source._files.__dict__["location"] = OpenUrl(fs.PyFileSystem(SameFolderAgain()), "bucket", "s3://bucket")
    reason = "folders without a name cannot be listed; rename what has // in its key"
    images = list(source.images(Ignored()))
    assert [(ref.name, ref.error) for ref in images] == [("a//", ("unreadable", reason)), ("a/b.jpg", None)]
    assert list(source.retry_refs("a//")) == images[:1]
