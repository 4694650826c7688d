"""The map of a model's last nights: images with similar features are near each other, coloured by night.

The nights' predictions must still exist and have features. From each night, evenly spaced images are used.
"""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from batchland.embeddings.layout import LANDMARKS, Method, layout
from batchland.embeddings.pictures import FEATURES, feature_rows
from batchland.errors import BatchlandError
from batchland.nightly.run_record import ModelRun, RunRecord
from batchland.predictions.reader import StoredPredictions
from batchland.report.map import KNOWN, STEPS, crowded_groups
from batchland.report.pictures import Thumbnails
from batchland.system.paths import resolved
from batchland.system.urls import is_url

MAX_NIGHTS: Final = 14
"""Largest number of nights on a map; the latest ones are used."""
MAX_PARTS: Final = 6
"""Largest number of parts that are read per night, evenly spaced."""
MIN_IMAGES: Final = 20
"""Smallest number of images for a map."""
MAX_PICTURE_BYTES: Final = 300_000
"""Limit for the bytes of all small pictures of a map. Pictures of the last night are added first."""
_SIDE: Final = 96
"""Longest side of a small picture in pixels."""
_COLUMNS: Final = ("image", "label", "probability", "file_size")


class NightGroup(NamedTuple):
    """A group of similar images with a larger share of the last night's images than the images outside it."""

    images: int
    last: int
    """Number of images of the last night."""
    share: float
    """Share of the last night's images among the images outside the group."""
    p_value: float
    """One-sided and exact, adjusted by Holm for all groups."""
    label: str
    """Most frequent first choice."""


class NightMap(NamedTuple):
    """The map of one model, for the page."""

    data: dict[str, Any]
    """For each point: x, y, night, predicted, confidence, image and known. For the map:
    nights, roots, labels and pictures."""
    points: int
    nights: tuple[date, ...]
    method: Method
    groups: tuple[NightGroup, ...]
    """Groups with the largest share of the last night first."""
    tested: int
    """Number of groups that were tested; 0 if the nights are too large to be read as a whole."""


@dataclass(frozen=True)
class _Night:
    day: date
    root: str
    facts: pa.Table
    features: npt.NDArray[np.float16]
    whole: bool
    """Whether all parts were read."""


def night_maps(records: Sequence[RunRecord]) -> dict[str, NightMap]:
    """A map for each model that has at least two nights with features of its last version. records: oldest first.

    If no night has two models, only the last model has a map.
    """
    found: dict[str, NightMap] = {}
    every = [(record.date, model) for record in records for model in record.models]
    one = all(len(record.models) <= 1 for record in records)
    for name in dict.fromkeys(model.name for _, model in (every[-1:] if one else every)):
        runs = [(day, model) for day, model in every if one or model.name == name]
        if (made := _night_map(runs)) is not None:
            found[name] = made
    return found


def _night_map(runs: Sequence[tuple[date, ModelRun]]) -> NightMap | None:
    scored = [run.model.features_sha256 for _, run in runs if run.model and run.counts and run.counts.ok]
    same = [(day, run) for day, run in runs if run.model and [run.model.features_sha256] == scored[-1:]][-MAX_NIGHTS:]
    nights = [night for day, run in same if (night := _read(day, run, LANDMARKS // max(len(same), 1)))]
    if len(nights) < 2 or sum(len(night.features) for night in nights) < MIN_IMAGES:
        return None
    features = np.concatenate([night.features for night in nights])
    facts = pa.concat_tables([night.facts for night in nights])
    number = np.repeat(np.arange(len(nights)), [len(night.features) for night in nights])
    positions, method = layout(features)
    tested, groups = 0, tuple[NightGroup, ...]()
    if all(night.whole for night in nights):
        tested, groups = _groups(features, number == len(nights) - 1, facts)
    points = np.rint(positions * STEPS).astype(np.int64)
    labels = facts["label"].combine_chunks().dictionary_encode()
    data: dict[str, Any] = {
        "x": points[:, 0].tolist(),
        "y": points[:, 1].tolist(),
        "night": number.tolist(),
        "predicted": labels.indices.to_pylist(),
        "confidence": np.rint(facts["probability"].to_numpy() * 1000).astype(np.int64).tolist(),
        "image": facts["image"].to_pylist(),
        "labels": labels.dictionary.to_pylist(),
        "nights": [str(night.day) for night in nights],
        "roots": [night.root for night in nights],
        "pictures": _pictures(nights),
    }
    if KNOWN in facts.column_names:
        data["known"] = np.rint(facts[KNOWN].to_numpy() * 100).astype(np.int64).tolist()
    days = tuple(night.day for night in nights)
    return NightMap(data, len(number), days, method, groups, tested)


def _read(day: date, run: ModelRun, most: int) -> _Night | None:
    """At most `most` images of a night; None if its predictions are deleted, changed or without features."""
    with suppress(BatchlandError, OSError, pa.ArrowException):
        stored = StoredPredictions(run.partition)
        if stored.kind is None or stored.info().run_id != run.run_id:
            return None
        parts = stored.parts()
        chosen = [parts[at] for at in np.linspace(0, len(parts) - 1, min(len(parts), MAX_PARTS)).astype(int)]
        step = max(1, stored.info().counts.ok * len(chosen) // len(parts) // most)
        tables, features, read = [], [], 0
        for part in chosen:
            schema = stored.schema(part).names
            if FEATURES not in schema:
                return None
            columns = [*_COLUMNS, *([KNOWN] if KNOWN in schema else [])]
            for batch in stored.batches(part, [*columns, FEATURES]):
                scored = batch.filter(pc.is_valid(batch[FEATURES]))
                rows = np.arange(-read % step, len(scored), step)
                read += len(scored)
                tables.append(pa.Table.from_batches([scored.select(columns)]).take(pa.array(rows)))
                features.append(feature_rows(scored[FEATURES])[rows])
        facts = pa.concat_tables(tables)
        rows = np.linspace(0, facts.num_rows - 1, min(facts.num_rows, most)).astype(np.int64)
        root = stored.info().images
        local = str(resolved(root)) if not is_url(root) and Path(root).is_dir() else ""
        return _Night(day, local, facts.take(rows), np.concatenate(features)[rows], len(chosen) == len(parts))
    return None


def _groups(
    features: npt.NDArray[np.float16], is_last: npt.NDArray[np.bool_], facts: pa.Table
) -> tuple[int, tuple[NightGroup, ...]]:
    count, crowded = crowded_groups(features, is_last)
    found = []
    for group in crowded:
        rows = group.rows[is_last[group.rows]]
        ((label, _),) = Counter(facts["label"].take(pa.array(rows)).to_pylist()).most_common(1)
        found.append(NightGroup(len(group.rows), len(rows), group.elsewhere, group.p_value, label))
    return count, tuple(sorted(found, key=lambda each: -each.last / each.images))


def _pictures(nights: Sequence[_Night]) -> dict[int, str]:
    """Data URIs of small pictures by the index of their point."""
    found: dict[int, str] = {}
    end = sum(len(night.features) for night in nights)
    left = MAX_PICTURE_BYTES
    for night in reversed(nights):
        start = end - len(night.features)
        if night.root:
            thumbnails = Thumbnails(Path(night.root), _SIDE, left)
            names, sizes = night.facts["image"].to_pylist(), night.facts["file_size"].to_pylist()
            for row, (image, size) in enumerate(zip(names, sizes, strict=True)):
                if not thumbnails.left:
                    break
                if uri := thumbnails.make(image, size).uri:
                    found[start + row] = uri
            left = thumbnails.left
        end = start
    return found
