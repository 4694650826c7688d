"""Good nights of a job, and how far another night is from them.

The unit is the night: a figure of a night is compared with the figures of the reference's nights, because images of
one night are alike. z = (night - mean) / sqrt(between (1 + 1/R) + within (1/n + 1/N)), with R nights of N images in
all. The variance between nights is that of the R nights, shrunk to the mean over all figures of its kind, because an
estimate from few nights is inexact.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from batchland.monitoring.observations import ANSWER, Floats, Observations
from batchland.monitoring.orientation import CHANGES, Discriminants, undone
from batchland.monitoring.statistics import Figures, Pool, Statistic

PRIOR_NIGHTS: Final = 4
"""Weight, in nights, of the variance of all figures of a kind."""
MIN_SPREAD: Final = 0.11
"""Least standard deviation between nights, in standard deviations of an image."""
MIN_TAIL_SPREAD: Final = 0.07
"""The same for the shares in tails, which vary less from night to night, and of classes."""
MIN_CHANGE_SPREAD: Final = 0.05
"""The same for the similarity to changed pictures."""
MIN_PHOTOS: Final = 100
"""Fewer labelled photos are no reference."""
PARTS: Final = 10
"""Parts of labelled photos that stand for nights."""
LABELLED_SPREAD: Final = 2.0
"""Factor on the least deviations if labelled photos are the reference."""
LABELLED_SCORES: Final = ("value", "class")
"""With labelled photos. How the figures of an image fit each other differs between them and good nights."""
_SEED: Final = 1
HEAVY_TAILS: Final = 1.3
"""Factor on every variance between nights: rare nights differ more than a normal distribution allows."""
LIMITS: Final = {
    ("value", "mean"): 7.0,
    ("value", "spread"): 5.8,
    ("value", "low"): 6.0,
    ("value", "high"): 6.0,
    ("value", "very low"): 4.5,
    ("value", "very high"): 5.0,
    ("rest", "mean"): 7.5,
    ("rest", "spread"): 5.0,
    ("rest", "low"): 7.0,
    ("rest", "high"): 7.0,
    ("rest", "very low"): 5.5,
    ("rest", "very high"): 5.5,
    ("distance", "mean"): 6.2,
    ("distance", "spread"): 4.0,
    ("distance", "low"): 4.0,
    ("distance", "high"): 5.0,
    ("distance", "very low"): 4.0,
    ("distance", "very high"): 4.8,
    ("class", "share"): 5.5,
    ("class", "mix"): 5.0,
    ("class", "top"): 4.4,
    ("class", "shares"): 5.5,
}
"""Largest z of a clean night, by score and kind: together less than one alarm a year (benchmarks/results/nights.md).

