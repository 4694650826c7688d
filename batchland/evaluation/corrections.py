"""Labels with the corrections that were saved on the page of a report."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from batchland.errors import UsageError
from batchland.evaluation.label_files import LabelBlock, Labels
from batchland.system.regular_files import read_regular

COLUMNS = ("path", "label", "decision")


class CorrectedLabels:
    """Labels in which images that were judged `wrong` have the label of the corrections."""

    def __init__(self, labels: Labels, corrections: Path) -> None:
        """corrections: a CSV file with the columns path, label and decision. Raises UsageError."""
        self._labels = labels
        self._name, self._by_image = str(corrections), read_corrections(corrections)
        self.source, self.kind, self.own, self.folders = labels.source, labels.kind, labels.own, labels.folders

    @property
    def loose_images(self) -> int:
        """Of the labels."""
        return self._labels.loose_images

    @property
    def blank_labels(self) -> int:
        """Of the labels."""
        return self._labels.blank_labels

    def blocks(self) -> Iterator[LabelBlock]:
        """The labels. Raises UsageError if there are corrections, but none for a labelled image."""
        images, labels = pa.array(list(self._by_image), pa.string()), pa.array(self._by_image.values(), pa.string())
        corrected = 0
        for block in self._labels.blocks():
            at = pc.index_in(block.images, value_set=images)
            corrected += len(at) - at.null_count
            yield block._replace(names=pc.coalesce(labels.take(at), block.names))
        if len(images) and not corrected:
            raise UsageError(f"{self._name}: none of its images has a label in {self.source}")


def read_corrections(path: Path) -> dict[str, str]:
    """Corrected labels by image. Raises UsageError."""
    from pyarrow import csv

    try:
        header = read_regular(path).decode("utf-8-sig").partition("\n")[0]
        table = csv.read_csv(
            path,
            parse_options=csv.ParseOptions(delimiter=max(",;\t", key=header.count)),
            convert_options=csv.ConvertOptions(column_types=dict.fromkeys(COLUMNS, pa.string())),
        )
        rows = list(zip(*(table[name].to_pylist() for name in COLUMNS), strict=True))
    except (OSError, KeyError, UnicodeDecodeError, pa.ArrowException) as error:
        reason = str(error).partition("\n")[0]
        raise UsageError(
            f"{path}: cannot be read as corrections, with columns path, label, decision ({reason})"
        ) from error
    unknown = next((decision for _, _, decision in rows if decision not in ("keep", "wrong", "unsure")), None)
    if unknown is not None:
        raise UsageError(f"{path}: has the decision {unknown!r}; decisions are keep, wrong and unsure")
    _check_rows(path, rows)
    return {image: label for image, label, decision in rows if decision == "wrong"}


def _check_rows(path: Path, rows: Sequence[tuple[str, str, str]]) -> None:
    """Raise UsageError if a correction has no path or label, or if an image has two labels. Row 1 is the header."""
    labels: dict[str, str] = {}
    for number, (image, label, decision) in enumerate(rows, 2):
        if decision == "wrong" and not (image.strip() and label.strip()):
            missing = f"{image!r} has no label" if image.strip() else "has no path"
            raise UsageError(f"{path}: row {number}: {missing}; a row with the decision wrong needs the right label")
        if labels.setdefault(image, label) != label:
            raise UsageError(
                f"{path}: row {number}: {image!r} has the labels {labels[image]!r} and {label!r}; keep one"
            )
