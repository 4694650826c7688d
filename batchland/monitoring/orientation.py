"""Turned pictures and swapped colour channels: a separate test, because other figures hardly change.

The thumbnails of the reference can be turned and recoloured exactly. For each such change, a linear discriminant is
fitted that separates the original thumbnails from the changed ones. Its score is low for changed pictures, so a night
with many of them has a low mean, even if the discriminant is often wrong about single pictures.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from batchland.monitoring.observations import MEASURES, Floats, Observations

Thumbnails = npt.NDArray[np.uint8]
CHANGES: Final[dict[str, Callable[[Thumbnails], Thumbnails]]] = {
    "upside down": lambda cells: cells[:, ::-1, ::-1],
    "flipped top to bottom": lambda cells: cells[:, ::-1],
    "a quarter turn left": lambda cells: np.rot90(cells, 1, (1, 2)),
    "a quarter turn right": lambda cells: np.rot90(cells, -1, (1, 2)),
    "red and blue swapped": lambda cells: cells[..., ::-1],
    "red and green swapped": lambda cells: cells[..., [1, 0, 2]],
    "green and blue swapped": lambda cells: cells[..., [0, 2, 1]],
    "channels rotated": lambda cells: cells[..., [1, 2, 0]],
}
"""Possible changes of all pictures of a night, as functions of thumbnails [n, 4, 4, 3]."""
FOLDS: Final = 2
_CLASS_PRIOR: Final = 20
"""Weight, in images, of the mean score of all classes, which is 0."""
_MAX_THUMBNAILS: Final = 6000
"""Largest number of thumbnails of the reference that a discriminant is fitted on."""
_RIDGE: Final = 0.05
_ACROSS: Final = [MEASURES.index(name) for name in ("gradient_x", "column_bands")]
_DOWN: Final = [MEASURES.index(name) for name in ("gradient_y", "row_bands")]
"""Measures that a quarter turn exchanges with `_ACROSS`."""
_RATIO_WEIGHT: Final = 0.5
"""Scale of their logarithms beside the features of thumbnails, which are about as large."""
_MAX_SCORE: Final = 3.0
"""Largest score of an image, in deviations of the reference's."""
_FLAT: Final = 8
"""Levels, of 255, between the cells of a picture without structure."""


_INVERSE: Final = {
    "a quarter turn left": "a quarter turn right",
    "a quarter turn right": "a quarter turn left",
}
"""Changes that differ from their inverse; each other change is its own inverse."""


def structured(thumbnails: Thumbnails) -> npt.NDArray[np.bool_]:
    """Whether each thumbnail [n, 4, 4, 3] has more than one colour; one of a single colour looks the same after a
    turn."""
    cells = thumbnails.reshape(len(thumbnails), -1, 3)
    shaped: npt.NDArray[np.bool_] = (np.ptp(cells, axis=1) > _FLAT).any(axis=1)
    return shaped


def with_usual_tones(thumbnails: Thumbnails, usual: Thumbnails) -> Thumbnails:
    """The thumbnails [n, 4, 4, 3] with the brightness and contrast of the usual ones [m, 4, 4, 3], by rank.

    The darkest gets the brightness of the darkest usual one. A turn or an exchange of channels stays.
    """
    cells = thumbnails.reshape(len(thumbnails), -1).astype(np.float64)
    others = usual.reshape(len(usual), -1)
    mean, deviation = cells.mean(axis=1), cells.std(axis=1)
    scale = _quantiles_at_ranks(deviation, others.std(axis=1)) / (deviation + 1e-9)
    levelled = (cells - mean[:, None]) * scale[:, None] + _quantiles_at_ranks(mean, others.mean(axis=1))[:, None]
    found: Thumbnails = np.clip(np.rint(levelled), 0, 255).astype(np.uint8).reshape(thumbnails.shape)
    return found


def _quantiles_at_ranks(values: Floats, usual: Floats) -> Floats:
    """The quantiles of `usual` at the ranks of `values`."""
    ranks = (values.argsort(kind="stable").argsort(kind="stable") + 0.5) / len(values)
    quantiles: Floats = np.quantile(usual, ranks)
    return quantiles


def undone(night: Observations, change: str) -> Observations:
    """The night as it would look without a change."""
    values = night.values
    if "quarter" in change:
        values = values.copy()
        values[:, _ACROSS], values[:, _DOWN] = night.values[:, _DOWN], night.values[:, _ACROSS]
    inverse = CHANGES[_INVERSE.get(change, change)]
    cells = night.thumbnails[..., [2, 0, 1]] if change == "channels rotated" else inverse(night.thumbnails)
    return replace(night, values=values, thumbnails=cells)


