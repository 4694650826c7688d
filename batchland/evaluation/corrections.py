"""Labels with the corrections that were saved on the page of a report."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
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


class CorrectedLabels(Labels):
    """Labels in which images that were judged `wrong` have the label of the corrections."""

    def __init__(
        self, labels: Labels, corrections: Path, form: NameForm, classes: Sequence[ClassName], *, ignore_unknown: bool
    ) -> None:
        """corrections: a CSV file with the columns path, label and decision. Paths are those of predictions or labels.

        classes: of the model. ignore_unknown: whether labels may be of other classes.

        Raises UsageError, and ComposedNamesCollideError if paths with the same composed form have different
        labels.
        """
        super().__init__(labels.source)
        self._labels, self._name, self._form = labels, str(corrections), form
        right, kept = read_corrections(corrections)
        if not ignore_unknown and (unknown := match_classes(set(right.values()), classes).unknown):
            raise UsageError(unknown_classes_message(self._name, unknown, classes))
        self._decided: dict[str, tuple[str, bool]] = {}
        """By image: the right label and True, or the label that is kept and False."""
        for decided, wrong in ((right, True), (kept, False)):
            for image, label in zip(self._names(decided), decided.values(), strict=True):
                if self._decided.setdefault(image, (label, wrong)) != (label, wrong) and form.compose:
                    raise ComposedNamesCollideError
        self._classes = classes
        self.kind, self.own, self.folders = labels.kind, labels.own, labels.folders

    def blocks(self) -> Iterator[LabelBlock]:
        """The labels. Raises UsageError if there are corrections, but none for a labelled image.

        Warnings name corrected images without a label, and images that have another label than the one that was kept.
        The latter do not count as reviewed.
        """
        images = pa.array(self._decided, pa.string())
        decided = np.array([label for label, _ in self._decided.values()], object)
        wrong = np.array([wrong for _, wrong in self._decided.values()], bool)
        right = pa.array(decided, pa.string(), mask=~wrong)
        missing, relabelled, row = wrong.copy(), [], 0
        for block in self._labels.blocks():
            at = pc.index_in(self._form.of_labels(block.images), value_set=images)
            here, found = np.flatnonzero(at.is_valid()), at.drop_null().to_numpy()
            missing[found] = False
            names = block.names.cast(pa.string())
            differs = self._differ(names.take(pa.array(here)).to_pylist(), decided[found].tolist())
            stale = differs & ~wrong[found]
            relabelled += images.take(pa.array(found[stale])).to_pylist()
            reviewed = zip((row + here[~stale]).tolist(), differs[~stale].tolist(), strict=True)
            self.reviewed |= dict(reviewed)
            row += len(names)
            yield block._replace(names=pc.coalesce(right.take(at), names))
        self.loose_images, self.blank_labels = self._labels.loose_images, self._labels.blank_labels
        if wrong.any() and missing[wrong].all():
            raise UsageError(f"{self._name}: none of its images has a label in {self.source}")
        self._warn(images.filter(pa.array(missing)).to_pylist(), "corrected image", "without a label in")
        self._warn(relabelled, "image", "to keep with another label in")

    def _warn(self, images: list[str], noun: str, what: str) -> None:
        if images:
            _log.warning(
                "%s: %s %s %s: %s", self._name, counted(len(images), noun), what, self.source, first_few(images)
            )

    def _names(self, paths: Iterable[str]) -> list[str]:
        return self._form.of_predictions(pa.array(list(paths), pa.string())).to_pylist()

    def _differ(self, present: list[str | None], decided: list[str]) -> npt.NDArray[np.bool_]:
        """For each image, whether the decided label is of another class than the present one.

        The folder and the label of a class are equal. An empty decided label stands for the present one.
        """
        index: dict[str, int] = match_classes({*decided, *filter(None, present)} - {""}, self._classes).index
        differ = (
            bool(after) and index.get(before or "", before) != index.get(after, after)
            for before, after in zip(present, decided, strict=True)
        )
        return np.fromiter(differ, np.bool_, len(decided))
