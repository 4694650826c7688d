"""The map of a report, on which images with similar features are near each other, and groups of similar mistakes."""

from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from batchland.embeddings.layout import Method, layout, principal_components
from batchland.embeddings.neighbours import Floats
from batchland.embeddings.pictures import FEATURES, feature_rows
from batchland.errors import BatchlandError
from batchland.evaluation.intervals import holm
from batchland.predictions.reader import StoredPredictions
from batchland.report.findings import LEVEL
from batchland.report.page_images import MAX_ROWS, PageImages
from batchland.system.text import count, images, p_value, percent, visible

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
_AROUND: Final = (12, 25, 50, 100)
"""Images of the groups around single flagged images."""
_MAX_CENTRES: Final = 500
"""Largest number of these images, evenly spaced."""
_JITTER: Final = 1e-5
"""Standard deviation of the noise that is added to components, so that the order of equal pictures has no effect."""
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

    @property
    def text(self) -> str:
        """The group in two sentences."""
        return (
            f"{count(self.wrong)} of {images(self.images)} that look alike are wrong: "
            f"{percent(self.wrong / self.images)}, against {percent(self.elsewhere)} elsewhere "
            f"({p_value(self.p_value)}). Most often {visible(self.true_label)} predicted as "
            f"{visible(self.predicted_label)}."
        )


class MapView(NamedTuple):
    """The content of the map on the page."""

    data: dict[str, Any]
    """For each point the row of its image, whether it is wrong (0 or 1), x and y, 0 to STEPS, and `known` in percent
    if the predictions have it. It is not compressed, so that the map is drawn while the page is loaded."""
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
        "wrong": _wrong(_answers(evaluation, found.images)).astype(int).tolist(),
        "x": points[:, 0].tolist(),
        "y": points[:, 1].tolist(),
    }
    if found.known is not None:
        data["known"] = np.rint(np.nan_to_num(found.known, nan=-0.01) * 100).astype(np.int64).tolist()
    sample = found if images.all_there else _read(evaluation, _evenly(evaluation))
    tested, groups = error_groups(evaluation, sample.images, sample.features, images) if sample else (0, ())
    return MapView(data, len(points), method, groups, tested)


def error_groups(
    evaluation: "Evaluation", names: list[str], features: npt.NDArray[np.float16], images: PageImages
) -> tuple[int, tuple[ErrorGroup, ...]]:
    """The number of groups of similar images, and those with more mistakes than chance explains."""
    answers = _answers(evaluation, names)
    wrong = _wrong(answers)
    count, crowded = crowded_groups(features, wrong)
    found = []
    for group in crowded:
        rows = group.rows[wrong[group.rows]]
        pairs = Counter(zip(answers["true_label"][rows], answers["predicted_label"][rows], strict=True))
        (true_label, predicted_label), _ = pairs.most_common(1)[0]
        typical = [names[row] for row in rows if answers["true_label"][row] == true_label]
        found.append(
            ErrorGroup(
                len(group.rows),
                len(rows),
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

    rows: npt.NDArray[np.int64]
    elsewhere: float
    """Share of the flagged among all other images."""
    p_value: float
    """One-sided and exact, adjusted by Holm for all groups."""


def crowded_groups(features: npt.NDArray[np.float16], flagged: npt.NDArray[np.bool_]) -> tuple[int, list[CrowdedGroup]]:
    """The number of tested groups of similar images, and those with more flagged images than elsewhere.

    Half of the level is for groups that k-means forms without looking at the flags. The other half is for groups of a
    flagged image and the images nearest to it; the flagged image itself is not counted. No image is in two of the
    returned groups.
    """
    from scipy.stats import hypergeom

    images, total = len(flagged), int(flagged.sum())
    components = principal_components(features, _COMPONENTS)
    groups: list[npt.NDArray[np.int64]] = []
    p_values: list[npt.NDArray[np.float64]] = []
    for own, formed in ((0, _partition(components)), (1, _surroundings(components, flagged))):
        size = np.array([len(rows) for rows in formed], int) - own
        some = np.array([flagged[rows].sum() for rows in formed], int) - own
        groups += formed
        p_values.append(2 * holm(hypergeom.sf(some - 1, images - own, total - own, size)).clip(max=0.5))
    p_value, taken, found = np.concatenate(p_values), np.zeros(images, bool), []
    for number in np.argsort(p_value, kind="stable"):
        rows = groups[number]
        if p_value[number] < LEVEL and not taken[rows].any():
            taken[rows] = True
            elsewhere = float((total - flagged[rows].sum()) / max(images - len(rows), 1))
            found.append(CrowdedGroup(rows, elsewhere, float(p_value[number])))
    return len(groups), found


def _partition(components: Floats) -> list[npt.NDArray[np.int64]]:
    """All images in groups of about _PER_GROUP."""
    from scipy.cluster.vq import kmeans2

    count = min(int(np.clip(len(components) // _PER_GROUP, *_GROUPS)), len(np.unique(components, axis=0)))
    _, number = kmeans2(components, count, minit="++", rng=np.random.default_rng(0))
    return [np.flatnonzero(number == group) for group in np.unique(number)]


def _surroundings(components: Floats, flagged: npt.NDArray[np.bool_]) -> list[npt.NDArray[np.int64]]:
    """Groups of each flagged image and the images nearest to it."""
    from scipy.spatial import KDTree

    centres = np.flatnonzero(flagged)
    centres = centres[:: len(centres) // _MAX_CENTRES + 1]
    sizes = [size for size in _AROUND if size <= len(components) // 2]
    if not len(centres) or not sizes:
        return []
    places = components + np.random.default_rng(0).normal(0, _JITTER, components.shape)
    _, near = KDTree(places).query(places[centres], k=sizes[-1])
    return [rows[:size] for rows in near for size in sizes]


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


def _wrong(answers: dict[str, npt.NDArray[np.object_]]) -> npt.NDArray[np.bool_]:
    return answers["true_label"] != answers["predicted_label"]


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
        columns = stored.schema(stored.parts()[0]).names
        if FEATURES not in columns:
            return None
        for batch in stored.rows(["image", FEATURES, *([KNOWN] if KNOWN in columns else [])]):
            batch = batch.filter(pc.and_(pc.is_in(batch["image"], value_set=wanted), pc.is_valid(batch[FEATURES])))
            images += batch["image"].to_pylist()
            features.append(feature_rows(batch[FEATURES]))
            if KNOWN in columns:
                known.append(batch[KNOWN].to_numpy(zero_copy_only=False))
        return _Rows(images, np.concatenate(features), np.concatenate(known) if len(known) == len(features) else None)
    return None
