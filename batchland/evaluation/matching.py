"""Match predictions with labels by image name, for any number of images.

If the predictions are in the order of their names, as those of a folder are, the labels are distributed by ranges of
names, and each range is matched by hashing. Else both sides are sorted together by name, on disk where they are large,
and the result is sorted back into the order of the predictions.
"""

import hashlib
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from tempfile import TemporaryFile
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from batchland.errors import UsageError
from batchland.evaluation.intervals import Ints
from batchland.evaluation.label_files import Labels
from batchland.evaluation.sorting import (
    Order,
    RowRanges,
    range_starts,
    ranges_of_sorted,
    sorted_batches,
    whole_groups,
    written_down,
)
from batchland.models.card import ClassName
from batchland.models.class_match import enumerate_names, match_classes, unknown_classes_message

EXAMPLES: Final = 10
"""Largest number of names that are listed as examples."""
EXAMINED: Final = 10_000
"""Largest number of names that are examined to find out why nothing matches."""
_log: Final = logging.getLogger("batchland")
_SHARD: Final = re.compile(r"[^/]+(\.(?:tar|tar\.gz|tgz)/)")
_PREDICTION, _LABEL, _DOUBTFUL = 0, 1, 2
"""Kinds of rows that are sorted together."""
_RANGE_ROWS: Final = 2**15
"""Predictions of a range of names that is matched at once. Few names are hashed faster, within the CPU's cache."""
_MOST_LABELS: Final = 2**20
"""Most labels of such a range."""
_NAMES: Final = pa.schema(
    [
        ("name", pa.string()),
        ("image", pa.string()),  # null where it is the name
        ("kind", pa.int8()),
        ("row", pa.int64()),
        ("class", pa.int32()),
    ]
)
_IMAGES: Final = pa.schema([("image", pa.string()), ("class_index", pa.int32())])
MATCHES: Final = pa.schema([("row", pa.int64()), ("class_index", pa.int32())])
"""Columns of matches, besides the labels' own columns. row: of the predictions, from 0."""


class ComposedNamesCollideError(Exception):
    """Different images have names that differ only in composed and decomposed characters."""


@dataclass(frozen=True)
class NameForm:
    """The form of image names in which predictions, labels and corrections are compared."""

    strip_prefix: str = ""
    """Removed from the names of predictions; `*` stands for any characters within a folder name."""
    compose: bool = True
    """Whether composed and decomposed characters are equal."""

    def of_predictions(self, images: pa.Array) -> pa.Array:
        """Names of predicted images."""
        if not self.strip_prefix:
            return self.of_labels(images)
        prefix = "[^/]*".join(map(re.escape, self.strip_prefix.split("*")))
        return self.of_labels(pc.replace_substring_regex(images, f"^{prefix}", ""))

    def of_labels(self, images: pa.Array) -> pa.Array:
        """Names of labelled images."""
        if not self.compose or pc.all(pc.string_is_ascii(images)).as_py() is not False:
            return images
        return pc.utf8_normalize(images, form="NFC")


@dataclass(frozen=True)
class Matcher:
    """Predicted names, labels, and the way to match them."""

    source: str
    """Name of the predictions, for messages."""
    names: Callable[[], Iterable[pa.Array]]
    """Gives the predicted images' names in order; called several times."""
    labels: Callable[[NameForm], Labels]
    """Opens the labels."""
    classes: tuple[ClassName, ...]
    strip_prefix: str = ""
    ignore_unknown: bool = False

    def run(self) -> "Matches":
        """Match. Raises UsageError if a class is unknown (unless ignored) or no image matches."""
        try:
            return _Run(self, NameForm(self.strip_prefix)).matches()
        except ComposedNamesCollideError:
            return _Run(self, NameForm(self.strip_prefix, compose=False)).matches()


@dataclass(frozen=True)
class Matches:
    """Predicted images with a label, in the order of the predictions, and the account of all others."""

    batches: Iterator[pa.RecordBatch]
    """Rows with the columns of MATCHES and the labels' own columns. Can be read only once."""
    own: pa.Schema
    account: dict[str, Any]
    """The fields of LabelAccount, except scored, failed, reviewed and corrected."""
    fingerprint: str
    labels: Labels
    reviewed: dict[int, bool]
    """Rows of the predictions with a label that was kept or corrected, and whether that changed it."""


