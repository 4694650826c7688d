"""Accuracy over parts of the images."""

import os
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from evaluation_data import Row, write_label_folders, write_predictions
from PIL import Image
from scipy.stats import fisher_exact
from statsmodels.stats.multitest import multipletests
from toys import picture

from batchland.evaluation.evaluate import evaluate
from batchland.evaluation.options import EvaluateOptions
from batchland.evaluation.schema import Slice

FOLDERS = ("a", "b")
RIGHT, WRONG = (0.9, 0.1), (0.2, 0.8)


def slices_of(
    tmp_path: Path, rows: list[Row], *, table: bool = False, images: Path | None = None
) -> dict[str, list[Slice]]:
    """By dimension. All images are of class `a`; the labels are folders, or a table."""
    predictions = write_predictions(tmp_path / "preds.parquet", FOLDERS, rows)
    if table:
        labels = tmp_path / "labels.csv"
        labels.write_text("image,label\n" + "".join(f"{row.image},a\n" for row in rows))
    else:
        labels = write_label_folders(tmp_path / "labels", [row.image for row in rows])
    found: dict[str, list[Slice]] = {}
    for part in evaluate(predictions, labels, EvaluateOptions(images=images)).summary.slices:
        found.setdefault(part.dimension, []).append(part)
    return found


def row(number: int, *, right: bool = True, name: str = "a/{}.jpg", **facts: int) -> Row:
    return Row(name.format(number), RIGHT if right else WRONG, **facts)


def test_dimensions_with_one_value_are_left_out(tmp_path: Path) -> None:
    assert slices_of(tmp_path, [row(number) for number in range(4)]) == {}


def test_an_own_column_named_like_a_slice_is_kept_apart(tmp_path: Path) -> None:
    rows = [row(number, name="a/{}." + ("png" if number % 2 else "jpg")) for number in range(8)]
    predictions, labels = write_predictions(tmp_path / "p.parquet", FOLDERS, rows), tmp_path / "l.csv"
    labels.write_text("image,label,format\n" + "".join(f"{each.image},a,{n // 2 % 2}\n" for n, each in enumerate(rows)))
    found = evaluate(predictions, labels, EvaluateOptions(by=("format",))).summary.slices
    assert [(part.dimension, part.value, part.images) for part in found] == [
        ("format", "jpg", 4),
        ("format", "png", 4),
        ("column format", "0", 4),
        ("column format", "1", 4),
    ]


def test_small_pictures_are_worse(tmp_path: Path) -> None:
    rows = [row(number, right=number < 3, width=100, height=90) for number in range(20)]
    rows += [row(number, right=number < 38, width=2000, height=1500) for number in range(20, 40)]
    found = slices_of(tmp_path, rows)
    assert list(found) == ["image size"]
    small, large = found["image size"]
    assert (small.value, small.images, small.accuracy.value) == ("under 0.1 megapixels", 20, 3 / 20)
    assert (large.value, large.images, large.accuracy.value) == ("2 to 8 megapixels", 20, 18 / 20)
    assert small.difference == pytest.approx(-0.75)
    assert large.difference == pytest.approx(0.75)
    raw = fisher_exact([[3, 17], [18, 2]]).pvalue
    assert (small.p_value, large.p_value) == pytest.approx((2 * raw, 2 * raw))  # Holm, of two


def test_shapes_formats_and_file_sizes(tmp_path: Path) -> None:
    rows = [
        row(0, width=300, height=400, file_size=10_000),
        row(1, width=400, height=400, name="a/{}.JPEG"),
        row(2, width=600, height=400, name="a/{}.png", file_size=5_000_000),
        row(3, width=600, height=400, name="a/{}", file_size=5_000_000),
    ]
    found = slices_of(tmp_path, rows, table=True)
    assert {name: [(part.value, part.images) for part in parts] for name, parts in found.items()} == {
        "shape": [("portrait", 1), ("square", 1), ("landscape", 2)],
        "file size": [("under 20 kB", 1), ("20 to 100 kB", 1), ("2000 kB and more", 2)],
        "format": [("jpg", 2), ("none", 1), ("png", 1)],
    }


def test_source_folders_exclude_the_class_level(tmp_path: Path) -> None:
    rows = [row(0, name="a/web/{}.jpg"), row(1, name="a/web/{}.jpg"), row(2, name="a/{}.jpg")]
    for table in (False, True):
        parts = slices_of(tmp_path / str(table), rows, table=table)["source folder"]
        assert [(part.value, part.images) for part in parts] == [("web", 2), ("", 1)]


def test_the_class_level_may_be_deeper(tmp_path: Path) -> None:
    names = ("train/a/1.jpg", "train/b/2.jpg", "test/a/3.jpg", "test/b/4.jpg")
    predictions = write_predictions(tmp_path / "p.parquet", FOLDERS, [Row(name, RIGHT) for name in names])
    labels = tmp_path / "l.csv"
    labels.write_text("image,label\n" + "".join(f"{name},{name.split('/')[1]}\n" for name in names))
    parts = [part for part in evaluate(predictions, labels).summary.slices if part.dimension == "source folder"]
    assert [(part.value, part.images) for part in parts] == [("test", 2), ("train", 2)]


