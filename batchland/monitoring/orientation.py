"""Turned pictures and swapped colour channels: a separate test, because other figures hardly change.

The thumbnails of the reference can be turned and recoloured exactly. For each such change, a linear discriminant is
fitted that separates the original thumbnails from the changed ones. Its score is low for changed pictures, so a night
with many of them has a low mean, even if the discriminant is often wrong about single pictures.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from batchland.images.signals import THUMBNAIL_SIDE
from batchland.monitoring.observations import MEASURES, Floats, Observations

Thumbnails = npt.NDArray[np.uint8]
CHANGES: Final[dict[str, Callable[[npt.NDArray[Any]], npt.NDArray[Any]]]] = {
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
COLOUR_CHANGES: Final = tuple(name for name in CHANGES if "swapped" in name or "channels" in name)
"""Those that leave the saturation of every picture as it is."""
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
    return (np.ptp(cells, axis=1) > _FLAT).any(axis=1)


def with_usual_tones(thumbnails: Thumbnails, usual: Thumbnails) -> Thumbnails:
    """The thumbnails [n, 4, 4, 3] with the brightness and contrast of the usual ones [m, 4, 4, 3], by rank.

    The darkest gets the brightness of the darkest usual one. A turn or an exchange of channels stays.
    """
    cells = thumbnails.reshape(len(thumbnails), -1).astype(np.float64)
    others = usual.reshape(len(usual), -1)
    mean, deviation = cells.mean(axis=1), cells.std(axis=1)
    scale = _quantiles_at_ranks(deviation, others.std(axis=1)) / (deviation + 1e-9)
    levelled = (cells - mean[:, None]) * scale[:, None] + _quantiles_at_ranks(mean, others.mean(axis=1))[:, None]
    return np.clip(np.rint(levelled), 0, 255).astype(np.uint8).reshape(thumbnails.shape)


def _quantiles_at_ranks(values: Floats, usual: Floats) -> Floats:
    """The quantiles of `usual` at the ranks of `values`."""
    ranks = (values.argsort(kind="stable").argsort(kind="stable") + 0.5) / len(values)
    return np.quantile(usual, ranks)


def undone(night: Observations, change: str) -> Observations:
    """The night as it would look without a change."""
    values = night.values
    if "quarter" in change:
        values = values.copy()
        values[:, _ACROSS], values[:, _DOWN] = night.values[:, _DOWN], night.values[:, _ACROSS]
    inverse = CHANGES[_INVERSE.get(change, change)]
    cells = night.thumbnails[..., [2, 0, 1]] if change == "channels rotated" else inverse(night.thumbnails)
    return replace(night, values=values, thumbnails=cells)


@dataclass(frozen=True)
class Discriminants:
    """Scores of how much the images of a night look like the reference, rather than like changed pictures."""

    weights: Floats
    """Mean of the discriminants of all folds, [features, CHANGES]."""
    mean: Floats
    deviation: Floats
    """Of the scores before they are clipped, [CHANGES]."""
    class_means: Floats
    """Mean clipped scores of the reference's images by class, [classes, CHANGES]; zeros if classes do not count."""
    rest_mean: Floats
    rest_deviation: Floats
    """Of the clipped scores less the mean of the class, [CHANGES]."""

    @classmethod
    def of(cls, nights: Sequence[Observations], *, by_class: bool = True) -> tuple[Self, list[Floats]]:
        """The discriminants, and the scores of each night by those that were fitted without it, [n, CHANGES] each.

        nights: of the reference, at least FOLDS. by_class: compare each image with those of its predicted class, so
        that a night with other classes does not look changed.
        """
        features = [_features(night) for night in nights]
        weights: list[Floats] = []
        for fold in range(FOLDS):
            learned = np.concatenate([night for index, night in enumerate(features) if index % FOLDS != fold])
            weights.append(_weights(learned[:: len(learned) // _MAX_THUMBNAILS + 1]))
        raw = [night @ weights[index % FOLDS] for index, night in enumerate(features)]
        joined = np.concatenate(raw)
        nothing = np.zeros((1, len(CHANGES)))
        whole = cls(
            np.mean(weights, axis=0), joined.mean(axis=0), joined.std(axis=0) + 1e-9, nothing, nothing[0], nothing[0]
        )
        if by_class:
            classes = np.concatenate([night.classes for night in nights])
            whole = replace(whole, class_means=_class_means(whole._clipped(joined), classes))
        rest = np.concatenate([whole._rest(scores, night.classes) for scores, night in zip(raw, nights, strict=True)])
        whole = replace(whole, rest_mean=rest.mean(axis=0), rest_deviation=rest.std(axis=0) + 1e-9)
        return whole, [whole._scaled(scores, night.classes) for scores, night in zip(raw, nights, strict=True)]

    def scores(self, night: Observations) -> Floats:
        """Scores of another night, [n, CHANGES], with mean 0 and deviation 1 over the reference; low if changed."""
        return self._scaled(_features(night) @ self.weights, night.classes)

    def _clipped(self, scores: Floats) -> Floats:
        return np.clip((scores - self.mean) / self.deviation, -_MAX_SCORE, _MAX_SCORE)

    def _expected(self, classes: npt.NDArray[Any]) -> Floats:
        """Mean score of the class of each image, [n, CHANGES]; 0 for a class that the reference does not have."""
        known = classes < len(self.class_means)
        return np.where(known[:, None], self.class_means[np.where(known, classes, 0)], 0.0)

    def _rest(self, scores: Floats, classes: npt.NDArray[Any]) -> Floats:
        return self._clipped(scores) - self._expected(classes)

    def _scaled(self, scores: Floats, classes: npt.NDArray[Any]) -> Floats:
        return (self._rest(scores, classes) - self.rest_mean) / self.rest_deviation


def _class_means(scores: Floats, classes: npt.NDArray[Any]) -> Floats:
    """Mean scores by class, shrunk to 0 for rare ones, [classes, CHANGES]."""
    sums = np.array([np.bincount(classes, column) for column in scores.T]).T
    return sums / (np.bincount(classes) + _CLASS_PRIOR)[:, None]


def _weights(features: Floats) -> Floats:
    """Fisher's discriminants: means over covariances of the features' differences to those of changed pictures.

    A change only moves features and turns the sign of some, so it is a matrix. features: [n, features]. Returns
    [features, CHANGES]: a product with features is a score.
    """
    mean, covariance = features.mean(axis=0), np.cov(features, rowvar=False)
    weights = []
    for name, change in CHANGES.items():
        difference = np.eye(len(mean)) - _as_matrix(name, change)
        spread = difference @ covariance @ difference.T
        ridge = _RIDGE * np.trace(spread) / len(spread) + 1e-9
        weights.append(np.linalg.solve(spread + ridge * np.eye(len(spread)), difference @ mean) @ difference)
    return np.array(weights).T


def _as_matrix(name: str, change: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]) -> Floats:
    """The matrix that turns the features of a picture into those of the changed one, [features, features]."""
    side = THUMBNAIL_SIDE
    source, channel = np.divmod(change(np.arange(side * side * 3).reshape(1, side, side, 3))[0], 3)
    following = channel[..., [1, 2, 0]]
    first = np.where(following == (channel + 1) % 3, channel, following)  # of the two factors of a product
    moved = (9 * source[..., :1] + np.concatenate([channel, channel + 3, first + 6], axis=2, dtype=np.intp)).ravel()
    matrix = np.zeros((len(moved) + len(_ACROSS), len(moved) + len(_ACROSS)))
    matrix[np.arange(len(moved)), moved] = 1
    ratios = np.arange(len(moved), len(matrix))
    matrix[ratios, ratios] = -1 if "quarter" in name else 1
    return matrix


def _features(night: Observations) -> Floats:
    """Channels of the cells, their squares and products, and two ratios of textures: [n, 146]."""
    values = night.thumbnails.astype(np.float64) / 255 - 0.5
    products = values * values[..., [1, 2, 0]]
    cells = np.concatenate([values, 2 * values**2, 2 * products], axis=3).reshape(len(values), -1)
    ratios = np.log((night.values[:, _ACROSS] + 0.1) / (night.values[:, _DOWN] + 0.1)) * _RATIO_WEIGHT
    return np.concatenate([cells, np.nan_to_num(ratios)], axis=1)
