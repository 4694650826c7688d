"""The same images have the same rows in every kind of source, except for names and file times."""

import errno
import gzip
import shutil
import tarfile
import zipfile
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from archives import tar_of, zip_of
from s3_server import Bucket
from toys import COLOURS, options, picture, write_photos, write_toy_model

from batchland import Shard, score
from batchland.errors import InputError, UnreadableImagesError
from batchland.images.sources import file_patterns
from batchland.images.sources.open import open_source
from batchland.images.sources.refs import Ignored
from batchland.predictions.schema import Counts
from batchland.scoring.plan.write import make_plan

KINDS = ["file url", "s3", "tar", "tgz", "s3 tar", "list", "s3 list", "parquet", "s3 parquet", "hugging face"]


def add_broken(photos: Path) -> list[str]:
    """The names of all images."""
    (photos / "camera-1/empty.jpg").touch()
    (photos / "camera-1/text.jpg").write_text("no picture")
    return sorted(str(path.relative_to(photos)) for path in photos.rglob("*.jpg"))


@pytest.fixture
def names(photos: Path) -> list[str]:
    return add_broken(photos)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """The predictions for the same photos in a folder."""
    folder = tmp_path_factory.mktemp("local")
    add_broken(write_photos(folder / "photos"))
    score(folder / "photos", folder / "p.parquet", options(write_toy_model(folder / "toy.onnx")))
    return pq.read_table(folder / "p.parquet")


def _place(kind: str, photos: Path, names: list[str], bucket: Bucket) -> dict[str, Any]:
    """Put the images where that kind of source finds them; return the options that select it."""
    far, suffix = kind.startswith("s3 "), kind.removeprefix("s3 ")
    folder = bucket.folder if far else photos.parent
    path, where = folder / f"images.{suffix}", bucket.url(f"images.{suffix}") if far else f"{folder}/images.{suffix}"
    if kind == "file url":
        return {"images": f"file://{photos}"}
    if kind == "s3":
        shutil.copytree(photos, bucket.folder / "photos")
        return {"images": bucket.url("photos")}
    if suffix == "list":
        path.write_text("\n".join(names))
        if far:
            shutil.copytree(photos, bucket.folder / "photos")
        return {"images": bucket.url("photos") if far else photos, "image_list": where}
    if suffix == "parquet" or kind == "hugging face":
        rows = [(photos / name).read_bytes() for name in names]
        hugging = kind == "hugging face"
        pq.write_table(pa.table({"image": [{"bytes": row, "path": None} for row in rows] if hugging else rows}), path)
        return {"images": where} if not hugging else {"images": path.rename(folder / "hugging.parquet")}
    with tarfile.open(path, "w:gz" if suffix == "tgz" else "w") as tar:
        for name in names:
            tar.add(photos / name, name)
    return {"images": where}


@pytest.mark.parametrize("kind", KINDS)
def test_rows_do_not_depend_on_where_images_come_from(
    kind: str, photos: Path, names: list[str], local: pa.Table, bucket: Bucket, toy_model: Path, tmp_path: Path
) -> None:
    place = _place(kind, photos, names, bucket)
    images = place.pop("images")
    score(images, tmp_path / "other.parquet", options(toy_model, **place))
    other = pq.read_table(tmp_path / "other.parquet")
    facts = ["image", "modified_at"]
    assert other.drop(facts).equals(local.drop(facts))
    assert other["status"].to_pylist().count("failed") == 8
    prefix = f"{Path(images).name}/" if kind in ("tar", "tgz", "s3 tar") else ""
    wanted = [f"{prefix}{name}" for name in names]
    if kind in ("parquet", "s3 parquet", "hugging face"):
        wanted = [f"{Path(images).name}#{row}" for row in range(len(names))]
    assert other["image"].to_pylist() == wanted


