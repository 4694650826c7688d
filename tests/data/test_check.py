"""Checking labelled photos before training."""

import json
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
from commands import batchland
from photo_like import as_jpeg, photo
from PIL import Image
from toys import picture

from batchland.data.check import ClassCheck, Duplicates, Finding, Sizes, check, table
from batchland.errors import UsageError


def write_photos(data: Path, counts: dict[str, int], size: tuple[int, int] = (40, 30)) -> None:
    """Write photos of different colours. counts: photos per folder, relative to `data`."""
    for folder, count in counts.items():
        (data / folder).mkdir(parents=True)
        for number in range(count):
            (data / folder / f"{number}.jpg").write_bytes(picture((shade(folder), 20 * number, 99), size))


def shade(folder: str) -> int:
    """Red value of all photos in a folder, 0..255."""
    return zlib.crc32(folder.encode()) % 256


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A valid data set with two classes."""
    counts = {"train/00.Red_Tower": 4, "train/01.Green_Hill": 3, "test/00.Red_Tower": 2, "test/01.Green_Hill": 1}
    write_photos(tmp_path / "data", counts)
    return tmp_path / "data"


def findings(data: Path) -> list[tuple[str, str]]:
    found, _ = check(data)
    return [("problem" if finding.problem else "note", finding.text) for finding in found.findings]


def duplicates(*names: str, two_classes: bool = False, two_parts: bool = False) -> Duplicates:
    return Duplicates(names=names, near=False, two_classes=two_classes, two_parts=two_parts)


def test_good_data_have_no_findings(data: Path) -> None:
    seen: list[tuple[int, int]] = []
    found, samples = check(data, on_progress=lambda done, total: seen.append((done, total)))
    assert found.classes == (
        ClassCheck(folder="00.Red_Tower", label="Red Tower", train=4, val=0, test=2, unreadable=0),
        ClassCheck(folder="01.Green_Hill", label="Green Hill", train=3, val=0, test=1, unreadable=0),
    )
    size = sum(path.stat().st_size for path in data.rglob("*.jpg"))
    assert found.sizes == Sizes(width=(40, 40, 40), height=(30, 30, 30), bytes=size)
    assert (found.unreadable, found.duplicates, found.findings) == ((), (), ())
    assert seen == [(10, 10)]
    assert [(one.label, len(one.photos)) for one in samples] == [("Red Tower", 4), ("Green Hill", 3)]
    assert {photo.shape for one in samples for photo in one.photos} == {(224, 224, 3)}


def test_class_folders_may_be_directly_in_data(data: Path) -> None:
    found, _ = check(data / "train")
    assert [(one.folder, one.train, one.test) for one in found.classes] == [
        ("00.Red_Tower", 4, 0),
        ("01.Green_Hill", 3, 0),
    ]
    (data / "train" / "00.Red_Tower" / "bad.jpg").write_text("no photo")
    assert findings(data / "train") == [
        ("note", "1 photo that cannot be read and will be skipped: 00.Red_Tower/bad.jpg (not_an_image)")
    ]


def test_duplicates_have_equal_pixels(data: Path) -> None:
    tower, hill = data / "train" / "00.Red_Tower", data / "train" / "01.Green_Hill"
    shutil.copy(tower / "0.jpg", tower / "again.jpg")
    shutil.copy(data / "test" / "00.Red_Tower" / "1.jpg", data / "test" / "00.Red_Tower" / "9.jpg")
    shutil.copy(tower / "1.jpg", data / "test" / "00.Red_Tower" / "trained on.jpg")
    with Image.open(hill / "2.jpg") as image:  # another file, the same pixels
        image.save(tower / "mislabelled.png")
    found, _ = check(data)
    assert found.duplicates == (
        duplicates("train/00.Red_Tower/0.jpg", "train/00.Red_Tower/again.jpg"),
        duplicates("train/00.Red_Tower/1.jpg", "test/00.Red_Tower/trained on.jpg", two_parts=True),
        duplicates("train/00.Red_Tower/mislabelled.png", "train/01.Green_Hill/2.jpg", two_classes=True),
        duplicates("test/00.Red_Tower/1.jpg", "test/00.Red_Tower/9.jpg"),
    )
    assert [(finding.problem, finding.text) for finding in found.findings] == [
        (
            True,
            "1 picture in more than one class, so one label is wrong: train/00.Red_Tower/mislabelled.png = "
            "train/01.Green_Hill/2.jpg",
        ),
        (
            True,
            "1 picture in more than one part, which makes accuracy look too good: train/00.Red_Tower/1.jpg = "
            "test/00.Red_Tower/trained on.jpg",
        ),
        (
            False,
            "2 pictures more than once in a class: train/00.Red_Tower/0.jpg = train/00.Red_Tower/again.jpg, "
            "test/00.Red_Tower/1.jpg = test/00.Red_Tower/9.jpg",
        ),
    ]


def test_duplicate_in_two_classes_and_two_parts_gives_two_findings(data: Path) -> None:
    shutil.copy(data / "train" / "00.Red_Tower" / "0.jpg", data / "test" / "01.Green_Hill" / "9.jpg")
    names = "train/00.Red_Tower/0.jpg = test/01.Green_Hill/9.jpg"
    assert findings(data) == [
        ("problem", f"1 picture in more than one class, so one label is wrong: {names}"),
        ("problem", f"1 picture in more than one part, which makes accuracy look too good: {names}"),
    ]


def test_near_duplicates_are_found_between_classes_and_parts(data: Path) -> None:
    rng = np.random.default_rng(5)
    pictures = [photo(rng, 160) for _ in range(6)]
    for number, pixels in enumerate(pictures[:3]):
        (data / "train/00.Red_Tower" / f"photo{number}.jpg").write_bytes(as_jpeg(pixels))
    (data / "train/00.Red_Tower/small.jpg").write_bytes(as_jpeg(pictures[0][::2, ::2]))
    (data / "train/01.Green_Hill/cropped.jpg").write_bytes(as_jpeg(pictures[1][4:156, 4:156]))
    (data / "test/00.Red_Tower/compressed.jpg").write_bytes(as_jpeg(pictures[2], quality=40))
    assert findings(data) == [
        (
            "problem",
            "1 near-copy group in more than one class, so one label is probably wrong: "
            "train/00.Red_Tower/photo1.jpg ~ train/01.Green_Hill/cropped.jpg",
        ),
        (
            "problem",
            "1 near-copy group in more than one part, which makes accuracy look too good: "
            "train/00.Red_Tower/photo2.jpg ~ test/00.Red_Tower/compressed.jpg",
        ),
        (
            "note",
            "1 near-copy group within a class: train/00.Red_Tower/photo0.jpg ~ train/00.Red_Tower/small.jpg",
        ),
    ]


def test_val_folder_is_checked(data: Path) -> None:
    write_photos(data, {"val/01.Green_Hill": 2, "val/Tower": 1})
    shutil.copy(data / "train" / "01.Green_Hill" / "0.jpg", data / "val" / "01.Green_Hill" / "trained on.jpg")
    found, _ = check(data)
    assert table(found).splitlines()[0] == f"{data}: 3 classes, 7 photos to train, 4 to validate and 3 to test"
    assert table(found).splitlines()[2:] == [
        "class          train  val  test  unreadable",
        "00.Red_Tower       4    0     2           0",
        "01.Green_Hill      3    3     1           0",
        "Tower              0    1     0           0",
        "problem: 1 val folder without a folder in train: Tower",
        "problem: 1 class without a val photo: 00.Red_Tower",
        "problem: 1 picture in more than one part, which makes accuracy look too good: "
        "train/01.Green_Hill/0.jpg = val/01.Green_Hill/trained on.jpg",
    ]


def test_unusable_classes_are_problems(data: Path) -> None:
    (data / "train" / "02.Empty").mkdir()
    write_photos(data, {"train/03.Single": 1, "test/04.Unknown": 2})
    (data / "train" / "05.Broken").mkdir()
    (data / "train" / "05.Broken" / "1.jpg").write_bytes(b"")
    (data / "train" / "05.Broken" / "2.jpg").write_bytes(picture()[:-60])
    (data / "train" / "loose.jpg").write_bytes(picture())
    assert findings(data) == [
        ("problem", "02.Empty has no readable photo to train on; training needs two per class"),
        ("problem", "03.Single has only one readable photo to train on; training needs two per class"),
        ("problem", "05.Broken has no readable photo to train on; training needs two per class"),
        ("problem", "1 test folder without a folder in train: 04.Unknown"),
        ("note", "3 classes without a test photo: 02.Empty, 03.Single, 05.Broken"),
        (
            "note",
            "2 photos that cannot be read and will be skipped: train/05.Broken/1.jpg (empty), "
            "train/05.Broken/2.jpg (truncated)",
        ),
        ("note", "1 photo of train outside the class folders will not be used"),
    ]


def test_class_folders_that_look_alike_are_named(data: Path) -> None:
    twins = ("Caf\u00e9", "Cafe\u0301", "Mill", "mill ")
    write_photos(data, {f"train/{name}": 2 for name in twins} | {f"test/{name}": 1 for name in twins})
    assert [finding for finding in findings(data) if "alike" in finding[1]] == [
        ("problem", "the class folders 'Cafe\\u0301' and 'Caf\\xe9' look alike; is that one class?"),
        ("note", "the class folders 'Mill' and 'mill ' look alike; is that one class?"),
    ]


def test_a_missing_class_is_a_problem_and_missing_class_folders_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError) as caught:
        check(tmp_path / "empty")
    assert str(caught.value) == (
        f"{tmp_path}/empty: no class folders; training needs one folder per class, CLASS/*.jpg, and at least two "
        "classes"
    )
    (tmp_path / "empty" / "only").mkdir()
    found, samples = check(tmp_path / "empty")
    assert (len(found.classes), found.sizes, len(samples)) == (1, None, 1)
    assert found.findings[0] == Finding(problem=True, text="training needs at least two class folders, there are 1")
    assert table(found).startswith(f"{tmp_path}/empty: 1 class, 0 photos to train and 0 to test\n")
    with pytest.raises(UsageError, match="does not exist; give a folder with"):
        check(tmp_path / "none")


def test_long_lists_of_names_are_shortened(data: Path) -> None:
    for number in range(7):
        (data / "train" / "00.Red_Tower" / f"bad{number}.jpg").write_text("no photo")
    ((_, text),) = findings(data)
    assert text.count("not_an_image") == 5
    assert text.endswith(" and 2 more")


def test_command_prints_a_table_and_draws_samples(data: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "samples.png"
    result = batchland("data", "check", data, "--samples", sheet)
    size = sum(path.stat().st_size for path in data.rglob("*.jpg")) / 1e6
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == (
        f"{data}: 2 classes, 7 photos to train and 3 to test\n"
        f"width 40 to 40, median 40; height 30 to 30, median 30 pixels; {size:.1f} MB\n"
        "class          train  test  unreadable\n"
        "00.Red_Tower       4     2           0\n"
        "01.Green_Hill      3     1           0\n"
    )
    with Image.open(sheet) as image:
        assert (image.format, image.size) == ("PNG", (614, 210))
        pixels = np.asarray(image, dtype=int)
    assert tuple(pixels[54, 248]) == pytest.approx((shade("train/00.Red_Tower"), 0, 99), abs=3)
    assert tuple(pixels[156, 452]) == pytest.approx((shade("train/01.Green_Hill"), 40, 99), abs=3)
    assert tuple(pixels[156, 554]) == (255, 255, 255)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("preds.parquet", "give a name that ends in .png"),
        ("data/train/00.Red_Tower/a.png", "is inside {data}, among the photos; give --samples another path"),
        ("data", "is a folder; give the name of a file that ends in .png"),
        ("mine.png", "exists and is not an earlier sheet of samples; give another name"),
    ],
)
def test_samples_never_replace_a_photo_or_another_file(data: Path, tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "preds.parquet").write_text("x")
    (tmp_path / "mine.png").write_text("x")
    result = batchland("data", "check", data, "--samples", tmp_path / name)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"batchland: {tmp_path / name}: {message.format(data=data)}\n"
    assert (tmp_path / "preds.parquet").read_text() == "x"


def test_exit_code_is_4_for_problems_and_with_strict_for_notes(data: Path) -> None:
    def run(*options: str) -> tuple[int, str]:
        result = batchland("data", "check", data, *options)
        return result.exit_code, result.stderr

    assert run() == (0, "")
    shutil.copy(data / "train/00.Red_Tower/0.jpg", data / "train/00.Red_Tower/again.jpg")
    assert run() == (0, "")
    assert run("--strict") == (4, f"batchland: {data}: 1 problem, see above; correct the folders\n")
    shutil.copy(data / "train/00.Red_Tower/0.jpg", data / "test/00.Red_Tower/leak.jpg")
    assert run() == (4, f"batchland: {data}: 1 problem, see above; correct the folders\n")


def test_control_characters_in_names_are_escaped(data: Path) -> None:
    (data / "train" / "00.Red_Tower" / "a\x1b[2Jb.jpg").write_text("no photo")
    result = batchland("data", "check", data)
    assert "a[U+001B][2Jb.jpg (not_an_image)" in result.stdout
    assert "\x1b" not in result.stdout


def test_json_output(data: Path) -> None:
    shutil.copy(data / "train/00.Red_Tower/0.jpg", data / "train/00.Red_Tower/again.jpg")
    result = batchland("data", "check", data, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    assert json.loads(result.stdout)["duplicates"] == [
        {
            "names": ["train/00.Red_Tower/0.jpg", "train/00.Red_Tower/again.jpg"],
            "near": False,
            "two_classes": False,
            "two_parts": False,
        }
    ]


def test_corrected_photos_count_for_the_class_of_their_label(data: Path, tmp_path: Path) -> None:
    shutil.copy(data / "train/00.Red_Tower/3.jpg", data / "train/01.Green_Hill/copy.jpg")
    corrections = tmp_path / "corrections.csv"
    corrections.write_text("path,label,decision\ntrain/01.Green_Hill/copy.jpg,Red Tower,wrong\n")
    found, _ = check(data)
    assert (found.problems, found.corrected) == (1, 0)  # one picture in two classes
    found, _ = check(data, corrections=corrections)
    assert (found.problems, found.corrected) == (0, 1)
    assert [(one.label, one.train) for one in found.classes] == [("Red Tower", 5), ("Green Hill", 3)]
    assert "1 photo counted by a corrected label, not by the folder\n" in table(found)
    corrections.write_text("path,label,decision\n01.Green_Hill/2.jpg,Red Tower,wrong\n")  # as scored from DATA/train
    assert check(data, corrections=corrections)[0].corrected == 1
    corrections.write_text("path,label,decision\n01.Green_Hill/0.jpg,Red Tower,wrong\n")
    with pytest.raises(UsageError) as caught:
        check(data, corrections=corrections)
    assert str(caught.value) == (
        f"{corrections}: 01.Green_Hill/0.jpg is in train and in test; write train/01.Green_Hill/0.jpg if you mean that "
        f"photo"
    )
