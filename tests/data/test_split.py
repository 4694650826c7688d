"""Split a folder of photos into train, val and test."""

import json
import os
import random
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import splitfolders
from commands import batchland
from photo_like import as_jpeg
from photo_like import photo as picture
from toys import write_dense_model

from batchland.data.corrections import CorrectedFolders
from batchland.data.options import SplitOptions
from batchland.data.split import split
from batchland.embeddings import copies
from batchland.errors import OutputError, UsageError
from batchland.models.features import keep_features


def write_photos(folder: Path, names: dict[str, list[str]]) -> Path:
    """Write class folders. names: class folder to file names. Each file contains `class/name`."""
    for name, photos in names.items():
        (folder / name).mkdir(parents=True)
        for photo in photos:
            (folder / name / photo).write_text(f"{name}/{photo}")
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    counts = {"00.Red_Tower": 10, "01.Green_Hill": 7, "02.Blue_Lake": 2}
    return write_photos(
        tmp_path / "photos", {name: [f"{n:02}.jpg" for n in range(count)] for name, count in counts.items()}
    )


def names_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_split_equals_split_folders_and_has_every_photo_once(photos: Path, tmp_path: Path) -> None:
    state = random.getstate()
    made = split(photos, tmp_path / "ours")
    assert random.getstate() == state
    assert made.parts == {
        "train": {"00.Red_Tower": 8, "01.Green_Hill": 5, "02.Blue_Lake": 1},
        "val": {"00.Red_Tower": 2, "01.Green_Hill": 2, "02.Blue_Lake": 1},
    }
    splitfolders.ratio(photos, tmp_path / "theirs", seed=1337, ratio=(0.8, 0.2))
    assert names_below(made.folder) == names_below(tmp_path / "theirs")
    everything = [f"{path.parent.name}/{path.name}" for path in made.folder.rglob("*.jpg")]
    assert sorted(everything) == names_below(photos)
    for path in made.folder.rglob("*.jpg"):
        assert path.read_text() == f"{path.parent.name}/{path.name}"
        assert not path.is_symlink()


def test_parts_have_the_given_names_and_shares(photos: Path, tmp_path: Path) -> None:
    (photos / "02.Blue_Lake" / "more.JPG").write_text("more")
    (photos / "02.Blue_Lake" / "and more.png").write_text("and more")
    parts = {"test": 0.25, "train": 0.5, "val": 0.25}  # split-folders uses these names for other parts
    made = split(photos, tmp_path / "out", SplitOptions(parts=parts))
    assert made.parts == {
        "test": {"00.Red_Tower": 2, "01.Green_Hill": 1, "02.Blue_Lake": 1},
        "train": {"00.Red_Tower": 5, "01.Green_Hill": 3, "02.Blue_Lake": 2},
        "val": {"00.Red_Tower": 3, "01.Green_Hill": 3, "02.Blue_Lake": 1},
    }
    assert sorted(path.name for path in made.folder.iterdir()) == ["test", "train", "val"]
    for part, counts in made.parts.items():
        assert {folder.name: len(list(folder.iterdir())) for folder in (made.folder / part).iterdir()} == counts


@pytest.mark.parametrize("name", ["new", "00.Red_Tower/new", "."])
def test_output_inside_the_data_is_refused(photos: Path, name: str) -> None:
    before = sorted(photos.rglob("*"))
    with pytest.raises(UsageError) as caught:
        split(photos, photos / name)
    assert str(caught.value) == f"{photos / name}: is inside {photos}, which is not changed"
    assert sorted(photos.rglob("*")) == before


