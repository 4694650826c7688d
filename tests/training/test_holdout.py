"""Validation and training photos of a checkpoint."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toys import COLOURS, picture, toy_card

from batchland.errors import UsageError
from batchland.training.holdout import Holdout, read_holdout

PATH = Path("runs/toy/checkpoint.pt")


def holdout(folder: Path, validation: list[str], data: Path | None = None, **card: Any) -> Holdout:
    return read_holdout(PATH, {"data": str(folder), "validation": validation}, toy_card(**card), data)


def every(number: int) -> list[str]:
    return [f"{folder}/{number}.jpg" for folder in COLOURS]


def test_labels_follow_class_names(colour_folders: Path) -> None:
    held = holdout(colour_folders, every(1)[::-1])
    assert held.labels.tolist() == [2, 1, 0]
    colours = held.scores(lambda pixels: pixels.mean((1, 2)).astype(np.float32))
    assert colours.argmax(1).tolist() == [2, 1, 0]
    assert held.sample(2).shape == (2, 8, 8, 3)
    assert held.sample(99).mean((1, 2)).argmax(1).tolist() == [2, 1, 0]


def test_val_folder_is_found_next_to_a_linked_train_folder(colour_folders: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train").symlink_to(colour_folders)
    for folder, colour in COLOURS.items():
        (tmp_path / "data" / "val" / folder).mkdir(parents=True)
        (tmp_path / "data" / "val" / folder / "v.jpg").write_bytes(picture(colour))
    names = [f"../val/{folder}/v.jpg" for folder in COLOURS]
    for held in (holdout(tmp_path / "data" / "train", names), holdout(tmp_path / "gone", names, tmp_path / "data")):
        assert held.labels.tolist() == [0, 1, 2]
        assert held.sample(9).mean((1, 2)).argmax(1).tolist() == [0, 1, 2]
        assert sum(len(batch) for batch in held.training_batches(100, batch_size=4)) == 9


def test_training_batches_hold_all_other_readable_photos(colour_folders: Path) -> None:
    (colour_folders / "00.Red_Tower" / "bad.jpg").write_text("no photo")
    (colour_folders / "loose.jpg").write_bytes(picture())
    held = holdout(colour_folders, every(1))
    batches = [batch.copy() for batch in held.training_batches(100, batch_size=4)]
    assert [len(batch) for batch in batches] == [3, 3]
    assert np.concatenate(batches).mean((1, 2)).argmax(1).tolist() == [0, 0, 1, 1, 2, 2]
    assert sum(len(batch) for batch in held.training_batches(4, batch_size=8)) == 4


@pytest.mark.parametrize(
    ("folders", "says"),
    [
        (("00.Red_Tower", "02.Blue_Lake", "01.Green_Hill"), "it has them in another order"),
        (("00.Red_Tower", "01.Green_Hill", "03.Sea"), "it lacks '03.Sea' and has '02.Blue_Lake'"),
        (("00.Red_Tower", "01.Green_Hill"), "it has '02.Blue_Lake'"),
        ((*COLOURS, "03.Sea"), "it lacks '03.Sea'"),
    ],
)
def test_other_class_folders_are_refused(colour_folders: Path, folders: tuple[str, ...], says: str) -> None:
    with pytest.raises(UsageError) as caught:
        holdout(colour_folders, every(1), folders=folders)
    assert str(caught.value) == (f"{colour_folders}: not the classes that {PATH} was trained on: {says}")


def test_missing_and_unknown_validation_classes_are_refused(colour_folders: Path) -> None:
    with pytest.raises(UsageError, match=r"no validation image of '02.Blue_Lake'; train again"):
        holdout(colour_folders, every(1)[:2])
    with pytest.raises(UsageError, match="validation images of classes that its card does not name"):
        holdout(colour_folders, [*every(1), "09.Foreign/1.jpg"])


def test_missing_or_damaged_photos_are_named(colour_folders: Path, tmp_path: Path) -> None:
    (colour_folders / "01.Green_Hill" / "1.jpg").write_bytes(picture()[:-60])
    with pytest.raises(UsageError, match=r"01.Green_Hill/1.jpg cannot be read \(.*\), and without it the"):
        holdout(colour_folders, every(1)).sample(3)
    with pytest.raises(UsageError) as caught:
        holdout(tmp_path / "gone", every(1)).sample(1)
    assert str(caught.value) == (
        f"{PATH}: its validation image {tmp_path}/gone/00.Red_Tower/1.jpg cannot be read (No such file or directory), "
        f"and without it the export cannot be checked"
    )
    assert holdout(tmp_path / "gone", every(2), data=colour_folders).sample(9).shape == (3, 8, 8, 3)