def test_a_process_sees_files_that_were_replaced(toy_model: Path, tmp_path: Path) -> None:
    """Archives and tables stay open between the runs of a process; the next run opens them again."""

    def write(kind: str, colour: str) -> Path:
        data, new, place = picture(COLOURS[colour]), tmp_path / "new", tmp_path / f"images.{kind}"
        if kind == "parquet":
            pq.write_table(pa.table({"image": [data]}), new)
        elif kind == "zip":
            with zipfile.ZipFile(new, "w") as archive:
                archive.writestr("a.jpg", data)
        else:
            (tmp_path / "a.jpg").write_bytes(data)
            with tarfile.open(new, "w:gz" if kind == "tgz" else "w") as tar:
                tar.add(tmp_path / "a.jpg", "a.jpg")
        return new.replace(place)

    for kind in ("tar", "tgz", "zip", "parquet"):
        for colour in COLOURS:
            score(write(kind, colour), tmp_path / "p.parquet", options(toy_model, overwrite=True))
            assert pq.read_table(tmp_path / "p.parquet")["class_index"].to_pylist() == [list(COLOURS).index(colour)]


def tar(content: bytes) -> bytes:
    return tar_of({"a.jpg": content}, compression="")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("d.tar", gzip.compress(tar(b"x")), "the shard cannot be read from byte 0 on: it is packed by gzip; name it"),
        ("d.tar", b"", "the shard cannot be read from byte 0 on: empty file"),
        ("d.tgz", gzip.compress(tar(b"x"))[:20], "the shard cannot be read from byte 0 on: its gzip stream ends too"),
        (
            "d.zip",
            zip_of({"a.jpg": b"x"})[:-30],
            "the zip file cannot be read: the list of its members",
        ),
        ("d.zip", b"", "the zip file cannot be read: it is not a zip file"),
        ("d.parquet", b"no table", "the table cannot be read: Parquet magic bytes not found in footer"),
    ],
    ids=["packed tar", "empty tar", "cut gzip", "cut zip", "empty zip", "table"],
)
def test_a_source_of_which_nothing_can_be_read_ends_the_run(
    tmp_path: Path, toy_model: Path, name: str, content: bytes, reason: str
) -> None:
    """One bad file among good ones is a failed row; nothing but bad ones is like a folder that is missing."""
    path, out = tmp_path / name, tmp_path / "p.parquet"
    path.write_bytes(content)
    for run in (
        lambda: score(path, out, options(toy_model)),
        lambda: score(path, tmp_path / "shards", options(toy_model, shard=Shard(index=0, count=1))),
        lambda: make_plan(path, tmp_path / "plan"),
    ):
        with pytest.raises(UnreadableImagesError) as caught:
            run()
        assert (str(caught.value).startswith(f"{path}: {reason}"), caught.value.exit_code) == (True, 2)
    assert not out.exists()
    (tmp_path / f"e{path.suffix}").write_bytes(content)
    pattern = f"{tmp_path}/{{d,e}}{path.suffix}"
    with pytest.raises(UnreadableImagesError) as caught:
        score(pattern, out, options(toy_model))
    assert str(caught.value).startswith(f"{pattern}: none of its 2 files can be read; {name}/: {reason}")


def test_an_unreadable_file_before_a_good_one_is_a_failed_row(tmp_path: Path, toy_model: Path) -> None:
    pq.write_table(pa.table({"image": [picture()]}), tmp_path / "2.parquet")
    for suffix, content in (("tar", tar(picture())), ("zip", zip_of({"a.jpg": picture()})), ("parquet", b"")):
        (tmp_path / f"1.{suffix}").write_bytes(b"damaged")
        if content:
            (tmp_path / f"2.{suffix}").write_bytes(content)
        summary = score(f"{tmp_path}/{{1,2}}.{suffix}", tmp_path / f"{suffix}.out", options(toy_model))
        assert summary.manifest.counts == Counts(listed=2, ok=1, failed=1, failed_by_code={"unreadable": 1})


def test_an_archive_on_a_failing_disk_is_no_usage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "d.tar").write_bytes(tar(b"x"))
    opened = file_patterns.open_file
    monkeypatch.setattr(file_patterns, "open_file", lambda path: Unreadable(opened(path)))
    with pytest.raises(InputError, match=r"d\.tar: cannot be read \(Input/output error\)$"):
        next(open_source(tmp_path / "d.tar").images(Ignored()))


class Unreadable:
    """An open file that fails when it is read."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file

    def __enter__(self) -> "Unreadable":
        return self

    def __exit__(self, *exc: object) -> None:
        self.file.close()

    def read(self, size: int) -> bytes:
        raise OSError(errno.EIO, "Input/output error")
