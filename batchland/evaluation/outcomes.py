"""Read predictions, and join them with labels by image name: the columns that all figures are computed from."""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from batchland.errors import UsageError
from batchland.evaluation.intervals import Floats, Ints
from batchland.evaluation.labels import Labels, composed, match_classes, read_labels, unknown_classes_message
from batchland.evaluation.schema import OUTCOMES, LabelAccount, LabelSource
from batchland.models.card import ClassName
from batchland.predictions.reader import StoredPredictions, predictions_info
from batchland.predictions.schema import FIRST_COLUMNS, PredictionsInfo

EXAMPLES: Final = 10
"""Most names listed where images are counted."""
EXAMINED: Final = 10_000
"""Most names examined to find out why nothing matches."""
_COLUMNS: Final = ("image", "status", "error_code", "class_index", "probability", "margin", "top_k")
_FACTS: Final = ("width", "height", "file_size")
_SHARD: Final = re.compile(r"[^/]+(\.(?:tar|tar\.gz|tgz)/)")


class Predictions(NamedTuple):
    """A predictions file or folder: the columns needed here, and its metadata."""

    source: str
    table: pa.Table
    info: PredictionsInfo


@dataclass(frozen=True)
class Outcomes:
    """Every image with a label and a predictions row, in the predictions' order, all arrays of that length."""

    images: pa.Array
    error_codes: pa.Array
    """Null where the image was scored."""
    facts: pa.Table
    """width, height, file_size."""
    ok: npt.NDArray[np.bool_]
    truth: Ints
    """True class index."""
    predicted: Ints
    """First choice; -1 where failed."""
    probability: Floats
    """Probability of the first choice. NaN for failed images, as in margin, true_probability and squares."""
    margin: Floats
    true_rank: Ints
    """Rank of the true class among the choices kept, from 1; 0 beyond them and where failed."""
    true_probability: Floats
    """NaN beyond the choices kept."""
    squares: Floats
    """Sum of the squared probabilities of the choices kept."""
    choices: npt.NDArray[np.float32]
    """Probabilities of the choices kept, best first, [images, kept]; 0 where failed."""

    @property
    def kept(self) -> int:
        """Choices that every scored image has."""
        return int(self.choices.shape[1])

    def to_table(self, classes: tuple[ClassName, ...]) -> pa.Table:
        """The rows of `outcomes.parquet`."""
        labels = pa.array([name.label for name in classes], pa.string())
        truth = pa.array(self.truth.astype(np.int32))
        predicted = pa.array(self.predicted.astype(np.int32), mask=~self.ok)
        columns = {
            "image": self.images,
            "status": pc.if_else(pa.array(self.ok), "ok", "failed"),
            "error_code": self.error_codes,
            "true_index": truth,
            "true_label": labels.take(truth),
            "predicted_index": predicted,
            "predicted_label": labels.take(predicted),
            "correct": pa.array(self.predicted == self.truth, mask=~self.ok),
            "probability": pa.array(self.probability.astype(np.float32), mask=~self.ok),
            "margin": pa.array(self.margin.astype(np.float32), mask=~self.ok),
            "true_rank": pa.array(self.true_rank.astype(np.int32), mask=self.true_rank == 0),
            "true_probability": pa.array(
                self.true_probability.astype(np.float32), mask=np.isnan(self.true_probability)
            ),
        } | {name: self.facts[name] for name in _FACTS}
        return pa.table(columns, schema=OUTCOMES)


def read_predictions(location: Path | str) -> Predictions:
    """Read a predictions file, or a folder of parts with its manifest, from a path or URL. Raises UsageError."""
    stored = StoredPredictions(location)
    source = stored.name
    if stored.kind is None:
        raise UsageError(f"{source}: does not exist; give predictions that `batchland score` wrote")
    names = _parts(stored) if stored.kind == "folder" else stored.parts()
    schema = stored.schema(names[0])
    if missing := [name for name in FIRST_COLUMNS if name not in schema.names]:
        what = f"no column {missing[0]!r}"
        raise UsageError(f"{source}: not a predictions file ({what}); give predictions that `batchland score` wrote")
    info = predictions_info(schema, source)
    parts = [stored.table(name, (*_COLUMNS, *_FACTS)) for name in names]
    table = pa.concat_tables([part.replace_schema_metadata(None) for part in parts]).combine_chunks()
    if pc.count_distinct(table["image"]).as_py() != table.num_rows:
        raise UsageError(f"{source}: holds some images twice; score each image once")
    return Predictions(source, table, info)


