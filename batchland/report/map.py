"""The map of a report, on which images with similar features are near each other, and groups of similar mistakes."""

import base64
import json
import zlib
from collections import Counter
from contextlib import suppress
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
from batchland.report.findings import LEVEL
from batchland.report.page_images import MAX_ROWS, PageImages

if TYPE_CHECKING:
    from batchland.evaluation.evaluate import Evaluation

KNOWN: Final = "known"
"""Column with the similarity of an image to known photos, if the predictions have it."""
_COMPONENTS: Final = 16
"""Principal components in which groups are formed."""
_PER_GROUP: Final = 40
"""Images of a group, on average."""
_GROUPS: Final = (2, 40)
"""Least and largest number of groups."""
_MIN_IMAGES: Final = 20
"""Least number of images of a map."""
STEPS: Final = 1000
"""Coordinates are whole numbers from 0 to this."""


class ErrorGroup(NamedTuple):
    """A group of similar images with a higher error rate than the others."""

    images: int
    wrong: int
    elsewhere: float
    """Error rate of all other images."""
    p_value: float
    """P-value of a one-sided exact test, adjusted by Holm for all groups."""
    true_label: str
    """The most frequent true label of the mistakes."""
    predicted_label: str
    """The most frequent prediction of mistakes with this true label."""
    row: int | None
    """A row of the page's data with a mistake of the group."""


class MapView(NamedTuple):
    """The content of the map on the page."""

    data: str
    """See `packed`: for each point its image's row on the page, x and y from 0 to STEPS, and `known` in percent if the
    predictions have it."""
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
    points = np.rint(positions * STEPS).astype(np.int64)
    data: dict[str, Any] = {
        "row": [images.rows[name] for name in found.images],
        "x": points[:, 0].tolist(),
        "y": points[:, 1].tolist(),
    }
    if found.known is not None:
        data["known"] = np.rint(np.nan_to_num(found.known, nan=-0.01) * 100).astype(np.int64).tolist()
    sample = found if images.all_there else _read(evaluation, _evenly(evaluation))
    tested, groups = error_groups(evaluation, sample.images, sample.features, images) if sample else (0, ())
    return MapView(packed(data), len(points), method, groups, tested)


def error_groups(
    evaluation: "Evaluation", names: list[str], features: npt.NDArray[np.float16], images: PageImages
) -> tuple[int, tuple[ErrorGroup, ...]]:
    """The number of groups of similar images, and those with more mistakes than chance explains."""
    answers = _answers(evaluation, names)
    wrong = answers["true_label"] != answers["predicted_label"]
    number, count, crowded = crowded_groups(features, wrong)
    found = []
    for group in crowded:
        rows = np.flatnonzero((number == group.number) & wrong)
        pairs = Counter(zip(answers["true_label"][rows], answers["predicted_label"][rows], strict=True))
        (true_label, predicted_label), _ = pairs.most_common(1)[0]
        typical = [names[row] for row in rows if answers["true_label"][row] == true_label]
        found.append(
            ErrorGroup(
                group.images,
                group.flagged,
                group.elsewhere,
                group.p_value,
                true_label,
                predicted_label,
                next((images.rows[name] for name in typical if name in images.rows), None),
            )
        )
    return count, tuple(sorted(found, key=lambda each: -each.wrong / each.images))


class CrowdedGroup(NamedTuple):
    """Similar images of which more are flagged than chance explains."""

    number: int
    images: int
    flagged: int
    elsewhere: float
    """Share of the flagged among all other images."""
    p_value: float
    """One-sided and exact, adjusted by Holm for all groups."""


def crowded_groups(
    features: npt.NDArray[np.float16], flagged: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.int64], int, list[CrowdedGroup]]:
    """The number of each image's group, the number of groups, and those with more flagged images than elsewhere.

    The groups are formed by k-means without looking at the flags, so that the tests are valid.
    """
    from scipy.cluster.vq import kmeans2
    from scipy.stats import hypergeom

    images = len(flagged)
    components = principal_components(features, _COMPONENTS)
    count = min(int(np.clip(images // _PER_GROUP, *_GROUPS)), len(np.unique(components, axis=0)))
    _, number = kmeans2(components, count, minit="++", rng=np.random.default_rng(0))
    size, some = np.bincount(number, minlength=count), np.bincount(number, flagged, count).astype(np.int64)
    p_values = holm(hypergeom.sf(some - 1, images, int(flagged.sum()), size))
    found = [
        CrowdedGroup(
            int(group),
            int(size[group]),
            int(some[group]),
            float((flagged.sum() - some[group]) / max(images - size[group], 1)),
            float(p_values[group]),
        )
        for group in np.flatnonzero(p_values < LEVEL)
    ]
    return number.astype(np.int64), count, found


def packed(data: object) -> str:
    """JSON, compressed by zlib, as base64; page.js unpacks it."""
    return base64.b64encode(zlib.compress(json.dumps(data, separators=(",", ":")).encode(), 9)).decode()


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
    seen = 0
    for batch in evaluation.outcomes_file.batches(["image", "correct"]):
        scored = batch.filter(batch["correct"].is_valid())["image"]
        names += scored.take(pa.array(range(-seen % step, len(scored), step), pa.int64())).to_pylist()
        seen += len(scored)
    return names


def _read(evaluation: "Evaluation", names: list[str]) -> _Rows | None:
    """Features of images, in the predictions' order; None if there are none, or the predictions have changed."""
    summary = evaluation.summary
    location, wanted = summary.predictions, pa.array(names, pa.string())
    images: list[str] = []
    features, known = [], []
    with suppress(BatchlandError, OSError, pa.ArrowException):
        stored = StoredPredictions(location)
        if stored.kind is None or stored.info().run_id != summary.run_id:
            return None
        for part in stored.parts():
            columns = stored.schema(part).names
            if FEATURES not in columns:
                return None
            for batch in stored.batches(part, ["image", FEATURES, *([KNOWN] if KNOWN in columns else [])]):
                batch = batch.filter(pc.and_(pc.is_in(batch["image"], value_set=wanted), pc.is_valid(batch[FEATURES])))
                images += batch["image"].to_pylist()
                features.append(feature_rows(batch[FEATURES]))
                if KNOWN in columns:
                    known.append(batch[KNOWN].to_numpy(zero_copy_only=False))
        return _Rows(images, np.concatenate(features), np.concatenate(known) if len(known) == len(features) else None)
    return None