Shares in tails count only if they are larger than usual; means, spreads and classes count in both directions.
"""
CHANGE_LIMIT: Final = 4.2
"""Largest z of a clean night for each of CHANGES."""
_TWO_SIDED: Final = ("mean", "spread", "share", "mix", "top")


class LikeliestChange(NamedTuple):
    """The change that best explains a night that looks changed."""

    change: str
    """One of CHANGES."""
    share: float
    """Estimated share of the images that have it."""
    left: float
    """Largest of `changes` for the less likely half with the change undone; small if it explains the night."""
    rows: npt.NDArray[np.intp]
    """All images, the most clearly changed first."""


@dataclass(frozen=True)
class Reference:
    """R nights that were judged good, as numbers and arrays alone, so that it can be kept (kept_reference.py)."""

    pool: Pool
    discriminants: Discriminants
    nights: int
    night_figures: Floats
    """Figures of each night, [nights, figures]."""
    between: Floats
    """Variance of each figure between nights."""
    likeness: Floats
    """Mean score of each of CHANGES over the nights."""
    likeness_between: Floats
    night_means: Floats
    """Mean of each of MEASURES, [nights, MEASURES]."""
    night_classes: npt.NDArray[np.intp]
    """Images by predicted class, [nights, classes]."""
    thumbnails: npt.NDArray[np.uint8]
    """Of all images, [n, 4, 4, 3]."""
    labelled: bool = False
    """Whether these are parts of one set of labelled photos, not nights."""
    limit: float = 1.0
    """Factor on all limits, see budget.py."""

    @classmethod
    def of(
        cls,
        nights: Sequence[Observations],
        usable: npt.NDArray[np.bool_] | None = None,
        *,
        labelled: bool = False,
    ) -> Self:
        """nights: at least two, oldest first. usable: which of MEASURES to look at."""
        spread = LABELLED_SPREAD if labelled else 1.0
        joined = Observations.joined(nights)
        pool, scores = Pool.of(joined, usable)
        own = np.split(scores, np.cumsum([len(night) for night in nights])[:-1])
        figures = [pool.figures(night, scores) for night, scores in zip(nights, own, strict=True)]
        values = np.array([night.values for night in figures])
        within = pool.image_variance
        each = float(np.mean([1 / night.images for night in figures]))
        least = (spread * np.array([_least_spread(statistic) for statistic in pool.statistics])) ** 2
        kinds = np.unique([statistic.score + statistic.kind for statistic in pool.statistics], return_inverse=True)[1]
        discriminants, likenesses = Discriminants.of(nights, by_class=ANSWER[0] in pool.measures)
        means = np.array([scores.mean(axis=0) for scores in likenesses])
        least_change = np.full(len(CHANGES), (spread * MIN_CHANGE_SPREAD) ** 2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of measures without a figure, which are not used
            night_means = np.array([np.nanmean(night.values, axis=0) for night in nights])
        return cls(
            pool,
            discriminants,
            nights=len(nights),
            night_figures=values,
            between=within * _shrunk(values.var(axis=0, ddof=1) / within - each, kinds, least, len(nights)),
            likeness=means.mean(axis=0),
            likeness_between=_shrunk(
                means.var(axis=0, ddof=1) - each, np.zeros(len(CHANGES), np.intp), least_change, len(nights)
            ),
            night_means=night_means,
            night_classes=np.array([np.bincount(night.classes, minlength=len(pool.mix)) for night in nights]),
            thumbnails=joined.thumbnails,
            labelled=labelled,
        )

    @cached_property
    def usual(self) -> Floats:
        """Mean of each figure over the nights."""
        return np.asarray(self.night_figures.mean(axis=0))

    def deviations(self, night: Figures) -> Floats:
        """z of each figure of a night, in the order of `pool.statistics`."""
        within = self.pool.image_variance * (1 / night.images + 1 / self.pool.size)
        z = (night.values - self.usual) / np.sqrt(self.between * (1 + 1 / self.nights) + within)
        shares = z[[statistic.kind == "share" for statistic in self.pool.statistics]]
        if len(shares):  # `shares` is the last figure: Fisher's approximation of chi-squared by a normal deviate
            z[-1] = np.sqrt(2 * np.square(shares).sum()) - np.sqrt(2 * len(shares) - 1)
        return np.asarray(z)

    def strengths(self, deviations: Floats) -> Floats:
        """z of each figure as a share of its limit; above 1 is an alarm."""
        statistics = self.pool.statistics
        one_sided = np.array([statistic.kind not in _TWO_SIDED for statistic in statistics])
        limits = np.array([LIMITS[statistic.score, statistic.kind] for statistic in statistics])
        if self.labelled:
            limits[[statistic.score not in LABELLED_SCORES for statistic in statistics]] = np.inf
        return np.where(one_sided, deviations, np.abs(deviations)) / limits / self.limit

    def changes(self, night: Observations) -> Floats:
        """z of each of CHANGES as a share of CHANGE_LIMIT; above 1 the night looks changed in this way."""
        likeness = self._likeness(night)
        variance = self.likeness_between * (1 + 1 / self.nights) + 1 / len(night) + 1 / self.pool.size
        return (self.likeness - likeness) / np.sqrt(variance) / CHANGE_LIMIT / self.limit

    def likeliest_change(self, night: Observations) -> LikeliestChange:
        """The change that best explains a night that looks changed.

        Each change is undone; the best one makes the less likely half of the images most like the reference. Undoing it
        in all images makes it in those that did not have it. So the unlikeness of the night and that of the undone
        night have the same ratio as the shares of images with and without the change.
        """
        rows = np.argsort(self.discriminants.scores(night)[:, self.changes(night).argmax()], kind="stable")
        half = night.take(rows[: max(len(rows) // 2, 1)])
        likeness = [self.discriminants.scores(undone(half, change)).mean() for change in CHANGES]
        likeliest = int(np.argmax(likeness))
        change = list(CHANGES)[likeliest]
        with_it, without = (
            self.likeness[likeliest] - self._likeness(each)[likeliest] for each in (night, undone(night, change))
        )
        share = float(np.clip(with_it / (with_it + without), 0, 1))
        return LikeliestChange(change, share, float(self.changes(undone(half, change)).max()), rows)

    def _likeness(self, night: Observations) -> Floats:
        """Mean score of each of CHANGES."""
        return self.discriminants.scores(night).mean(axis=0)


def _shrunk(relative: Floats, kinds: npt.NDArray[np.intp], least: Floats, nights: int) -> Floats:
    """Variances between nights, in variances of an image: shrunk to the mean of their kind."""
    relative = np.maximum(relative, 0)
    usual = np.bincount(kinds, relative) / np.bincount(kinds)
    weight = nights / (nights + PRIOR_NIGHTS)
    return HEAVY_TAILS * np.maximum(weight * relative + (1 - weight) * usual[kinds], least)


def labelled_reference(images: Observations, usable: npt.NDArray[np.bool_] | None = None) -> Reference:
    """A reference of labelled photos instead of nights.

    They are divided into PARTS by chance. These differ less than nights do, so the least deviations are larger, and
    only LABELLED_SCORES count.
    """
    order = np.random.default_rng(_SEED).permutation(len(images))
    parts = [images.take(np.sort(order[part::PARTS])) for part in range(PARTS)]
    return Reference.of(parts, usable, labelled=True)


def _least_spread(statistic: Statistic) -> float:
    return MIN_SPREAD if statistic.kind in ("mean", "spread", "mix", "top") else MIN_TAIL_SPREAD
