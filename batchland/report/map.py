"""The map of a report: images with similar features lie near each other; and where mistakes lie close together."""

import base64
import json
import zlib
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from batchland.embeddings.layout import Method, layout, principal_components
from batchland.embeddings.pictures import FEATURES, feature_rows
from batchland.errors import BatchlandError
from batchland.evaluation.intervals import holm
from batchland.predictions.reader import StoredPredictions
from batchland.predictions.storage import output_location
from batchland.report.findings import LEVEL
from batchland.report.page_images import MAX_ROWS, PageImages
from batchland.system.urls import is_url

if TYPE_CHECKING:
    from batchland.evaluation.evaluate import Evaluation

_KNOWN: Final = "known"
"""Column of how well known an image is to the model, where predictions have it."""
_COMPONENTS: Final = 16
"""Principal components in which groups are formed."""
_PER_GROUP: Final = 40
"""Images of a group, on average."""
_GROUPS: Final = (2, 40)
"""Fewest and most groups."""
_MIN_IMAGES: Final = 20
"""Images; a map of fewer says nothing."""
_STEPS: Final = 1000
"""Places are whole numbers from 0 to this."""


class ErrorGroup(NamedTuple):
    """Similar images of which more are wrong than elsewhere."""

    images: int
    wrong: int
    elsewhere: float
    """Error rate of all other images."""
    p_value: float
    """One-sided and exact, adjusted by Holm for all groups."""
    true_label: str
    """Of most of the mistakes."""
    predicted_label: str
    """Of most of those."""
    row: int | None
    """A mistake of it on the page."""


class MapView(NamedTuple):
    """What the page shows."""

    data: str
    """JSON, compressed by zlib, as base64: for each point the row of its image, x and y, 0 to 1000, and `known` in
    percent if the predictions have it."""
    points: int
    method: Method
    groups: tuple[ErrorGroup, ...]
    """Worst first."""
    tested: int
    """Number of groups that were tested."""


class _Rows(NamedTuple):
    images: list[str]
    features: npt.NDArray[np.float16]
    known: npt.NDArray[np.float32] | None


def map_view(evaluation: "Evaluation", images: PageImages) -> MapView | None:
    """The map of the images on the page; None if their predictions have no features."""
    found = _read(evaluation, list(images.rows))
    if found is None or len(found.images) < _MIN_IMAGES:
        return None
    positions, method = layout(found.features)
    points = np.rint(positions * _STEPS).astype(np.int64)
    data: dict[str, Any] = {
        "row": [images.rows[name] for name in found.images],
        "x": points[:, 0].tolist(),
        "y": points[:, 1].tolist(),
    }
    if found.known is not None:
        data["known"] = np.rint(np.nan_to_num(found.known, nan=-0.01) * 100).astype(np.int64).tolist()
    text = base64.b64encode(zlib.compress(json.dumps(data, separators=(",", ":")).encode(), 9)).decode()
    sample = found if images.all_there else _read(evaluation, _evenly(evaluation))
    tested, groups = error_groups(evaluation, sample.images, sample.features, images) if sample else (0, ())
    return MapView(text, len(points), method, groups, tested)


def error_groups(
    evaluation: "Evaluation", names: list[str], features: npt.NDArray[np.float16], images: PageImages
) -> tuple[int, tuple[ErrorGroup, ...]]:
    """The number of groups of similar images, and those with more mistakes than chance explains.

    The groups are formed by k-means without looking at answers or labels, so that the tests are valid.
    """
    from scipy.cluster.vq import kmeans2
    from scipy.stats import hypergeom

    answers = _answers(evaluation, names)
    wrong = answers["true_label"] != answers["predicted_label"]
    count = int(np.clip(len(names) // _PER_GROUP, *_GROUPS))
    _, group = kmeans2(principal_components(features, _COMPONENTS), count, minit="++", rng=np.random.default_rng(0))
    size, bad = np.bincount(group, minlength=count), np.bincount(group, wrong, count).astype(np.int64)
    p_values = holm(hypergeom.sf(bad - 1, len(names), int(wrong.sum()), size))
    found = []
    for number in np.flatnonzero(p_values < LEVEL):
        rows = np.flatnonzero((group == number) & wrong)
        pairs = Counter(zip(answers["true_label"][rows], answers["predicted_label"][rows], strict=True))
        (true_label, predicted_label), _ = pairs.most_common(1)[0]
        typical = [names[row] for row in rows if answers["true_label"][row] == true_label]
        elsewhere = (wrong.sum() - bad[number]) / max(len(names) - size[number], 1)
        found.append(
            ErrorGroup(
                int(size[number]),
                int(bad[number]),
                float(elsewhere),
                float(p_values[number]),
                true_label,
                predicted_label,
                next((images.rows[name] for name in typical if name in images.rows), None),
            )
        )
    return count, tuple(sorted(found, key=lambda each: -each.wrong / each.images))


def _answers(evaluation: "Evaluation", names: list[str]) -> dict[str, npt.NDArray[np.object_]]:
    """True and predicted labels of images, in their order."""
    wanted, columns = pa.array(names), ["image", "true_label", "predicted_label"]
    tables = [
        pa.Table.from_batches([batch.filter(pc.is_in(batch["image"], value_set=wanted))])
        for batch in evaluation.outcomes_file.batches(columns)
    ]
    table = pa.concat_tables(tables)
    table = table.take(pc.index_in(wanted, value_set=table["image"].combine_chunks()))
    return {name: np.array(table[name].to_pylist(), object) for name in columns[1:]}


def _evenly(evaluation: "Evaluation") -> list[str]:
    """At most MAX_ROWS scored images, evenly spaced."""
    step = evaluation.summary.account.scored // MAX_ROWS + 1
    names: list[str] = []
    for batch in evaluation.outcomes_file.batches(["image", "correct"]):
        names += batch.filter(batch["correct"].is_valid())["image"].to_pylist()
    return names[::step]


def _read(evaluation: "Evaluation", names: list[str]) -> _Rows | None:
    """Features of images, in the predictions' order; None if there are none, or the predictions have changed."""
    summary = evaluation.summary
    location, wanted = summary.predictions, pa.array(names, pa.string())
    images: list[str] = []
    features, known = [], []
    with suppress(BatchlandError, OSError, pa.ArrowException):
        stored = StoredPredictions(output_location(location) if is_url(location) else Path(location))
        if stored.kind is None or stored.info().run_id != summary.run_id:
            return None
        for part in stored.parts():
            columns = stored.schema(part).names
            if FEATURES not in columns:
                return None
            for batch in stored.batches(part, ["image", FEATURES, *([_KNOWN] if _KNOWN in columns else [])]):
                batch = batch.filter(pc.and_(pc.is_in(batch["image"], value_set=wanted), pc.is_valid(batch[FEATURES])))
                images += batch["image"].to_pylist()
                features.append(feature_rows(batch[FEATURES]))
                if _KNOWN in columns:
                    known.append(batch[_KNOWN].to_numpy(zero_copy_only=False))
        return _Rows(images, np.concatenate(features), np.concatenate(known) if len(known) == len(features) else None)
    return None
