"""Corrected labels in a CSV file with the columns path, label and decision, as the page of a report saves them."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from batchland.errors import UsageError
from batchland.models.card import class_names
from batchland.models.class_match import enumerate_names, find_name, match_classes, name_indices
from batchland.system.csv_files import plain_text, read_columns

COLUMNS: Final = ("path", "label", "decision")


class Corrections(NamedTuple):
    """What was decided about labels."""

    labels: dict[str, str]
    """Right label by image, for the decision `wrong`."""
    kept: dict[str, str]
    """Label by image that was present when it was judged, for the decision `keep`; may be empty."""


class CorrectedFolders:
    """The class folder of each photo; with a corrected label, it is the folder of that label.

    Paths of corrections may be relative to DATA. They may also be relative to DATA/train, DATA/val or DATA/test, if
    only one of these has that photo.
    """

    def __init__(self, corrections: Path, data: Path, folders: Sequence[str]) -> None:
        """folders: the folders of all classes. Raises UsageError if a correction names another class."""
        self._name, self._labels, self._data = str(corrections), read_corrections(corrections).labels, data
        classes = class_names(folders)
        match = match_classes(set(self._labels.values()), classes)
        if match.unknown:
            raise UsageError(
                f"{self._name}: no class folder for {enumerate_names(match.unknown)}; there are folders for "
                f"{enumerate_names([name.label for name in classes])}"
            )
        self._folders = {path: folders[match.index[label]] for path, label in self._labels.items()}
        self._written = list(self._folders)
        self._indices = name_indices(self._written)
        self.moved: Counter[str] = Counter()
        """Number of photos that a correction moved, by their new folder."""

    def folder(self, part: str, folder: str, name: str) -> str:
        """The folder that a photo belongs to. part: train, val, test, or empty. name: its path below `folder`.

        Raises UsageError if a correction without the part may belong to another photo.
        """
        path = f"{folder}/{name}"
        found = self._of(self._data, f"{part}/{path}")
        if found is None and (found := self._of(self._data / part, path)) is not None:
            others = [
                other for other in ("train", "val", "test") if other != part and (self._data / other / path).exists()
            ]
            if part and others:
                raise UsageError(
                    f"{self._name}: {path} is in {part} and in {others[0]}; write {part}/{path} if you mean that photo"
                )
        found = found or folder
        self.moved[found] += found != folder
        return found

    def _of(self, root: Path, path: str) -> str | None:
        """The corrected folder of a photo.

        Paths that differ only in composed and decomposed characters are one photo, unless both files exist.
        """
        index = find_name(self._indices, path)
        written = None if index is None else self._written[index]
        if written is None or (written != path and (root / written).exists()):
            return None
        return self._folders[written]

    def require_moved(self) -> None:
        """Raise UsageError if there are corrections, but none of them moved a photo."""
        if self._folders and not self.moved.total():
            raise UsageError(f"{self._name}: no correction changes the folder of a photo in {self._data}")


def read_corrections(path: Path) -> Corrections:
    """The decisions in a file. Paths and labels may have the apostrophe of `csv_text`.

    Raises UsageError, and InputError if the storage fails.
    """
    columns = read_columns(path, COLUMNS, "a CSV file of corrections")
    rows = [(plain_text(image), plain_text(label), decision) for image, label, decision in zip(*columns, strict=True)]
    _check_rows(path, rows)
    return Corrections(
        {image: label for image, label, decision in rows if decision == "wrong"},
        {image: label for image, label, decision in rows if decision == "keep"},
    )


def _check_rows(path: Path, rows: Sequence[tuple[str, str, str]]) -> None:
    """Raise UsageError if a decision is unknown, a correction has no path or label, or an image has two of them.

    Row 1 is the header.
    """
    labels: dict[str, str] = {}
    decisions: dict[str, str] = {}
    for number, (image, label, decision) in enumerate(rows, 2):
        if decision not in ("keep", "wrong", "unsure"):
            raise UsageError(
                f"{path}: row {number}: has the decision {decision!r}; decisions are keep, wrong and unsure"
            )
        if decision == "wrong" and not (image.strip() and label.strip()):
            missing = f"{image!r} has no label" if image.strip() else "has no path"
            raise UsageError(f"{path}: row {number}: {missing}; a row with the decision wrong needs the right label")
        if labels.setdefault(image, label) != label:
            raise UsageError(
                f"{path}: row {number}: {image!r} has the labels {labels[image]!r} and {label!r}; keep one"
            )
        if decisions.setdefault(image, decision) != decision:
            raise UsageError(
                f"{path}: row {number}: {image!r} has the decisions {decisions[image]} and {decision}; keep one row"
            )
