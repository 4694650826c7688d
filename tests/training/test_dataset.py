"""Reading, splitting and augmenting training images."""

import logging
import shutil
from collections import Counter
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import splitfolders
from PIL import Image
from toys import picture

from batchland.errors import UsageError
from batchland.images.preprocess import PreprocessSpec, fit, preprocess
from batchland.models.card import ClassName
from batchland.training.augment import Augmentation
from batchland.training.dataset import PhotoDataset, load_data
from batchland.training.sampling import Draw

SPEC = PreprocessSpec(height=32, width=32, jpeg_scale="auto")


def noise(seed: int, size: tuple[int, int] = (90, 70)) -> bytes:
    """A JPEG of random colours. Each seed gives another picture, and all parts of a picture differ."""
    width, height = size
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (7, 9, 3), dtype=np.uint8)
    buffer = BytesIO()
    Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def write_classes(folder: Path, counts: dict[str, int]) -> Path:
    """Class folders with that many different pictures each."""
    seed = 0
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            (folder / name / f"{number:02}.jpg").write_bytes(noise(seed))
            seed += 1
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_classes(tmp_path / "data" / "train", {"01.Blue_Lake": 7, "00.Red_Tower": 10})
    return tmp_path / "data"


def test_classes_are_in_folder_order_with_labels(data: Path) -> None:
    loaded = load_data(data, SPEC)
    assert loaded.folder == data / "train"
    assert loaded.classes == (
        ClassName(folder="00.Red_Tower", label="Red Tower"),
        ClassName(folder="01.Blue_Lake", label="Blue Lake"),
    )


def test_data_may_be_the_class_folders_themselves(data: Path) -> None:
    through_parent, directly = load_data(data, SPEC), load_data(data / "train", SPEC)
    assert directly.folder == through_parent.folder
    assert directly.summary == through_parent.summary


def test_split_equals_that_of_split_folders(data: Path, tmp_path: Path) -> None:
    loaded = load_data(data, SPEC, seed=1337)
    splitfolders.ratio(str(data / "train"), str(tmp_path / "theirs"), seed=1337, ratio=(0.8, 0.2))
    for ours, theirs in ((loaded.training, "train"), (loaded.validation, "val")):
        folder = tmp_path / "theirs" / theirs
        assert [example.ref.name for example in ours.examples] == sorted(
            path.relative_to(folder).as_posix() for path in folder.rglob("*.jpg")
        )


def test_split_has_every_image_once_and_depends_on_the_seed(data: Path) -> None:
    first, again, other = (load_data(data, SPEC, seed=seed) for seed in (1, 1, 2))
    names = [[example.ref.name for example in each.validation.examples] for each in (first, again, other)]
    assert names[0] == names[1] != names[2]
    everything = [example.ref.name for part in (first.training, first.validation) for example in part.examples]
    assert sorted(everything) == sorted(path.relative_to(data / "train").as_posix() for path in data.rglob("*.jpg"))
    assert Counter(example.class_index for example in first.training.examples) == {0: 8, 1: 5}
    assert (first.summary.training_images, first.summary.validation_images) == (13, 4)


def test_fingerprint_depends_on_names_and_contents_only(data: Path, tmp_path: Path) -> None:
    before = load_data(data, SPEC).summary.fingerprint
    shutil.copytree(data, tmp_path / "copy")
    assert load_data(tmp_path / "copy", SPEC).summary.fingerprint == before
    image = data / "train" / "00.Red_Tower" / "03.jpg"
    image.rename(image.with_name("33.jpg"))
    renamed = load_data(data, SPEC).summary.fingerprint
    image.with_name("33.jpg").write_bytes(noise(999))
    assert len({before, renamed, load_data(data, SPEC).summary.fingerprint}) == 3


