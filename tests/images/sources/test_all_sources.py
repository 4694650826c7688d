"""The same images have the same rows in every kind of source, except for names and file times."""

import shutil
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from s3_server import Bucket
from toys import COLOURS, options, picture

from batchland import score

KINDS = ["file url", "s3", "tar", "tgz", "s3 tar", "list", "s3 list", "parquet", "s3 parquet", "hugging face"]


@pytest.fixture
def names(photos: Path) -> list[str]:
    (photos / "camera-1/empty.jpg").touch()
    (photos / "camera-1/text.jpg").write_text("no picture")
    return sorted(str(path.relative_to(photos)) for path in photos.rglob("*.jpg"))


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
    kind: str, photos: Path, names: list[str], bucket: Bucket, toy_model: Path, tmp_path: Path
) -> None:
    place = _place(kind, photos, names, bucket)
    images = place.pop("images")
    score(photos, tmp_path / "local.parquet", options(toy_model))
    score(images, tmp_path / "other.parquet", options(toy_model, **place))
    local, other = (pq.read_table(tmp_path / f"{name}.parquet") for name in ("local", "other"))
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