@dataclass
class _Found:
    """Counts and examples from the sorted names so far."""

    predicted: int = 0
    labelled: int = 0
    unlabelled: int = 0
    unpredicted: int = 0
    both: int = 0
    """Predicted images with a label, of unknown classes, too."""
    reviewed: dict[int, bool] = field(default_factory=dict)
    """As in Matches."""
    by_name: Counter[int] = field(default_factory=Counter)
    """Labelled images by number of the class name."""
    unlabelled_first: "_First" = field(default_factory=lambda: _First())
    unpredicted_first: "_First" = field(default_factory=lambda: _First())


class _First:
    """The names of the EXAMPLES smallest rows."""

    def __init__(self) -> None:
        self._rows: list[tuple[int, str]] = []

    def add(self, rows: Ints, names: pa.Array) -> None:
        chosen = np.argsort(rows, kind="stable")[:EXAMPLES]
        found = zip(rows[chosen].tolist(), names.take(pa.array(chosen)).to_pylist(), strict=True)
        self._rows = sorted([*self._rows, *found])[:EXAMPLES]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for _, name in self._rows)


class _Run:
    """One attempt to match."""

    def __init__(self, matcher: Matcher, form: NameForm) -> None:
        self._matcher, self._form, self._labels = matcher, form, matcher.labels(form)
        self._class_names: dict[str, int] = {}
        self._some_predicted: list[str] = []
        self._some_labelled: list[str] = []
        self._found = _Found()
        self._schema = pa.unify_schemas(
            [_NAMES, pa.schema([(f"own{i}", each.type) for i, each in enumerate(self._labels.own)])]
        )
        self._plain = True
        """Whether no predicted name was changed for matching; known after one pass over the names."""
        self._stripped = False
        """Whether a predicted name begins with the prefix; likewise."""

    def matches(self) -> Matches:
        own = self._labels.own
        schema = pa.schema([*MATCHES, *((f"own{i}", each.type) for i, each in enumerate(own))])
        fingerprint = _Fingerprint([name.label for name in self._matcher.classes])
        by_name: Order = [("name", "ascending")]
        starts = range_starts((names for _, names in self._predicted()), _RANGE_ROWS)
        if starts is not None:
            ordered = written_down(schema, self._matched(self._by_range(starts), fingerprint, schema))
        else:
            rows = sorted_batches(self._schema, chain(self._predictions(), self._label_rows()), by_name)
            matched = self._matched(whole_groups(rows, "name"), fingerprint, schema)
            ordered = sorted_batches(schema, matched, [("row", "ascending")])
        first = next(ordered, None)  # now all names have been seen
        found, labels = self._found, self._labels
        counts = {name: found.by_name[number] for name, number in self._class_names.items()}
        match = match_classes([name for name, images in counts.items() if images], self._matcher.classes)
        if not found.both:
            raise self._nothing_matches()
        if match.unknown and (first is None or not self._matcher.ignore_unknown):
            message = unknown_classes_message(labels.source, match.unknown, self._matcher.classes)
            if self._matcher.ignore_unknown:
                raise UsageError(message)
            raise UsageError(message, advice="ignore_unknown_classes")
        assert first is not None
        if self._matcher.strip_prefix and not self._stripped:
            _log.warning("%s: no image's name begins with %s", self._matcher.source, self._matcher.strip_prefix)
        present = set(match.index.values())
        account = {
            "predicted": found.predicted,
            "labelled": found.labelled,
            "unlabelled": found.unlabelled,
            "unlabelled_examples": found.unlabelled_first.names,
            "unpredicted": found.unpredicted,
            "unpredicted_examples": found.unpredicted_first.names,
            "missing_classes": tuple(
                name.label for number, name in enumerate(self._matcher.classes) if number not in present
            ),
            "unknown_classes": {name: counts[name] for name in match.unknown},
            "renamed_classes": match.renamed,
            "empty_folders": tuple(name for name in labels.folders if not counts.get(name)),
            "loose_images": labels.loose_images,
            "blank_labels": labels.blank_labels,
        }
        batches = (
            pa.RecordBatch.from_arrays(batch.columns, names=[*MATCHES.names, *own.names])
            for batch in chain([first], ordered)
        )
        return Matches(batches, own, account, fingerprint.hexdigest(), labels, found.reviewed)

    def _by_range(self, starts: pa.Array) -> Iterator[pa.RecordBatch]:
        """Predictions in their order, and labels, by ranges of names; a range with many labels is sorted and cut."""
        with TemporaryFile() as file:
            labelled = RowRanges(file, self._schema, self._label_rows(), "name", starts)
            for number, predicted in enumerate(ranges_of_sorted(self._predictions(), "name", starts)):
                rows = chain(predicted, labelled.rows(number))
                if labelled.sizes[number] > _MOST_LABELS:
                    yield from whole_groups(sorted_batches(self._schema, rows, [("name", "ascending")]), "name")
                else:
                    yield from pa.Table.from_batches(rows, self._schema).combine_chunks().to_batches()

    def _predictions(self) -> Iterator[pa.RecordBatch]:
        row = 0
        for images, names in self._predicted():
            if len(self._some_predicted) < EXAMINED:
                self._some_predicted += names[: EXAMINED - len(self._some_predicted)].to_pylist()
            yield self._batch(names, images, _PREDICTION, row)
            row += len(images)
        self._found.predicted = row

    def _predicted(self) -> Iterator[tuple[pa.Array, pa.Array]]:
        """The predicted images, and their names for matching."""
        for images in self._matcher.names():
            names = self._form.of_predictions(images)
            self._plain &= names is images or names.equals(images)
            self._stripped |= not names.equals(self._form.of_labels(images))
            yield images, names

    def _label_rows(self) -> Iterator[pa.RecordBatch]:
        row = 0
        for block in self._labels.blocks():
            if len(self._some_labelled) < EXAMINED:
                self._some_labelled += block.images[: EXAMINED - len(self._some_labelled)].to_pylist()
            encoded = block.names.dictionary_encode()
            used = encoded.indices.unique()  # a dictionary may hold names that no image has
            numbers = np.zeros(len(encoded.dictionary), np.int32)
            numbers[used.to_numpy()] = [
                self._class_names.setdefault(name, len(self._class_names))
                for name in encoded.dictionary.take(used).to_pylist()
            ]
            classes = pa.array(numbers[encoded.indices.to_numpy()])
            kinds = pc.if_else(block.doubtful, pa.scalar(_DOUBTFUL, pa.int8()), pa.scalar(_LABEL, pa.int8()))
            yield self._batch(self._form.of_labels(block.images), block.images, kinds, row, classes, block.own)
            row += len(block.images)

    def _batch(
        self,
        names: pa.Array,
        images: pa.Array,
        kind: int | pa.Array,
        row: int,
        classes: pa.Array | None = None,
        own: Sequence[pa.Array] = (),
    ) -> pa.RecordBatch:
        size = len(names)
        changed = None if names is images else pc.not_equal(names, images)
        if changed is None or not pc.any(changed).as_py():
            images = pa.nulls(size, pa.string())
        else:
            images = pc.if_else(changed, images, pa.scalar(None, pa.string()))
        columns = [
            names,
            images,
            pa.repeat(pa.scalar(kind, pa.int8()), size) if isinstance(kind, int) else kind,
            pa.array(np.arange(row, row + size)),
            pa.nulls(size, pa.int32()) if classes is None else classes,
            *(own or [pa.nulls(size, each.type) for each in self._labels.own]),
        ]
        return pa.record_batch(columns, schema=self._schema)

    def _matched(
        self, batches: Iterator[pa.RecordBatch], fingerprint: "_Fingerprint", schema: pa.Schema
    ) -> Iterator[pa.RecordBatch]:
        """The pairs of a prediction and a label, counting the others. batches: each has all rows of its names."""
        index = None
        with TemporaryFile() as file, pa.ipc.new_stream(file, _IMAGES) as by_name:
            for batch in batches:
                index = self._index() if index is None else index  # all class names are known now
                taken = self._examine(batch, index)
                if not len(taken):
                    continue
                classes = taken["class"]
                if self._plain:
                    fingerprint.add(taken["name"], classes)
                else:
                    images = pc.coalesce(taken["image"], taken["name"])
                    by_name.write_batch(pa.record_batch([images, classes], schema=_IMAGES))
                yield pa.record_batch([taken["row"], classes, *taken.columns[5:]], schema=schema)
            if not self._plain:
                by_name.close()
                file.seek(0)
                for batch in sorted_batches(_IMAGES, pa.ipc.open_stream(file), [("image", "ascending")]):
                    fingerprint.add(batch["image"], batch["class_index"])

    def _examine(self, batch: pa.RecordBatch, index: Ints) -> pa.RecordBatch:
        """The rows of predictions that have a label, with the class and own columns of the label."""
        kind = batch["kind"].to_numpy()
        row = batch["row"].to_numpy()
        group, sizes = _groups(batch["name"])
        is_prediction = kind == _PREDICTION
        predictions = np.bincount(group[is_prediction], minlength=sizes)
        counted = ~is_prediction & ((kind == _LABEL) | (predictions[group] > 0))
        labels = np.bincount(group[counted], minlength=sizes)
        if predictions.max() > 1:
            self._check_predictions(batch, group, is_prediction, predictions, labels)
        label_of = np.full(sizes, -1)
        at = np.flatnonzero(counted)
        if labels.max() > 1:
            at = at[np.argsort(-row[at])]
        label_of[group[at]] = at  # the label of the smallest row
        class_of = np.full(sizes, -1)
        numbers = pc.fill_null(batch["class"], -1).to_numpy()
        labelled = label_of >= 0
        if labels.max() > 1:
            classes = np.where(index < 0, np.arange(len(index)) + len(self._matcher.classes), index)
            self._check_labels(batch, group, np.sort(at), numbers, classes, label_of)
        class_of[labelled] = index[numbers[label_of[labelled]]]
        found = self._found
        found.labelled += int(labelled.sum())
        found.by_name.update(dict(enumerate(np.bincount(numbers[label_of[labelled]]).tolist())))
        self._count(batch, row, np.flatnonzero(is_prediction & ~labelled[group]), found.unlabelled_first, "unlabelled")
        lonely = label_of[labelled & (predictions == 0) & (class_of >= 0)]
        self._count(batch, row, lonely, found.unpredicted_first, "unpredicted")
        taken = np.flatnonzero(is_prediction & (class_of[group] >= 0))
        found.both += int((is_prediction & labelled[group]).sum())
        if reviewed := self._labels.reviewed:
            labels_of = row[label_of[group[taken]]].tolist()
            found.reviewed |= {
                at: reviewed[label]
                for at, label in zip(row[taken].tolist(), labels_of, strict=True)
                if label in reviewed
            }
        whole = len(taken) and taken[-1] - taken[0] == len(taken) - 1
        rows = batch[taken[0] : taken[-1] + 1] if whole else batch.take(pa.array(taken))
        own = [column.take(pa.array(label_of[group[taken]])) for column in batch.columns[5:]]
        found_classes = pa.array(class_of[group[taken]].astype(np.int32))
        columns = [rows["name"], rows["image"], rows["kind"], rows["row"], found_classes, *own]
        return pa.record_batch(columns, schema=batch.schema)

    def _count(self, batch: pa.RecordBatch, row: Ints, at: Ints, first: _First, count: str) -> None:
        if len(at):
            setattr(self._found, count, getattr(self._found, count) + len(at))
            first.add(row[at], batch["name"].take(pa.array(at)))

    def _check_predictions(
        self,
        batch: pa.RecordBatch,
        group: Ints,
        is_prediction: npt.NDArray[np.bool_],
        predictions: Ints,
        labels: Ints,
    ) -> None:
        """Raise an error if an image occurs twice, or if several images with a label have one name."""
        repeated = np.flatnonzero(is_prediction & (predictions[group] > 1))
        rows = batch.take(pa.array(repeated))
        images = pc.coalesce(rows["image"], rows["name"])
        counts = pc.value_counts(images)
        twice = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
        if len(twice):
            raise UsageError(f"{self._matcher.source}: holds {twice[0].as_py()} twice; score each image once")
        if self._form.compose:
            raise ComposedNamesCollideError
        labelled = np.flatnonzero(labels[group[repeated]] > 0)
        if len(labelled):
            raise UsageError(
                f"{self._matcher.source}: without the prefix {self._matcher.strip_prefix}, several images are called "
                f"{rows['name'][labelled[0]].as_py()!r}; give a table of labels with the images' names as in the "
                f"predictions"
            )

    def _check_labels(
        self, batch: pa.RecordBatch, group: Ints, at: Ints, numbers: Ints, classes: Ints, label_of: Ints
    ) -> None:
        """Raise an error if an image has labels of two classes.

        at: rows of labels; numbers: of their class names; classes: of each class name; label_of: the first of each
        group.
        """
        first = label_of[group[at]]
        if self._form.compose:
            images = pc.coalesce(batch["image"], batch["name"])
            if not images.take(pa.array(at)).equals(images.take(pa.array(first))):
                raise ComposedNamesCollideError
        other = at[classes[numbers[at]] != classes[numbers[first]]]
        if not len(other):
            return
        names, image = list(self._class_names), batch["name"][int(other[0])].as_py()
        rows = at[group[at] == group[other[0]]]
        rows = rows[np.argsort(batch["row"].to_numpy()[rows])]
        given = [*dict.fromkeys(names[numbers[row]] for row in rows)]
        raise UsageError(
            f"{self._labels.source}: {image!r} has {len(given)} different labels: {enumerate_names(given, 5)}; keep one"
        )

    def _index(self) -> Ints:
        """Index of the model's class of each number of a class name; -1 for unknown ones."""
        match = match_classes(self._class_names.keys(), self._matcher.classes)
        return np.array([match.index.get(name, -1) for name in self._class_names] or [-1], np.int64)

    def _nothing_matches(self) -> UsageError:
        predictions, labels = self._matcher.source, self._labels.source
        some, others = self._some_predicted, self._some_labelled
        if not self._found.labelled:
            return UsageError(f"{labels}: holds no labelled image; give class folders with images, or a filled table")
        if not some:
            return UsageError(f"{predictions}: holds no predictions; there is nothing to evaluate")
        message = (
            f"{predictions}: no predicted image has a label: predictions have {some[0]!r}, {labels} has {others[0]!r}"
        )
        if prefix := _commonest_prefix(some, others):
            prefix = _SHARD.sub(r"*\1", prefix)
            return UsageError(
                f"{message}; the predictions' names start with {prefix}", advice="strip_prefix", prefix=prefix
            )
        if prefix := _commonest_prefix(others, some):
            return UsageError(
                f"{message}; the labels' names start with {prefix}: give that folder, or names without it"
            )
        return UsageError(f"{message}; labels must name images by their path below the scored folder")