class Discriminants:
    """Scores of how much the images of a night look like the reference, rather than like changed pictures."""

    def __init__(self, nights: Sequence[Observations], *, by_class: bool = True) -> None:
        """nights: of the reference, at least FOLDS.

        by_class: compare each image with those of its predicted class, so that a night with other classes does not look
        changed.
        """
        changes = [_differences(night) for night in nights]
        self._weights: list[Floats] = []
        for fold in range(FOLDS):
            learned = np.concatenate([night for index, night in enumerate(changes) if index % FOLDS != fold], axis=1)
            self._weights.append(_weights(learned[:, :: learned.shape[1] // _MAX_THUMBNAILS + 1]))
        raw = [self._fold(night, index % FOLDS) for index, night in enumerate(changes)]
        joined = np.concatenate(raw)
        self._mean, self._deviation = joined.mean(axis=0), joined.std(axis=0) + 1e-9
        classes = np.concatenate([night.classes for night in nights]) if by_class else np.zeros(len(joined), np.intp)
        clipped = self._clipped(joined)
        self._class_means = _class_means(clipped, classes) if by_class else np.zeros((1, len(CHANGES)))
        rest = clipped - self._expected(classes)
        self._rest_mean, self._rest_deviation = rest.mean(axis=0), rest.std(axis=0) + 1e-9
        self.nights = [self._scaled(scores, night.classes) for scores, night in zip(raw, nights, strict=True)]
        """Scores of the reference's nights, by discriminants that were fitted without them: [n, CHANGES] each."""

    def scores(self, night: Observations) -> Floats:
        """Scores of another night, [n, CHANGES], with mean 0 and deviation 1 over the reference; low if changed."""
        changes = _differences(night)
        return self._scaled(np.mean([self._fold(changes, fold) for fold in range(FOLDS)], axis=0), night.classes)

    def _fold(self, changes: Floats, fold: int) -> Floats:
        scores: Floats = np.einsum("cnf,cf->nc", changes, self._weights[fold])
        return scores

    def _clipped(self, scores: Floats) -> Floats:
        clipped: Floats = np.clip((scores - self._mean) / self._deviation, -_MAX_SCORE, _MAX_SCORE)
        return clipped

    def _expected(self, classes: npt.NDArray[Any]) -> Floats:
        """Mean score of the class of each image, [n, CHANGES]; 0 for a class that the reference does not have."""
        known = classes < len(self._class_means)
        expected: Floats = np.where(known[:, None], self._class_means[np.where(known, classes, 0)], 0.0)
        return expected

    def _scaled(self, scores: Floats, classes: npt.NDArray[Any]) -> Floats:
        rest = self._clipped(scores) - self._expected(classes)
        scaled: Floats = (rest - self._rest_mean) / self._rest_deviation
        return scaled


def _class_means(scores: Floats, classes: npt.NDArray[Any]) -> Floats:
    """Mean scores by class, shrunk to 0 for rare ones, [classes, CHANGES]."""
    sums = np.array([np.bincount(classes, column) for column in scores.T]).T
    means: Floats = sums / (np.bincount(classes) + _CLASS_PRIOR)[:, None]
    return means


def _weights(differences: Floats) -> Floats:
    """Fisher's discriminants: means over covariances of paired differences. Returns [CHANGES, features]."""
    weights = []
    for difference in differences:
        covariance = np.cov(difference, rowvar=False)
        ridge = _RIDGE * np.trace(covariance) / len(covariance) + 1e-9
        weights.append(np.linalg.solve(covariance + ridge * np.eye(len(covariance)), difference.mean(axis=0)))
    return np.array(weights)


def _differences(night: Observations) -> Floats:
    """Features of the pictures minus features of the changed pictures: [CHANGES, n, features]."""
    own = _features(night.thumbnails)
    ratios = np.log((night.values[:, _ACROSS] + 0.1) / (night.values[:, _DOWN] + 0.1)) * _RATIO_WEIGHT
    found = []
    for name, change in CHANGES.items():
        turned = 2 * ratios if "quarter" in name else np.zeros_like(ratios)
        found.append(np.concatenate([own - _features(change(night.thumbnails)), turned], axis=1))
    differences: Floats = np.nan_to_num(np.array(found))
    return differences


def _features(thumbnails: Thumbnails) -> Floats:
    """Channels of the cells, their squares and products: [n, 144]."""
    values = thumbnails.astype(np.float64) / 255 - 0.5
    products = values * values[..., [1, 2, 0]]
    return np.concatenate([values, 2 * values**2, 2 * products], axis=3).reshape(len(values), -1)