def join(
    predictions: Predictions, labels_path: Path, *, strip_prefix: str = "", ignore_unknown: bool = False
) -> tuple[Outcomes, LabelAccount, LabelSource]:
    """Match labels with predictions by image name and classes by class name, and count what does not match.

    strip_prefix: removed from the start of the predictions' names first; a `*` in it matches anything but `/`. Raises
    UsageError if a class is unknown (unless `ignore_unknown`) or no image matches.
    """
    table, info = predictions.table, predictions.info
    names = table["image"].combine_chunks()
    if strip_prefix:
        pattern = "[^/]*".join(map(re.escape, strip_prefix.split("*")))
        names = pc.replace_substring_regex(names, f"^{pattern}", "")
    labels = read_labels(labels_path, pa.chunked_array([names]), info.images)
    names, label_images = composed(names, labels.images)
    labels = replace(labels, images=label_images)
    if not pc.any(pc.is_in(names, value_set=labels.images)).as_py():
        raise _nothing_matches(predictions, names, labels)
    match = match_classes(set(pc.unique(labels.names).to_pylist()), info.classes)
    if match.unknown and not ignore_unknown:
        raise UsageError(
            unknown_classes_message(labels.source, match.unknown, info.classes), advice="ignore_unknown_classes"
        )
    known = pc.is_in(labels.names, value_set=pa.array(list(match.index), pa.string()))
    unknown_counts = {item["values"]: item["counts"] for item in labels.names.value_counts().to_pylist()}
    images, given = labels.images.filter(known), labels.names.filter(known)
    label_row = pc.index_in(names, value_set=images)
    matched = pc.is_valid(label_row)
    if not pc.any(matched).as_py():
        raise UsageError(unknown_classes_message(labels.source, match.unknown, info.classes))
    used = names.filter(matched)
    if pc.count_distinct(used).as_py() != len(used):
        twice = Counter(used.to_pylist()).most_common(1)[0][0]
        raise UsageError(
            f"{predictions.source}: without the prefix {strip_prefix}, several images are called {twice!r}; give a "
            f"table of labels with the images' names as in the predictions"
        )
    encoded = given.dictionary_encode()
    class_of = np.array([match.index[name] for name in encoded.dictionary.to_pylist()], np.int64)
    truths = class_of[encoded.indices.to_numpy(zero_copy_only=False)]
    truth = truths[label_row.filter(matched).to_numpy(zero_copy_only=False)]
    outcomes = _outcomes(table.filter(matched), truth)
    unpredicted = images.filter(pc.invert(pc.is_in(images, value_set=names)))
    # An image that is left out for its unknown class has a label, so it is not counted as unlabelled.
    unlabelled = names.filter(pc.invert(pc.is_in(names, value_set=labels.images)))
    present = np.zeros(len(info.classes), bool)
    present[truths] = True
    account = LabelAccount(
        predicted=table.num_rows,
        labelled=len(labels.images),
        scored=int(outcomes.ok.sum()),
        failed=int((~outcomes.ok).sum()),
        unlabelled=len(unlabelled),
        unlabelled_examples=tuple(unlabelled[:EXAMPLES].to_pylist()),
        unpredicted=len(unpredicted),
        unpredicted_examples=tuple(unpredicted[:EXAMPLES].to_pylist()),
        missing_classes=tuple(name.label for name, there in zip(info.classes, present, strict=True) if not there),
        unknown_classes={name: unknown_counts[name] for name in match.unknown},
        renamed_classes=match.renamed,
        empty_folders=labels.empty_folders,
        loose_images=labels.loose_images,
        blank_labels=labels.blank_labels,
    )
    return (
        outcomes,
        account,
        LabelSource(path=labels.source, kind=labels.kind, fingerprint=_fingerprint(outcomes, info.classes)),
    )


