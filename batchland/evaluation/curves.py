"""Precision-recall and ROC curves of each class against all others, and the areas under them.

A class's score for an image is its probability if it is among the choices kept, else 0, the lowest score. Up to EXACT
choices are used exactly; more are counted in BINS bins of equal width on the logit scale.
"""

from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from batchland.evaluation.counts import ScoreCells, ScoreCounts
from batchland.evaluation.intervals import Floats, Ints, wilson, z_score
from batchland.evaluation.schema import CURVES, Figure

EXACT: Final = 2**20
"""Up to this number of choices, scores are not binned."""
BINS: Final = 1024
MAX_LOGIT: Final = 16.0
POINTS: Final = 60
"""Most points of a curve in `curves.parquet`."""
_TABLE_SHIFT: Final = 10
"""Bits of a float32 that do not decide its bin."""


class CurveCounts:
    """Counts choices by class, score and whether they are the true class, block by block."""

    def __init__(self, classes: int, exact: int = EXACT) -> None:
        self._classes, self._exact, self._entries = classes, exact, 0
        self._few = ScoreCounts(limit=2 * exact)
        self._bins: npt.NDArray[np.int64] | None = None
        """Choices by class, hit and bin, after more than `exact` of them."""

    def add(self, classes: Ints, scores: npt.NDArray[np.float32], hits: npt.NDArray[np.bool_]) -> None:
        """Add choices; all arrays of the same length."""
        self._entries += len(classes)
        if self._bins is None and self._entries <= self._exact:
            self._few.add(classes, scores, hits)
            return
        if self._bins is None:
            self._bins = np.zeros(self._classes * 2 * BINS, np.int64)
            cells = self._few.cells
            for hit, counts in ((0, cells.images - cells.hits), (1, cells.hits)):
                keys = (cells.classes * 2 + hit) * BINS + _bins_of(cells.low)
                self._bins += np.bincount(keys, counts, len(self._bins)).astype(np.int64)
        self._bins += np.bincount((classes * 2 + hits) * BINS + _bins_of(scores), minlength=len(self._bins))

    @property
    def cells(self) -> ScoreCells:
        """All choices so far."""
        if self._bins is None:
            return self._few.cells
        counts = self._bins.reshape(self._classes, 2, BINS)
        classes, number = np.nonzero(counts.sum(axis=1))
        low = _edges()[number]
        images, hits = counts.sum(axis=1)[classes, number], counts[classes, 1, number]
        return ScoreCells(classes, low, low.astype(np.float64), images, hits)


class ClassCurve(NamedTuple):
    """The curve of one class: cumulative counts by falling threshold, and its areas."""

    thresholds: npt.NDArray[np.float32]
    hits: Ints
    """Images of the class with at least that score."""
    false: Ints
    """Other images with at least that score."""
    positives: int
    negatives: int
    average_precision: Figure
    auroc: Figure


def class_curve(cells: ScoreCells, positives: int, negatives: int, confidence: float) -> ClassCurve | None:
    """The curve of one class; None without images of the class or of others. cells: of this class."""
    if not positives or not negatives:
        return None
    hits, false = np.cumsum(cells.hits[::-1]), np.cumsum((cells.images - cells.hits)[::-1])
    thresholds = cells.low[::-1]
    if not len(hits) or hits[-1] < positives or false[-1] < negatives:  # the images beyond the choices kept
        hits, false = np.r_[hits, positives], np.r_[false, negatives]
        thresholds = np.r_[thresholds, np.float32(0)]
    precision = hits / (hits + false)
    gained, lost = np.diff(hits, prepend=0), np.diff(false, prepend=0)
    area = float((gained * precision).sum() / positives)
    # Of each image, the share of images of the other kind that it is ranked right against; ties count half.
    of_positive = (negatives - false + lost / 2) / negatives
    of_negative = (hits - gained / 2) / positives
    auroc = float((gained * of_positive).sum() / positives)
    variance = sum(
        float((counts * (shares - auroc) ** 2).sum()) / max(total - 1, 1) / total
        for counts, shares, total in ((gained, of_positive, positives), (lost, of_negative, negatives))
    )
    return ClassCurve(
        thresholds,
        hits,
        false,
        positives,
        negatives,
        _logit_figure(area, 1 / max(positives * area * (1 - area), 1e-12), positives, confidence),
        _logit_figure(auroc, variance / max((auroc * (1 - auroc)) ** 2, 1e-12), min(positives, negatives), confidence),
    )


def class_curves(cells: ScoreCells, support: Ints, confidence: float) -> dict[int, ClassCurve]:
    """The curves of all classes that have one. support: scored images by class."""
    total = int(support.sum())
    found = {
        number: class_curve(cells.of_class(number), int(support[number]), total - int(support[number]), confidence)
        for number in range(len(support))
    }
    return {number: curve for number, curve in found.items() if curve}