def test_links_point_to_the_photos(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    copies, links = (
        split(Path("photos"), Path("copies")),
        split(Path("photos"), Path("links"), SplitOptions(links=True)),
    )
    assert names_below(links.folder) == names_below(copies.folder)
    for path in links.folder.rglob("*.jpg"):
        assert path.is_symlink()
        assert path.read_text() == f"{path.parent.name}/{path.name}"


def test_seed_determines_the_split(photos: Path, tmp_path: Path) -> None:
    first, again, other = (
        names_below(split(photos, tmp_path / str(number), SplitOptions(seed=seed)).folder)
        for number, seed in enumerate((5, 5, 6))
    )
    assert first == again != other


def test_photos_of_one_scene_stay_together(tmp_path: Path) -> None:
    scenes = [f"scene{scene}-{shot}.jpg" for scene in range(12) for shot in range(scene % 4 + 1)]
    data = write_photos(tmp_path / "photos", {"a": scenes, "b": ["single.jpg", "lone-1.jpg", "odd-1.jpg"]})
    options = SplitOptions(parts={"train": 0.5, "val": 0.25, "test": 0.25}, group_prefix=re.compile("scene[^-]+"))
    with pytest.raises(UsageError, match="too few photos \\(3\\) for val to get one"):
        split(data, tmp_path / "out", options)
    (data / "b" / "4.jpg").write_text("")
    made = split(data, tmp_path / "out", options)
    homes: dict[str, set[str]] = {}
    for path in (made.folder).rglob("scene*.jpg"):
        homes.setdefault(path.name.split("-")[0], set()).add(path.parent.parent.name)
    assert len(homes) == 12
    assert {len(parts) for parts in homes.values()} == {1}
    assert set.union(*homes.values()) == {"train", "val", "test"}
    assert sum(sum(counts.values()) for counts in made.parts.values()) == len(scenes) + 4


def test_copies_of_a_photo_put_their_scenes_into_one_group(tmp_path: Path) -> None:
    """Each photo exists twice. One photo is in scene 0 and in scene 1, so these two scenes form one group."""
    scenes = [f"scene{scene}-{shot}.jpg" for scene in range(6) for shot in range(2)]
    data = write_photos(tmp_path / "photos", {"a": scenes, "b": scenes})
    for folder in (data / "a", data / "b"):
        for photo in scenes:
            shutil.copy(folder / photo, folder / f"copy of {photo}")
    shutil.copy(data / "a" / "scene0-1.jpg", data / "a" / "scene1-0.jpg")

    def parts_of(*names: str) -> set[str]:
        found = [path for name in names for path in made.folder.rglob(f"a/{name}")]
        assert len(found) == len(names)
        return {path.parent.parent.name for path in found}

    made = split(data, tmp_path / "plain", SplitOptions(parts={"train": 0.5, "val": 0.5}))
    assert {len(parts_of(photo, f"copy of {photo}")) for photo in scenes if photo != "scene1-0.jpg"} == {1}
    options = SplitOptions(parts={"train": 0.5, "val": 0.5}, group_prefix=re.compile("scene[0-9]+"))
    made = split(data, tmp_path / "scenes", options)
    assert len(parts_of("scene0-0.jpg", "scene0-1.jpg", "copy of scene0-1.jpg", "scene1-0.jpg", "scene1-1.jpg")) == 1
    assert {path.parent.parent.name for path in made.folder.rglob("a/*")} == {"train", "val"}


def test_prefix_without_a_match_is_an_error(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        split(photos, tmp_path / "out", SplitOptions(group_prefix=re.compile("scene[^-]+")))
    assert str(caught.value) == (
        f"group_prefix scene[^-]+: matches the start of no file name in {photos} (one is 00.jpg)"
    )
    assert not (tmp_path / "out").exists()


def test_other_files_are_left_out(photos: Path, tmp_path: Path) -> None:
    (photos / "00.Red_Tower" / "notes.txt").write_text("")
    (photos / "00.Red_Tower" / ".hidden.jpg").write_text("")
    (photos / ".ipynb_checkpoints").mkdir()
    (photos / ".ipynb_checkpoints" / "1.jpg").write_text("")
    (photos / "loose.jpg").write_text("")
    made = split(photos, tmp_path / "out")
    names = names_below(made.folder)
    assert len(names) == 19
    assert all(re.fullmatch(r"(train|val)/0[012]\.[A-Za-z_]+/\d\d\.jpg", name) for name in names)
    assert len(list((made.folder / "train").iterdir())) == 3


def test_unusable_folders_are_errors_and_nothing_is_written(photos: Path, tmp_path: Path) -> None:
    def message(data: Path, options: SplitOptions | None = None) -> str:
        with pytest.raises(UsageError) as caught:
            split(data, tmp_path / "out", options)
        assert not (tmp_path / "out").exists()
        assert not (tmp_path / ".out.new").exists()
        return str(caught.value)

    assert message(tmp_path / "none").startswith(f"{tmp_path}/none: does not exist; give a folder with")
    assert message(write_photos(tmp_path / "one", {"a": ["1.jpg"]})).startswith(f"{tmp_path}/one: only one class fold")
    assert message(write_photos(tmp_path / "empty", {"a": ["1.jpg", "2.jpg"], "b": []})) == (
        f"{tmp_path}/empty/b: has no photos; add some or remove the folder"
    )
    assert message(write_photos(tmp_path / "single", {"a": ["1.jpg", "2.jpg"], "b": ["1.jpg"]})) == (
        f"{tmp_path}/single/b: has too few photos (1) for train to get one; add some, remove the folder or change the "
        f"shares"
    )
    assert message(photos, SplitOptions(parts={"train": 0.8, "val": 0.1, "test": 0.1})) == (
        f"{photos}/01.Green_Hill: has too few photos (7) for val to get one; add some, remove the folder or change the "
        f"shares"
    )
    (photos / "00.Red_Tower" / "more").mkdir()
    (photos / "00.Red_Tower" / "more" / "1.jpg").write_text("")
    assert message(photos) == (f"{photos}/00.Red_Tower: has photos in subfolders (more/1.jpg); move them up")


def test_full_disk_is_an_error_and_leaves_no_files(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: str, target: str) -> None:
        raise OSError(28, "No space left on device", target)

    monkeypatch.setattr("shutil.copy2", full)
    with pytest.raises(OutputError) as caught:
        split(photos, tmp_path / "out")
    assert str(caught.value) == (
        f"{tmp_path}/out: cannot be written (No space left on device); free some space, or write elsewhere"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_photo_is_named(photos: Path, tmp_path: Path) -> None:
    (photos / "00.Red_Tower" / "03.jpg").chmod(0)
    with pytest.raises(UsageError) as caught:
        split(photos, tmp_path / "out")
    assert str(caught.value) == f"{photos}/00.Red_Tower/03.jpg: cannot be read (Permission denied)"


@pytest.mark.parametrize(
    "parts", [{"a": 1.0}, {"a": 0.5, "b": 0.4}, {"a": 0.5, "../b": 0.5}, {"a": 0.4, "b": 0.2, "c": 0.2, "d": 0.2}]
)
def test_invalid_parts_are_refused(parts: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="parts"):
        SplitOptions(parts=parts)


def test_command_prints_the_parts(photos: Path, tmp_path: Path) -> None:
    result = batchland("data", "split", photos, "--out", tmp_path / "out")
    assert (result.exit_code, result.stdout, result.stderr) == (
        0,
        f"{tmp_path}/out/train: 14 photos of 3 classes\n{tmp_path}/out/val: 5 photos of 3 classes\n",
        "",
    )


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--parts", "train"], "--parts: train: write it like train=0.8,test=0.2"),
        (["--parts", "train=80%,test=20%"], "--parts: train=80%,test=20%: write it like train=0.8,test=0.2"),
        (["--parts", "train=0.8,test=0.1"], "'--parts': should be two or three parts with shares that add up to 1"),
        (["--parts", "a/b=0.8,c=0.2"], "'--parts': a/b: should have only letters, digits, '.', '_' and '-', and begin "
                                       "with a letter or digit"),
        (["--group-prefix", "("], "'--group-prefix': (: should be a valid regular expression"),
    ],
)  # fmt: skip
def test_invalid_options_are_usage_errors(photos: Path, tmp_path: Path, options: list[str], says: str) -> None:
    result = batchland("data", "split", photos, "--out", tmp_path / "out", *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.splitlines()[-1] == f"Error: Invalid value for {says}"


def write_corrections(path: Path, rows: str) -> Path:
    path.write_text("path,label,decision\n" + rows)
    return path


@pytest.mark.parametrize("links", [False, True])
def test_corrected_photos_go_to_the_folder_of_their_label(photos: Path, tmp_path: Path, links: bool) -> None:
    corrections = write_corrections(
        tmp_path / "c.csv",
        "00.Red_Tower/01.jpg,Blue Lake,wrong\n01.Green_Hill/06.jpg,02.Blue_Lake,wrong\n01.Green_Hill/00.jpg,x,keep\n"
        "01.Green_Hill/02.jpg,Green Hill,wrong\n00.Red_Tower/06.jpg,Blue Lake,wrong\n",
    )
    made = split(photos, tmp_path / "out", SplitOptions(corrections=corrections, links=links))
    assert {name: sum(part[name] for part in made.parts.values()) for name in made.parts["train"]} == {
        "00.Red_Tower": 8, "01.Green_Hill": 6, "02.Blue_Lake": 5,
    }  # fmt: skip
    lake = {path.name: path.read_text() for path in made.folder.glob("*/02.Blue_Lake/*")}
    assert lake == {
        "00.jpg": "02.Blue_Lake/00.jpg",
        "01.jpg": "02.Blue_Lake/01.jpg",
        "00.Red_Tower-01.jpg": "00.Red_Tower/01.jpg",
        "06.jpg": "00.Red_Tower/06.jpg",
        "01.Green_Hill-06.jpg": "01.Green_Hill/06.jpg",
    }
    assert len(names_below(photos)) == 19


def test_a_correction_may_be_written_with_decomposed_characters(tmp_path: Path) -> None:
    """As by a Mac; but not if that is the name of another photo."""
    composed, decomposed = "a/\u00e9.jpg", "a/e\u0301.jpg"
    for name in (composed, "b/1.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"")
    corrections = write_corrections(tmp_path / "c.csv", f"{decomposed},b,wrong\n")
    assert CorrectedFolders(corrections, tmp_path, ["a", "b"]).folder("", "a", composed[2:]) == "b"
    (tmp_path / decomposed).write_bytes(b"")
    corrected = CorrectedFolders(corrections, tmp_path, ["a", "b"])
    assert [corrected.folder("", "a", name[2:]) for name in (composed, decomposed)] == ["a", "b"]


def test_corrections_that_do_not_fit_are_rejected(photos: Path, tmp_path: Path) -> None:
    elsewhere = write_corrections(tmp_path / "a.csv", "other/01.jpg,Blue Lake,wrong\n")
    with pytest.raises(UsageError, match=r"a\.csv: no correction changes the folder of a photo in .*photos"):
        split(photos, tmp_path / "out", SplitOptions(corrections=elsewhere))
    unknown = write_corrections(tmp_path / "b.csv", "00.Red_Tower/01.jpg,Moon,wrong\n")
    with pytest.raises(UsageError) as caught:
        split(photos, tmp_path / "out", SplitOptions(corrections=unknown))
    assert str(caught.value) == (
        f"{unknown}: no class folder for 'Moon'; there are folders for 'Red Tower', 'Green Hill', 'Blue Lake'"
    )
    assert not (tmp_path / "out").exists()


def test_near_copies_stay_together(tmp_path: Path) -> None:
    rng = np.random.default_rng(9)
    folder = write_photos(tmp_path / "photos", {"00.Red_Tower": [], "01.Green_Hill": ["1.jpg", "2.jpg"]})
    for number in range(8):
        pixels = picture(rng, 160)
        (folder / "00.Red_Tower" / f"{number}.jpg").write_bytes(as_jpeg(pixels))
        (folder / "00.Red_Tower" / f"small{number}.jpg").write_bytes(as_jpeg(pixels[::2, ::2]))

    def separated(near_copies: bool) -> int:
        options = SplitOptions(parts={"train": 0.5, "val": 0.5}, near_copies=near_copies)
        made = split(folder, tmp_path / f"split-{near_copies}", options)
        train = {path.name for path in (made.folder / "train/00.Red_Tower").iterdir()}
        return sum((f"{number}.jpg" in train) != (f"small{number}.jpg" in train) for number in range(8))

    assert separated(near_copies=True) == 0
    assert separated(near_copies=False) > 0


def test_more_crops_are_found_with_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By `data check`, too. The crops are beyond the limit without features, and the pictures' features differ."""
    monkeypatch.setattr(copies, "COPY_WITH_FEATURES", 1.0)
    monkeypatch.setattr(copies, "MIN_SIMILARITY", 0.96)
    rng = np.random.default_rng(9)
    folder = write_photos(tmp_path / "photos", {"00.Red_Tower": [], "01.Green_Hill": ["1.jpg", "2.jpg"]})
    for number in range(8):
        pixels = picture(rng, 160)
        (folder / "00.Red_Tower" / f"{number}.jpg").write_bytes(as_jpeg(pixels))
        (folder / "00.Red_Tower" / f"crop{number}.jpg").write_bytes(as_jpeg(pixels[24:-24, 24:-24]))
    model = write_dense_model(tmp_path / "model.onnx")
    keep_features(model)

    def found(*arguments: object) -> tuple[int, int]:
        out = tmp_path / f"split-{len(arguments)}"
        assert (
            batchland("data", "split", folder, "--out", out, "--parts", "train=0.5,val=0.5", *arguments).exit_code == 0
        )
        train = {path.name for path in (out / "train/00.Red_Tower").iterdir()}
        groups = json.loads(batchland("data", "check", folder, "--json", *arguments).stdout)["duplicates"]
        return sum((f"{number}.jpg" in train) == (f"crop{number}.jpg" in train) for number in range(8)), len(groups)

    assert found("--model", model) == (8, 8)
    together, groups = found()
    assert together < 8
    assert groups < 4
    plain = write_dense_model(tmp_path / "plain.onnx")
    for command in (("split", folder, "--out", tmp_path / "none"), ("check", folder)):
        result = batchland("data", *command, "--model", plain)
        assert (result.exit_code, result.stderr.partition(";")[0]) == (5, f"batchland: {plain}: gives no features")