def test_source_folders_without_a_class_level(tmp_path: Path) -> None:
    names = ("2025/web/1.jpg", "2025/web/2.jpg", "2026/3.jpg", "2026/4.jpg")
    predictions = write_predictions(tmp_path / "p.parquet", FOLDERS, [Row(name, RIGHT) for name in names])
    labels = tmp_path / "l.csv"
    labels.write_text("image,label\n" + "".join(f"{name},{'abab'[index]}\n" for index, name in enumerate(names)))
    parts = [part for part in evaluate(predictions, labels).summary.slices if part.dimension == "source folder"]
    assert [(part.value, part.images) for part in parts] == [("2025/web", 2), ("2026", 2)]


def test_many_folders_are_merged(tmp_path: Path) -> None:
    rows = [row(number, name=f"a/camera {number:02}/{{}}.jpg") for number in range(15)]
    rows += [row(number, name="a/camera 14/{}.jpg") for number in range(15, 20)]
    parts = slices_of(tmp_path, rows)["source folder"]
    assert [(part.value, part.images) for part in parts] == [
        ("camera 14", 6),
        *((f"camera {number:02}", 1) for number in range(10)),
        ("others (4)", 4),
    ]


def test_a_weak_folder_is_shown_however_small(tmp_path: Path) -> None:
    """Of 16 folders, a small one is weak. The smallest one is not tested."""
    sizes = {"weak": 20, "tiny": 19} | {f"camera {number:02}": 60 - number for number in range(14)}
    rows = [
        row(number, name=f"a/{folder}/{{}}.jpg", right=number >= 15 if folder == "weak" else number > 1)
        for folder, size in sizes.items()
        for number in range(size)
    ]
    tested = {folder: size for folder, size in sizes.items() if folder != "tiny"}
    raw = np.array(
        [
            fisher_exact([[hits, size - hits], [right - hits, len(rows) - right - size + hits]]).pvalue
            for right in [sum(each.probabilities == RIGHT for each in rows)]
            for folder, size in tested.items()
            for hits in [5 if folder == "weak" else size - 2]
        ]
    )
    adjusted = dict(zip(tested, multipletests(raw, method="holm")[1], strict=True))
    parts = slices_of(tmp_path, rows)["source folder"]
    largest = [f"camera {number:02}" for number in range(11)]
    assert [(part.value, part.images, part.p_value) for part in parts] == [
        *((folder, sizes[folder], pytest.approx(adjusted[folder])) for folder in ("weak", *largest)),
        ("others (4)", 19 + 49 + 48 + 47, None),
    ]


def test_dark_pictures(tmp_path: Path) -> None:
    images = tmp_path / "images"
    rows = []
    for number, luma in enumerate((10, 20, 150, 250)):
        buffer = BytesIO()
        Image.fromarray(np.full((8, 8), luma, np.uint8)).save(buffer, "PNG")
        write_label_folders(images, [f"a/{number}.png"], buffer.getvalue())
        rows.append(row(number, name="a/{}.png"))
    rows.append(row(4, name="a/{}.png"))  # no longer there
    (images / "a" / "5.png").write_bytes(b"no picture any more")
    rows.append(row(5, name="a/{}.png"))
    parts = slices_of(tmp_path, rows, images=images)["brightness"]
    assert [(part.value, part.images) for part in parts] == [
        ("under 64 of 255", 2),
        ("128 to 160 of 255", 1),
        ("192 of 255 and more", 1),
    ]


def test_brightness_of_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    folder = tmp_path / "images" / "a"
    folder.mkdir(parents=True)
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff.jpg")).write_bytes(picture((0, 0, 0)))
    (folder / "0.jpg").write_bytes(picture((255, 255, 255)))
    rows = [row(0), Row(r"a/\xff.jpg", RIGHT)]
    parts = slices_of(tmp_path, rows, table=True, images=tmp_path / "images")["brightness"]
    assert [(part.value, part.images) for part in parts] == [("under 64 of 255", 1), ("192 of 255 and more", 1)]


def test_size_of_the_brightness_sample(tmp_path: Path, colour_folders: Path) -> None:
    names = sorted(str(path.relative_to(colour_folders)) for path in colour_folders.rglob("*.jpg"))
    folders = ("00.Red_Tower", "01.Green_Hill", "02.Blue_Lake")
    predictions = write_predictions(tmp_path / "p.parquet", folders, [Row(name, (0.6, 0.3, 0.1)) for name in names])
    measured = {}
    for sample in (0, 6, 100):
        options = EvaluateOptions(images=colour_folders, brightness_sample=sample)
        parts = evaluate(predictions, colour_folders, options).summary.slices
        measured[sample] = sum(part.images for part in parts if part.dimension == "brightness")
    assert measured == {0: 0, 6: 6, 100: 9}


def test_failed_images_are_in_no_slice(tmp_path: Path) -> None:
    rows = [row(0, width=100, height=90), row(1), Row("a/2.jpg", error_code="truncated")]
    assert sum(part.images for part in slices_of(tmp_path, rows)["image size"]) == 2