def test_training_and_scoring_see_the_same_pixels(data: Path) -> None:
    big = data / "train" / "00.Red_Tower" / "big.jpg"
    big.write_bytes(noise(77, (700, 500)))  # large enough to be shrunk while it is decoded
    loaded = load_data(data, SPEC)
    for part in (loaded.training, loaded.validation):
        dataset = PhotoDataset(part, SPEC)
        for index, example in enumerate(part.examples):
            scored = preprocess((loaded.folder / example.ref.name).read_bytes(), SPEC)
            item, label = dataset[Draw(index, seed=5)]
            assert item.numpy().tobytes() == scored.tobytes() == part.pixels[index].tobytes()
            assert label == example.class_index
    assert not np.array_equal(
        preprocess(big.read_bytes(), SPEC), preprocess(big.read_bytes(), SPEC.model_copy(update={"jpeg_scale": "none"}))
    )


def test_augmentation_works_on_fitted_images(data: Path) -> None:
    images = load_data(data, SPEC).training
    augment = Augmentation(crop=0.5, horizontal_flip=True, brightness=0.3, contrast=0.2, saturation=0.3, hue=0.2)
    item, _ = PhotoDataset(images, SPEC, augment)[Draw(2, seed=11)]
    scored = preprocess((data / "train" / images.examples[2].ref.name).read_bytes(), SPEC)
    assert item.numpy().tobytes() == fit(augment(scored, 11), SPEC).tobytes()
    assert item.numpy().tobytes() != scored.tobytes()


def test_val_folder_is_used_for_validation(data: Path) -> None:
    write_classes(data / "val", {"01.Blue_Lake": 1, "00.Red_Tower": 2})
    (data / "val" / "00.Red_Tower" / "bad.jpg").write_text("no picture")
    loaded = load_data(data, SPEC)
    assert loaded.folder == data / "train"
    assert [(one.ref.name, one.class_index) for one in loaded.validation.examples] == [
        ("../val/00.Red_Tower/00.jpg", 0), ("../val/00.Red_Tower/01.jpg", 0), ("../val/01.Blue_Lake/00.jpg", 1),
    ]  # fmt: skip
    scored = preprocess((data / "val" / "01.Blue_Lake" / "00.jpg").read_bytes(), SPEC)
    assert loaded.validation.image(2).tobytes() == scored.tobytes()
    assert Counter(one.class_index for one in loaded.training.examples) == {0: 10, 1: 7}
    assert (loaded.summary.training_images, loaded.summary.validation_images) == (17, 3)
    assert [one.name for one in loaded.skipped] == ["../val/00.Red_Tower/bad.jpg"]
    assert load_data(data / "train", SPEC).summary.validation_images == 4


def test_val_folder_must_have_the_classes_of_train(data: Path) -> None:
    def message() -> str:
        with pytest.raises(UsageError) as caught:
            load_data(data, SPEC)
        return str(caught.value)

    needs = (
        f"each class needs an image in train and one in val: add some, or remove {data}/val to validate on a fifth of "
        f"the training images"
    )
    write_classes(data / "val", {"00.Red_Tower": 1})
    assert message() == f"{data}/val/01.Blue_Lake: does not exist; {needs}"
    write_classes(data / "val", {"01.Blue_Lake": 0})
    assert message() == f"{data}/val/01.Blue_Lake: the folder is empty; {needs}"
    write_classes(data / "val", {"Blue_Lake": 1})
    assert message() == (
        f"{data}/val/Blue_Lake: {data}/train has no class of that name; rename the folder, or remove it"
    )


