"""The scored images of predictions as tables and vectors that can be compared."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from batchland.errors import UsageError
from batchland.predictions.reader import StoredPredictions
from batchland.predictions.storage import Location
from batchland.system.paths import resolved
from batchland.system.urls import is_url

FEATURES: Final = "features"
"""Column of the features, where `score` wrote them."""
FACTS: Final = ("image", "label", "probability", "file_size", "sha256", "difference_hash", "thumbnail", "contrast")
"""Columns that are read for every image."""
Features = npt.NDArray[np.float16]
_log = logging.getLogger("batchland")


@dataclass(frozen=True)
class Pictures:
    """The scored images of one or more predictions, in their order."""

    sources: tuple[str, ...]
    """Names of the predictions: paths or URLs."""
    roots: tuple[str, ...]
    """The scored folder of each."""
    facts: pa.Table
    """Columns FACTS and `source`, the index of the predictions that the image is from."""
    features: Features | None
    """Vectors of length 1, [images, dimensions]; None unless all images have features."""

    def __len__(self) -> int:
        return int(self.facts.num_rows)

    def filter(self, mask: npt.NDArray[np.bool_]) -> "Pictures":
        """The images for which the mask is true."""
        if mask.all():
            return self
        return replace(
            self,
            facts=self.facts.filter(pa.array(mask)),
            features=None if self.features is None else self.features[mask],
        )


def open_predictions(locations: Sequence[Location]) -> list[StoredPredictions]:
    """The predictions at these paths and URLs. Raises UsageError where there are none, or the same ones twice."""
    stored = [StoredPredictions(each) for each in locations]
    seen = set()
    for location, each in zip(locations, stored, strict=True):
        if each.kind is None:
            raise UsageError(f"{each.name}: does not exist; give what `batchland score` wrote")
        location = each.name if is_url(location) else str(resolved(location))
        if location in seen:
            raise UsageError(f"{each.name}: is given twice; give it once")
        seen.add(location)
        each.info()
    return stored


def read_pictures(locations: Sequence[Location]) -> Pictures:
    """Read predictions, and their features if all of them have those of the same model.

    Raises UsageError where there are no predictions, or an earlier version wrote them; InputError.
    """
    stored = open_predictions(locations)
    infos = [each.info() for each in stored]
    one_model = len({info.model.features_sha256 for info in infos}) == 1
    has_features = one_model and all(FEATURES in each.schema(each.parts()[0]).names for each in stored)
    tables, vectors, empty = [], [], []
    for number, each in enumerate(stored):
        count = 0
        for batch in scored_batches(each, [*FACTS, *([FEATURES] if has_features else [])]):
            if has_features:
                vectors.append(feature_rows(batch[FEATURES]))
            of = pa.array(np.full(batch.num_rows, number, np.int32))
            count += batch.num_rows
            tables.append(pa.Table.from_batches([batch.select(FACTS)]).append_column("source", of))
        if not count:
            empty.append(each.name)
    if len(empty) == len(stored):
        raise UsageError(f"{empty[0]}: has no image that was scored; nothing can be compared")
    for name in empty:
        _log.warning("%s: has no image that was scored", name)
    return Pictures(
        tuple(each.name for each in stored),
        tuple(info.images for info in infos),
        pa.concat_tables(tables).combine_chunks(),
        np.concatenate(vectors) if has_features and len({each.shape[1] for each in vectors}) == 1 else None,
    )


def feature_rows(column: pa.Array) -> Features:
    """A column of features without nulls as an array, [rows, dimensions], not copied."""
    size = column.type.list_size
    values = column.values.to_numpy(zero_copy_only=False)[column.offset * size : (column.offset + len(column)) * size]
    return np.asarray(values, np.float16).reshape(len(column), size)


def scored_batches(stored: StoredPredictions, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Some columns of the scored images."""
    for part in stored.parts():
        if not set(columns) <= set(stored.schema(part).names):
            raise UsageError(f"{stored.name}: has no signals, an earlier version wrote it; score the images again")
        for batch in stored.batches(part, [*columns, "status"]):
            yield batch.filter(pc.equal(batch["status"], "ok")).select(list(columns))
