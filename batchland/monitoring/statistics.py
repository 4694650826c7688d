"""Figures of a whole night: the distribution of its images relative to those of the reference.

Each measure of an image is turned into a normal score: its rank among the images of the reference, as a normal deviate.
A second score is the residual of this score after regression on the other measures: low sharpness that is usual in a
noisy picture may be a fault in a clean one. A third score is Mahalanobis' distance over all measures. The figures of a
night are, for each score, the mean, the spread, and the shares in the tails of the reference.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from batchland.monitoring.normal import normal_quantile
from batchland.monitoring.observations import ANSWER, MEASURES, Floats, Observations

MAX_SCORE: Final = 3.0
"""Largest normal score: that of an image outside the range of the reference."""
MAX_REST: Final = 5.0
"""Largest residual or distance, in standard deviations of the reference's images."""
TAILS: Final = (0.02, 0.003)
"""Shares of the reference's images beyond each tail's limit."""
_MIN_DEVIATION: Final = 0.1
_SHRINKAGE: Final = 0.02
"""Weight of the unit matrix in the correlation of the scores."""
_COMMON_CLASSES: Final = 12
"""Classes whose shares are separate figures: the most frequent ones of the reference."""
_ANGLE_VARIANCE: Final = 0.25
"""Variance of the angle of a share, for one image; it does not depend on the share."""

KINDS: Final = ("mean", "spread", "low", "high", "very low", "very high")
"""The figures of each score; the last four are the angles of the shares in its tails."""


class Statistic(NamedTuple):
    """The meaning of a figure of a night."""

    score: str
    """`value`, `rest`, `distance` or `class`."""
    measure: str
    """One of MEASURES; `all` with distance; with class its index, or nothing."""
    kind: str
    """One of KINDS; for classes `share`, `mix` (how much the shares differ), `top` (share of the largest class) or
    `shares` (all of `share` together)."""


class Figures(NamedTuple):
    """The figures of one night, in the order of `Pool.statistics`."""

    values: Floats
    images: int


@dataclass(frozen=True)
class Pool:
    """The images of the reference, against which the figures of a night are computed."""

    size: int
    columns: npt.NDArray[np.intp]
    """Indices of the used MEASURES."""
    ordered: Floats
    """Values of the reference's images, each measure sorted, [size, measures]."""
    rest: Floats
    """Matrix that gives residuals of normal scores, [measures, measures]."""
    whitening: Floats
    scale: Floats
    """Mean and standard deviation of residuals and distance, [2, measures + 1]."""
    edges: Floats
    """Scores beyond which the tails begin: low and high, [2, TAILS, scores]."""
    mix: npt.NDArray[np.intp]
    """Images of each class."""
    prior_images: Floats
    """The variance of a night is averaged with that of the reference, which counts as this many images: few
    images give an inexact variance."""
    prior_variance: Floats
    spread_variance: Floats

    @classmethod
    def of(cls, images: Observations, usable: npt.NDArray[np.bool_] | None = None) -> tuple[Self, Floats]:
        """The pool, and `scores` of its own images.

        The regression and the distance of each image are computed without it. Otherwise few images would always fit
        themselves, and other images would look unlike them. usable: which of MEASURES to use, [MEASURES].
        Classes are used if the measures of the answers are.
        """
        size = len(images)
        columns = np.arange(len(MEASURES)) if usable is None else np.flatnonzero(usable)
        ordered = np.sort(images.values[:, columns], axis=0)
        normal = _normal_scores(ordered, images.values[:, columns])
        shrinkage = _SHRINKAGE + normal.shape[1] / (10 * size)
        correlation = np.atleast_2d(np.cov(normal, rowvar=False)) + np.eye(normal.shape[1]) * shrinkage
        precision = np.linalg.inv(correlation)
        rest = precision / np.sqrt(np.diag(precision))
        values, vectors = np.linalg.eigh(correlation)
        whitening = vectors / np.sqrt(values)
        centred = normal - normal.mean(axis=0)
        leverage = np.square(centred @ whitening).sum(axis=1) / size
        relations = _relations(normal, rest, whitening, 1 / (1 - leverage))
        scale = np.array([relations.mean(axis=0), np.maximum(relations.std(axis=0), _MIN_DEVIATION)])
        scores = _joined(normal, relations, scale)
        edges = np.array(
            [
                np.quantile(scores, TAILS, axis=0, method="lower"),
                np.quantile(scores, [1 - tail for tail in TAILS], axis=0, method="higher"),
            ]
        )
        mix = np.bincount(images.classes)
        variance, kurtosis = _moments(scores)
        spread = np.clip((kurtosis - 1) / 4, 0.3, 3.0)
        prior = np.maximum(kurtosis - 1, 0)
        return cls(size, columns, ordered, rest, whitening, scale, edges, mix, prior, variance, spread), scores

    @property
    def measures(self) -> list[str]:
        """Names of the used MEASURES."""
        return [MEASURES[column] for column in self.columns]

    @cached_property
    def statistics(self) -> list[Statistic]:
        """The meaning of each figure of a night."""
        scores = [("value", measure) for measure in self.measures]
        scores += [("rest", measure) for measure in self.measures] + [("distance", "all")]
        found = [Statistic(score, measure, kind) for kind in KINDS for score, measure in scores]
        if len(self._common):
            found += [Statistic("class", str(index), "share") for index in self._common]
            found += [Statistic("class", "", kind) for kind in ("mix", "top", "shares")]
        return found

    @cached_property
    def image_variance(self) -> Floats:
        """Variance of each figure of a night of one image, by sampling alone; that of n images is this over n."""
        angles = np.full(len(self.statistics) - 2 * len(self.prior_variance), _ANGLE_VARIANCE)
        return np.concatenate([self.prior_variance, self.spread_variance, angles])

    @cached_property
    def _common(self) -> npt.NDArray[np.intp]:
        """The most frequent classes; none without the measures of the answers."""
        common = np.argsort(-self.mix, kind="stable")[:_COMMON_CLASSES]
        return common[self.mix[common] > 0] if ANSWER[0] in self.measures else common[:0]

    def scores(self, images: Observations) -> Floats:
        """Normal scores, residuals and distance of n images, [n, 2 measures + 1]."""
        normal = _normal_scores(self.ordered, images.values[:, self.columns])
        return _joined(normal, _relations(normal, self.rest, self.whitening), self.scale)

    def figures(self, images: Observations, scores: Floats | None = None) -> Figures:
        """The figures of a night. scores: of its images, if they are known."""
        scores = self.scores(images) if scores is None else scores
        n = len(scores)
        below = [(scores < edge).mean(axis=0) for edge in self.edges[0]]
        above = [(scores > edge).mean(axis=0) for edge in self.edges[1]]
        tails = _angles(np.concatenate([below[0], above[0], below[1], above[1]]), n)
        variance = (n * scores.var(axis=0) + self.prior_images * self.prior_variance) / (n + self.prior_images)
        spread = np.log(np.sqrt(variance) + _MIN_DEVIATION)
        return Figures(np.concatenate([scores.mean(axis=0), spread, tails, self._classes(images.classes)]), n)

    def _classes(self, classes: npt.NDArray[np.int32]) -> Floats:
        if not len(self._common):
            return np.zeros(0)
        n = len(classes)
        counts = np.bincount(classes, minlength=len(self.mix))
        expected = np.zeros(len(counts))
        expected[: len(self.mix)] = self.mix / self.mix.sum()
        chance = np.sqrt(2 / np.pi * expected * (1 - expected) / n).sum() / 2
        change = np.abs(counts / n - expected).sum() / 2
        shares = np.array([*counts[self._common] / n, max(change - chance, 0), counts.max() / n])
        return np.append(_angles(shares, n), 0)  # Reference.deviations computes `shares`