def test_class_folders_that_look_the_same_are_named(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Composed and decomposed characters of Unicode, as from Linux and from a Mac."""
    composed, decomposed = "Caf\u00e9", "Cafe\u0301"
    difference = "they differ only in composed and decomposed characters of Unicode"
    write_classes(data / "train", {composed: 2})
    write_classes(data / "test", {"00.Red_Tower": 1, "01.Blue_Lake": 1, decomposed: 1})
    load_data(data, SPEC)
    assert caplog.messages == []
    write_classes(data / "val", {"00.Red_Tower": 1, "01.Blue_Lake": 1, decomposed: 1})
    with pytest.raises(UsageError) as caught:
        load_data(data, SPEC)
    assert str(caught.value) == (
        f"{data}/val: its class folder 'Cafe\\u0301' looks like 'Caf\\xe9' in {data}/train; {difference}; "
        f"rename one of them"
    )
    write_classes(data / "train", {decomposed: 2})
    with pytest.raises(UsageError) as caught:
        load_data(data, SPEC)
    assert str(caught.value) == (
        f"{data}/train: the class folders 'Cafe\\u0301' and 'Caf\\xe9' look the same; {difference}; put their "
        f"photos into one folder"
    )


def test_unreadable_images_are_skipped_and_logged(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    (data / "train" / "00.Red_Tower" / "notes.jpg").write_text("no picture")
    (data / "train" / "01.Blue_Lake" / "cut.jpg").write_bytes(noise(1)[:-800])
    with caplog.at_level(logging.WARNING, "batchland"):
        loaded = load_data(data, SPEC)
    assert [(each.name, each.code) for each in loaded.skipped] == [
        ("00.Red_Tower/notes.jpg", "not_an_image"),
        ("01.Blue_Lake/cut.jpg", "truncated"),
    ]
    assert f"{data}/train/00.Red_Tower/notes.jpg: skipped, the content is not that of an image" in caplog.text
    assert len(loaded.training.examples) + len(loaded.validation.examples) == 17


def test_strict_refuses_unreadable_images(data: Path) -> None:
    (data / "train" / "00.Red_Tower" / "notes.jpg").write_text("no picture")
    with pytest.raises(UsageError) as caught:
        load_data(data, SPEC, strict=True)
    assert str(caught.value) == (
        f"{data}/train: 1 of 18 images cannot be read, the first is 00.Red_Tower/notes.jpg (the content is not that of "
        f"an image file); remove them"
    )


def test_unusable_folders_are_errors(tmp_path: Path) -> None:
    def message(data: Path) -> str:
        with pytest.raises(UsageError) as caught:
            load_data(data, SPEC)
        return str(caught.value)

    asks = "training needs one folder per class, CLASS/*.jpg, and at least two classes"
    needs = "a class needs at least two images, one to train and one to validate: add some or remove the folder"
    assert message(tmp_path / "none") == (
        f"{tmp_path}/none: does not exist; give a folder with train/CLASS/*.jpg or CLASS/*.jpg"
    )
    (tmp_path / "file").write_text("")
    assert message(tmp_path / "file") == (
        f"{tmp_path}/file: is not a folder; give a folder with train/CLASS/*.jpg or CLASS/*.jpg"
    )
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "a.jpg").write_bytes(picture())
    assert message(tmp_path / "flat") == f"{tmp_path}/flat: no class folders; {asks}"
    blank = message(write_classes(tmp_path / "blank", {"  ": 3, "a": 3}))
    assert blank == f"{tmp_path}/blank: the name of the class folder '  ' is blank; rename it"
    assert message(write_classes(tmp_path / "one", {"a": 3})) == f"{tmp_path}/one: only one class folder (a); {asks}"
    assert message(write_classes(tmp_path / "empty", {"a": 3, "b": 0})) == (
        f"{tmp_path}/empty/b: the folder is empty; {needs}"
    )
    assert message(write_classes(tmp_path / "single", {"a": 3, "b": 1})) == (
        f"{tmp_path}/single/b: only one image can be used; {needs}"
    )
    broken = write_classes(tmp_path / "broken", {"a": 3, "b": 0})
    for number in range(3):
        (broken / "b" / f"{number}.jpg").write_text("no picture")
    assert message(broken) == f"{broken}/b: none of its images can be read; {needs}"


def test_images_in_no_class_folder_give_a_warning(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    (data / "train" / "loose.jpg").write_bytes(picture())
    with caplog.at_level(logging.WARNING, "batchland"):
        loaded = load_data(data, SPEC)
    assert caplog.messages == [f"{data}/train: 1 images are in no class folder and are not used"]
    assert len(loaded.training.examples) + len(loaded.validation.examples) == 17
