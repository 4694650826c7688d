"""Labels with the corrections that were saved on the page of a report."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchland.data.corrections import read_corrections
from batchland.errors import UsageError
from batchland.evaluation.label_files import LabelBlock, Labels
from batchland.evaluation.matching import ComposedNamesCollideError, NameForm
from batchland.models.card import ClassName
from batchland.models.class_match import match_classes, unknown_classes_message
from batchland.system.text import counted, first_few

_log = logging.getLogger("batchland")


class CorrectedLabels:
    """Labels in which images that were judged `wrong` have the label of the corrections."""

    def __init__(self, labels: Labels, corrections: Path, form: NameForm, classes: Sequence[ClassName] | None) -> None:
        """corrections: a CSV file with the columns path, label and decision. Paths are those of predictions or labels.

        classes: those that the labels must be of; None: any.

        Raises UsageError, and ComposedNamesCollideError if paths of one form have different labels.
        """
        self._labels, self._name, self._form = labels, str(corrections), form
        right, kept = read_corrections(corrections)
        if classes and (unknown := match_classes(set(right.values()), classes).unknown):
            raise UsageError(unknown_classes_message(self._name, unknown, classes))
        self._by_image: dict[str, str] = {}
        for image, label in zip(self._names(right), right.values(), strict=True):
            if self._by_image.setdefault(image, label) != label and form.compose:
                raise ComposedNamesCollideError
        self._reviewed = {*self._by_image, *self._names(kept)}
        self._classes = classes
        self.source, self.kind, self.own, self.folders = labels.source, labels.kind, labels.own, labels.folders
        self.reviewed: dict[int, bool] = {}
        """Numbers of the rows of `blocks` with the decision `wrong` or `keep`, and whether that changed the label.

        Known after the last block."""

    @property
    def loose_images(self) -> int:
        """`loose_images` of the labels without corrections."""
        return self._labels.loose_images

    @property
    def blank_labels(self) -> int:
        """`blank_labels` of the labels without corrections."""
        return self._labels.blank_labels

    def blocks(self) -> Iterator[LabelBlock]:
        """The labels. Raises UsageError if there are corrections, but none for a labelled image.

        A warning names corrected images without a label.
        """
        images, labels = pa.array(list(self._by_image), pa.string()), pa.array(self._by_image.values(), pa.string())
        corrected = np.zeros(len(images), bool)
        reviewed = pa.array(self._reviewed, pa.string())
        row = 0
        for block in self._labels.blocks():
            names = self._form.of_labels(block.images)
            at = pc.index_in(names, value_set=images)
            corrected[at.drop_null().to_numpy()] = True
            here = at.is_valid()
            old, new = block.names.filter(here).cast(pa.string()), labels.take(at.drop_null())
            rows = row + np.flatnonzero(here)
            checked = pc.is_in(names, value_set=reviewed).to_numpy(zero_copy_only=False)
            self.reviewed |= dict.fromkeys((row + np.flatnonzero(checked)).tolist(), False)
            self.reviewed |= dict.fromkeys(self._changed(old.to_pylist(), new.to_pylist(), rows.tolist()), True)
            row += len(here)
            yield block._replace(names=pc.coalesce(labels.take(at), block.names.cast(pa.string())))
        if len(images) and not corrected.any():
            raise UsageError(f"{self._name}: none of its images has a label in {self.source}")
        if not corrected.all():
            left = images.filter(pa.array(~corrected)).to_pylist()
            what = counted(len(left), "corrected image")
            _log.warning("%s: %s without a label in %s: %s", self._name, what, self.source, first_few(left))

    def _names(self, paths: Iterable[str]) -> list[str]:
        names: list[str] = self._form.of_predictions(pa.array(list(paths), pa.string())).to_pylist()
        return names

    def _changed(self, old: list[str | None], new: list[str], rows: list[int]) -> set[int]:
        """Those of the rows with another class than before. A folder and its label are one class."""
        names = {*new, *(name for name in old if name)}
        index: dict[str, int] = match_classes(names, self._classes).index if self._classes else {}
        return {
            row
            for row, before, after in zip(rows, old, new, strict=True)
            if index.get(before or "", before) != index.get(after, after)
        }