def _normal_scores(ordered: Floats, values: Floats) -> Floats:
    """Normal deviates of the ranks of values [n, measures] among the ordered ones [size, measures]."""
    by_rank = np.clip(normal_quantile(np.arange(2 * len(ordered) + 1) / (2 * len(ordered))), -MAX_SCORE, MAX_SCORE)
    scores = np.empty(values.shape)
    for column in range(values.shape[1]):
        known, rows = ordered[:, column], np.argsort(values[:, column])
        one_by_one = values[rows, column]  # a search for sorted values is faster
        rank = np.searchsorted(known, one_by_one) + np.searchsorted(known, one_by_one, "right")
        scores[rows, column] = by_rank[rank]
    return scores


def _relations(normal: Floats, rest: Floats, whitening: Floats, growth: npt.ArrayLike = 1.0) -> Floats:
    """Residuals and log distance, [n, measures + 1].

    growth: of each image, by which both are multiplied if the correlation is without it (Sherman and Morrison).
    """
    growth = np.broadcast_to(growth, len(normal))
    squares = np.square(normal @ whitening).mean(axis=1) * growth
    return np.column_stack([normal @ rest * growth[:, None], np.log(squares + 1e-9) / 2])


def _joined(normal: Floats, relations: Floats, scale: Floats) -> Floats:
    middle, spread = scale
    return np.concatenate([normal, np.clip((relations - middle) / spread, -MAX_REST, MAX_REST)], axis=1)


def _moments(scores: Floats) -> tuple[Floats, Floats]:
    """Variance and kurtosis of each score."""
    squares = np.square(scores - scores.mean(axis=0))
    variance = np.maximum(squares.mean(axis=0), _MIN_DEVIATION**2)
    return variance, np.square(squares).mean(axis=0) / variance**2


def _angles(shares: Floats, images: int) -> Floats:
    """Anscombe's angle of each share: its variance by chance, and between nights, hardly depends on the share.

    A square root is as good for small shares, but makes little of the difference between one half and all.
    """
    return np.arcsin(np.sqrt((shares * images + 3 / 8) / (images + 3 / 4)))


def readable(kind: str, values: Floats, images: npt.ArrayLike) -> Floats:
    """Figures of one of KINDS for people: means and spreads in deviations of the reference's images, or shares."""
    if kind == "mean":
        return values
    if kind == "spread":
        return np.exp(values) - _MIN_DEVIATION
    count = np.asarray(images)
    return np.clip((np.square(np.sin(values)) * (count + 3 / 4) - 3 / 8) / count, 0, 1)
