"""Good nights of a job, and how far another night is from them.

The unit is the night: a figure of a night is compared with the figures of the reference's nights, because images of
one night are alike. z = (night - mean) / sqrt(between (1 + 1/R) + within (1/n + 1/N)), with R nights of N images in
all. The variance between nights is that of the R nights, shrunk to the mean over all figures of its kind, because an
estimate from few nights is inexact.
"""

from collections.abc import Sequence
from typing import Final

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
"""The same for the shares in tails, which vary less from night to night."""
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
}
"""Largest z of a clean night, by score and kind: together less than one alarm a year (benchmarks/results/nights.md).

Shares in tails count only if they are larger than usual; means, spreads and classes count in both directions.
"""
CHANGE_LIMIT: Final = 4.2
"""Largest z of a clean night for each of CHANGES."""
_TWO_SIDED: Final = ("mean", "spread", "share", "mix", "top")


class Reference:
    """R nights that were judged good."""

    def __init__(
        self,
        nights: Sequence[Observations],
        usable: npt.NDArray[np.bool_] | None = None,
        *,
        limit: float = 1.0,
        labelled: bool = False,
    ) -> None:
        """nights: at least two, oldest first. usable: which of MEASURES to look at.

        limit: factor on all limits, see budget.py. labelled: these are parts of one set of labelled photos, not nights.
        """
        self._limit = limit
        spread = LABELLED_SPREAD if labelled else 1.0
        self.observed = nights
        self.pool = Pool(Observations.joined(nights), usable)
        self.nights = len(nights)
        own = np.split(self.pool.own_scores, np.cumsum([len(night) for night in nights])[:-1])
        figures = [self.pool.figures(night, scores) for night, scores in zip(nights, own, strict=True)]
        values = np.array([night.values for night in figures])
        self.usual = values.mean(axis=0)
        """Mean of each figure over the nights."""
        statistics = self.pool.statistics
        within = self.pool.image_variance
        each = float(np.mean([1 / night.images for night in figures]))
        least = (spread * np.array([_least_spread(statistic) for statistic in statistics])) ** 2
        kinds = np.unique([statistic.score + statistic.kind for statistic in statistics], return_inverse=True)[1]
        self._between = within * self._shrunk(values.var(axis=0, ddof=1) / within - each, kinds, least)
        self._limits = np.array([LIMITS[statistic.score, statistic.kind] for statistic in statistics])
        if labelled:
            self._limits[[statistic.score not in LABELLED_SCORES for statistic in statistics]] = np.inf
        self._one_sided = np.array([statistic.kind not in _TWO_SIDED for statistic in statistics])
        self._discriminants = Discriminants(nights, by_class=ANSWER[0] in self.pool.measures)
        means = np.array([scores.mean(axis=0) for scores in self._discriminants.nights])
        self._likeness = means.mean(axis=0)
        excess = means.var(axis=0, ddof=1) - each
        alike = np.zeros(len(CHANGES), np.intp)
        self._likeness_between = self._shrunk(excess, alike, np.full(len(CHANGES), (spread * MIN_CHANGE_SPREAD) ** 2))

    def deviations(self, night: Figures) -> Floats:
        """z of each figure of a night, in the order of `pool.statistics`."""
        within = self.pool.image_variance * (1 / night.images + 1 / self.pool.size)
        z: Floats = (night.values - self.usual) / np.sqrt(self._between * (1 + 1 / self.nights) + within)
        return z

    def strengths(self, deviations: Floats) -> Floats:
        """z of each figure as a share of its limit; above 1 is an alarm."""
        strengths: Floats = np.where(self._one_sided, deviations, np.abs(deviations)) / self._limits / self._limit
        return strengths

    def changes(self, night: Observations) -> Floats:
        """z of each of CHANGES as a share of CHANGE_LIMIT; above 1 the night looks changed in this way."""
        likeness = self._discriminants.scores(night).mean(axis=0)
        variance = self._likeness_between * (1 + 1 / self.nights) + 1 / len(night) + 1 / self.pool.size
        strengths: Floats = (self._likeness - likeness) / np.sqrt(variance) / CHANGE_LIMIT / self._limit
        return strengths

    def likeliest_change(self, night: Observations) -> tuple[int, npt.NDArray[np.intp]]:
        """The index of the change that best explains a night that looks changed, and all images, clearest first.

        Each change is undone; the best one makes the less likely half of the images most like the reference.
        """
        rows = np.argsort(self._discriminants.scores(night)[:, self.changes(night).argmax()], kind="stable")
        half = night.take(rows[: max(len(rows) // 2, 1)])
        likeness = [self._discriminants.scores(undone(half, change)).mean() for change in CHANGES]
        return int(np.argmax(likeness)), rows

    def _shrunk(self, relative: Floats, kinds: npt.NDArray[np.intp], least: Floats) -> Floats:
        """Variances between nights, in variances of an image: shrunk to the mean of their kind."""
        relative = np.maximum(relative, 0)
        usual = np.bincount(kinds, relative) / np.bincount(kinds)
        weight = self.nights / (self.nights + PRIOR_NIGHTS)
        return HEAVY_TAILS * np.maximum(weight * relative + (1 - weight) * usual[kinds], least)


def labelled_reference(
    images: Observations, usable: npt.NDArray[np.bool_] | None = None, *, limit: float = 1.0
) -> Reference:
    """A reference of labelled photos instead of nights.

    They are divided into PARTS by chance. These differ less than nights do, so the least deviations are larger, and
    only LABELLED_SCORES count.
    """
    order = np.random.default_rng(_SEED).permutation(len(images))
    parts = [images.take(np.sort(order[part::PARTS])) for part in range(PARTS)]
    return Reference(parts, usable, limit=limit, labelled=True)


def _least_spread(statistic: Statistic) -> float:
    return MIN_TAIL_SPREAD if "low" in statistic.kind or "high" in statistic.kind else MIN_SPREAD