def _groups(names: pa.Array) -> tuple[Ints, int]:
    """Number of the group of equal names that each name belongs to, from 0, and the number of groups."""
    half, odd = divmod(len(names), 2)
    first = names[:half]
    if not odd and first.equals(names[half:]) and not pc.any(pc.equal(first[1:], first[:-1])).as_py():
        return np.tile(np.arange(half), 2), half  # each prediction has one label, in the same order
    encoded = names.dictionary_encode()
    return encoded.indices.to_numpy().astype(np.int64), len(encoded.dictionary)


class _Fingerprint:
    """sha256 over images, in order, and their labels; independent of the order of the model's classes."""

    def __init__(self, labels: Sequence[str]) -> None:
        self._ends = pa.array([f"\0{label}\n" for label in labels], pa.string())
        self._sha256 = hashlib.sha256()
        self._separator = b""

    def add(self, images: pa.Array, classes: pa.Array) -> None:
        """The next images, in the order of their names, and the indices of their classes."""
        text = pc.binary_join_element_wise(images, self._ends.take(classes), "")
        self._sha256.update(self._separator)
        self._sha256.update(memoryview(text.buffers()[2])[:-1])
        self._separator = b"\n"

    def hexdigest(self) -> str:
        """Hash of all images so far."""
        return self._sha256.hexdigest()


def _commonest_prefix(longer: Sequence[str], shorter: Sequence[str]) -> str:
    """The most frequent leading folders without which a name of `longer` is in `shorter`; empty if there are none."""
    known = set(shorter)
    found = Counter(
        name[: cut + 1] for name in longer for cut, sign in enumerate(name) if sign == "/" and name[cut + 1 :] in known
    )
    return found.most_common(1)[0][0] if found else ""