def macro_figures(curves: dict[int, ClassCurve], confidence: float) -> dict[str, Figure | None]:
    """Means over the classes, with the interval of a mean of independent figures."""
    return {
        f"macro_{name}": _mean([getattr(curve, name) for curve in curves.values()], confidence)
        for name in ("average_precision", "auroc")
    }


def curves_table(curves: dict[int, ClassCurve], labels: list[str]) -> pa.Table:
    """The rows of `curves.parquet`: the points of each class's curve, by falling threshold, then those of the means."""
    rows = [_points(labels[number], curve) for number, curve in curves.items()]
    if curves:
        rows.append(_macro_points(list(curves.values())))
    return pa.concat_tables([CURVES.empty_table(), *rows]).combine_chunks()


def _points(label: str, curve: ClassCurve) -> pa.Table:
    count = len(curve.hits)
    # Evenly along the curve: points are chosen by the images of both kinds that they add.
    way = curve.hits / curve.positives + curve.false / curve.negatives
    at = np.unique(np.r_[0, np.searchsorted(way, np.linspace(0, way[-1], POINTS)).clip(max=count - 1), count - 1])
    hits, false = curve.hits[at], curve.false[at]
    columns = [
        [label] * len(at), curve.thresholds[at], hits / curve.positives, hits / (hits + false), false / curve.negatives,
    ]  # fmt: skip
    return pa.table(columns, schema=CURVES)


def _macro_points(curves: list[ClassCurve]) -> pa.Table:
    """Mean precision at the same recall, and mean recall at the same false positive rate; label and threshold null."""
    grid = np.linspace(0, 1, POINTS + 1)
    precision = np.mean([_precision_at(curve, grid) for curve in curves], axis=0)
    recall = np.mean(
        [
            np.interp(grid, np.r_[0, curve.false / curve.negatives], np.r_[0, curve.hits / curve.positives])
            for curve in curves
        ],
        axis=0,
    )
    nothing = pa.nulls(len(grid), pa.float64())
    parts = ((grid, precision, nothing), (recall, nothing, grid))
    labels, thresholds = pa.nulls(len(grid), pa.string()), pa.nulls(len(grid), pa.float32())
    return pa.concat_tables([pa.table([labels, thresholds, *part], schema=CURVES) for part in parts])


def _precision_at(curve: ClassCurve, recall: Floats) -> Floats:
    precision, reached = curve.hits / (curve.hits + curve.false), curve.hits / curve.positives
    best = np.maximum.accumulate(precision[::-1])[::-1]  # the best precision of any threshold with that recall
    found: Floats = best[np.searchsorted(reached, recall).clip(max=len(best) - 1)]
    return found


def _logit_figure(value: float, variance: float, images: int, confidence: float) -> Figure:
    """A figure between 0 and 1 with an interval on the logit scale; of exactly 0 and 1, Wilson's for `images` images.

    variance: of the logit.
    """
    value = min(max(value, 0.0), 1.0)
    if value in (0, 1) or not variance > 0:
        low, high = wilson(value * images, images, confidence)
        return Figure(value=value, low=float(low), high=float(high))
    half = z_score(confidence) * variance**0.5
    low, high = (1 / (1 + np.exp(-(np.log(value / (1 - value)) + side * half))) for side in (-1, 1))
    return Figure(value=value, low=float(low), high=float(high))


def _mean(figures: list[Figure], confidence: float) -> Figure | None:
    if not figures:
        return None
    z, value = z_score(confidence), float(np.mean([figure.value for figure in figures]))
    if any(figure.low is None or figure.high is None for figure in figures):
        return Figure(value=value)
    widths = [((figure.high or 0) - (figure.low or 0)) / 2 / z for figure in figures]
    half = z * float(np.sqrt(np.square(widths).sum())) / len(figures)
    return Figure(value=value, low=max(value - half, 0.0), high=min(value + half, 1.0))


def _edges() -> npt.NDArray[np.float32]:
    """Lower ends of the bins."""
    logits = np.linspace(-MAX_LOGIT, MAX_LOGIT, BINS)
    edges = (1 / (1 + np.exp(-logits))).astype(np.float32)
    edges[0] = 0
    return edges


def _bins_of(scores: npt.NDArray[np.float32]) -> Ints:
    bits = np.clip(scores, np.float32(0), np.float32(1)).view(np.int32) >> _TABLE_SHIFT
    found: Ints = _table()[bits]
    return found


@lru_cache
def _table() -> Ints:
    """The bin of each score, by the upper bits of its float32."""
    scores = (np.arange(0x3F800000 >> _TABLE_SHIFT, dtype=np.int64) << _TABLE_SHIFT).astype(np.int32)
    values = np.r_[scores.view(np.float32), np.float32(1)]
    return np.asarray(np.searchsorted(_edges(), values, side="right") - 1, np.int64)