def _outcomes(table: pa.Table, truth: Ints) -> Outcomes:
    table = table.combine_chunks()
    ok = pc.equal(table["status"], "ok").to_numpy()
    top_k = table["top_k"].combine_chunks()
    lengths = pc.fill_null(pc.list_value_length(top_k), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    flat = top_k.flatten()
    index = pc.struct_field(flat, "class_index").to_numpy(zero_copy_only=False)
    probability = pc.struct_field(flat, "probability").to_numpy(zero_copy_only=False).astype(np.float64)
    ends = np.cumsum(lengths)
    row = np.repeat(np.arange(len(lengths)), lengths)
    hit = np.flatnonzero(index == truth[row])
    rank = np.zeros(len(lengths), np.int64)
    rank[row[hit]] = hit - (ends - lengths)[row[hit]] + 1
    true_probability = np.full(len(lengths), np.nan)
    true_probability[row[hit]] = probability[hit]
    squares = np.bincount(row, probability**2, len(lengths))
    choices = np.zeros((len(ok), int(lengths[ok].min()) if ok.any() else 0), np.float32)
    choices[ok] = probability[(ends - lengths)[ok, None] + np.arange(choices.shape[1])]
    return Outcomes(
        images=table["image"].combine_chunks(),
        error_codes=table["error_code"].combine_chunks(),
        facts=table.select(_FACTS),
        ok=ok,
        truth=truth,
        predicted=pc.fill_null(table["class_index"], -1).to_numpy().astype(np.int64),
        probability=_floats(table["probability"]),
        margin=_floats(table["margin"]),
        true_rank=rank,
        true_probability=true_probability,
        squares=np.where(ok, squares, np.nan),
        choices=choices,
    )


def _floats(column: pa.ChunkedArray) -> Floats:
    values: Floats = pc.fill_null(column.cast(pa.float64()), float("nan")).to_numpy()
    return values


def _parts(folder: StoredPredictions) -> list[str]:
    manifest = folder.manifest()
    if manifest is None:
        raise UsageError(f"{folder.name}: {_without_manifest(folder)}")
    return [file.path for file in manifest.files]


def _without_manifest(folder: StoredPredictions) -> str:
    folders = folder.folders()
    if any(name.lstrip(".").startswith("shard-") for name in folders):
        return "holds shards; run `batchland merge`, and give its output"
    partitions = [name for name in folders if name.startswith(("date=", "model="))]
    if partitions:
        return f"holds the partitions of a job, each of them a separate run; give one, like {partitions[-1]}"
    return "holds no _manifest.json, so no finished run of `batchland score`; run it again to finish it"


def _fingerprint(outcomes: Outcomes, classes: tuple[ClassName, ...]) -> str:
    """sha256 over images and labels, independent of the order of images and of the model's classes."""
    order = pc.array_sort_indices(outcomes.images)
    labels = pa.array([name.label for name in classes], pa.string()).take(pa.array(outcomes.truth))
    text = pc.binary_join_element_wise(outcomes.images.take(order), labels.take(order), "\0")
    return hashlib.sha256("\n".join(text.to_pylist()).encode()).hexdigest()


def _nothing_matches(predictions: Predictions, names: pa.Array, labels: Labels) -> UsageError:
    if not len(labels.images):
        return UsageError(
            f"{labels.source}: holds no labelled image; give class folders with images, or a filled table"
        )
    if not len(names):
        return UsageError(f"{predictions.source}: holds no predictions; there is nothing to evaluate")
    some, others = names[:EXAMINED].to_pylist(), labels.images[:EXAMINED].to_pylist()
    message = (
        f"{predictions.source}: no predicted image has a label: predictions have {some[0]!r}, {labels.source} has "
        f"{others[0]!r}"
    )
    if prefix := _commonest_prefix(some, others):
        prefix = _SHARD.sub(r"*\1", prefix)
        return UsageError(
            f"{message}; the predictions' names start with {prefix}", advice="strip_prefix", prefix=prefix
        )
    if prefix := _commonest_prefix(others, some):
        return UsageError(f"{message}; the labels' names start with {prefix}: give that folder, or names without it")
    return UsageError(f"{message}; labels must name images by their path below the scored folder")


def _commonest_prefix(longer: Sequence[str], shorter: Sequence[str]) -> str:
    """The most frequent leading folders without which a name of `longer` is in `shorter`; empty if there are none."""
    known = set(shorter)
    found = Counter(
        name[: cut + 1] for name in longer for cut, sign in enumerate(name) if sign == "/" and name[cut + 1 :] in known
    )
    return found.most_common(1)[0][0] if found else ""
