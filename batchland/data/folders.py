"""Folders of a labelled data set: DATA/train or DATA, DATA/val, and one folder per class in them."""

from pathlib import Path
from typing import Final

from batchland.errors import UsageError
from batchland.system.names import composed

VALIDATION: Final = "../val/"
"""Prefix of the name of a photo in DATA/val, relative to the training folder."""


def training_folder(data: Path) -> Path:
    """DATA/train if it exists, otherwise DATA; absolute. Raises UsageError if DATA is no folder."""
    if not data.is_dir():
        what = "is not a folder" if data.exists() else "does not exist"
        raise UsageError(f"{data}: {what}; give a folder with train/CLASS/*.jpg or CLASS/*.jpg")
    folder = data / "train"
    return (folder if folder.is_dir() else data).absolute()


def validation_folder(data: Path) -> Path | None:
    """DATA/val if both it and DATA/train exist; absolute."""
    folder = data.absolute() / "val"
    return folder if folder.is_dir() and training_folder(data) != data.absolute() else None


def photo_path(folder: Path, name: str) -> Path:
    """Path of a photo from its name, which is relative to the training folder."""
    if name.startswith(VALIDATION):
        return folder.parent / "val" / name.removeprefix(VALIDATION)  # not via `..`: `train` may be a link
    return folder / name


def class_folders(folder: Path) -> list[str]:
    """Names of the class folders in byte order. Raises UsageError if there are fewer than two, or two look the same."""
    names = subfolders(folder)
    if len(names) < 2:
        raise too_few_classes(folder, names)
    forms: dict[str, str] = {}
    for name in names:
        if not name.strip():
            raise UsageError(f"{folder}: the name of the class folder {name!r} is blank; rename it")
        if (twin := forms.setdefault(composed(name), name)) != name:
            raise UsageError(
                f"{folder}: the class folders {twin!a} and {name!a} look the same; they differ only in composed and "
                f"decomposed characters of Unicode; put their photos into one folder"
            )
    return names


def too_few_classes(folder: Path, names: list[str]) -> UsageError:
    """The error about a folder with none or one class folder."""
    found = f"only one class folder ({names[0]})" if names else "no class folders"
    return UsageError(f"{folder}: {found}; training needs one folder per class, CLASS/*.jpg, and at least two classes")


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in `folder` that are not hidden, in byte order."""
    names = (entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    return sorted(names, key=str.encode)
