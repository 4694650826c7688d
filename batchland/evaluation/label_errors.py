"""Find mistakes that are probably wrong labels, by a model of label noise.

Each label is the true class with probability 1 - noise, else a random other class. The model of the true class is a
mixture, because a model may be much more overconfident on some images than on others, and confident in a wrong class:

- the probabilities, at several temperatures around the one that fits best;
- the order of the classes alone: not the first choice, but one that is not far behind it.

Wrong labels differ from both: they are also far behind, whatever the probabilities are. The weights are fitted to all
labels together. No label is suspected unless the fit shows that some are wrong, and at most as many as it shows.
"""

import math
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from batchland.evaluation.intervals import Floats, Ints

SUSPECTED_FROM: Final = 0.6
"""Smallest probability of a label error that is suspected."""
EVIDENCE: Final = 6.0
"""Labels are suspected only if twice the log likelihood ratio of noise against no noise is at least this. By chance it
exceeds 5.4 in one of a hundred cases. Without wrong labels it was at most 0.5 in the simulations of
benchmarks/label_noise.py."""
COUNTED: Final = 0.25
"""If at least this share of images has no information, the probabilities are counts of votes: no label is suspected."""
FITTED_IMAGES: Final = 20_000
CHOICES: Final = 20
"""Choices per image that the model of noise uses; the other classes share the rest equally."""
_TEMPERATURES: Final = (1 / 3, 0.5, 0.7, 1.0, 1.4, 2.0, 3.0)
"""Sharpness of the mixture's parts, relative to the one that fits best."""
_SHARPNESS: Final = 2.0 ** np.arange(-5, 2.6, 0.5)
"""Sharpness (1 / temperature) of all probabilities that is tried."""
_DECAYS: Final = (0.2, 0.5, 1.0)
"""Speeds at which the order of the classes loses weight, relative to the slowest: a mean rank an eighth of the way
down."""
_ASSUMED_NOISE: Final = 0.05
"""Share of labels that are ignored in the choice of the sharpness."""
_STEPS: Final = 200
_TINY: Final = 1e-300


class LabelledChoices(NamedTuple):
    """The choices kept for some images, and where their labels are among them."""

    choices: npt.NDArray[np.float32]
    """Probabilities, best first, [images, kept]."""
    true_rank: Ints
    """Rank of the label among the choices, from 1; 0 beyond the choices kept."""
    true_probability: npt.NDArray[np.float32]
    """Probability of the label; not used beyond the choices kept."""

    @property
    def informative(self) -> npt.NDArray[np.bool_]:
        """Whether the probabilities can say that a label is wrong, by image.

        A probability of exactly 0 is a count of votes, such as those of nearest neighbours: it does not say how
        unlikely a class is.
        """
        if self.choices.shape[1] > 1:
            return self.choices[:, -1] > 0
        return self.choices[:, 0] < 1


class LabelNoise(NamedTuple):
    """A fitted model of label noise."""

    sharpness: float
    """1 / temperature that fits best."""
    weights: Floats
    """Weights of the parts of the mixture, that of noise last; their sum is 1."""
    classes: int
    suspected_from: float = SUSPECTED_FROM
    """Smallest probability of a label error that is suspected. It is higher than SUSPECTED_FROM if otherwise more
    labels were suspected than are wrong."""

    @property
    def noise(self) -> float:
        """Share of wrong labels; 0 if the labels do not show that some are wrong."""
        return float(self.weights[-1])

    def error_probabilities(self, mistakes: LabelledChoices) -> Floats:
        """Probability that each label is wrong, for images with a first choice that differs from the label."""
        if not self.noise:
            return np.zeros(len(mistakes.true_rank))
        parts = _Parts(mistakes, self.classes).all(self.sharpness) * self.weights
        wrong: Floats = np.where(mistakes.informative, parts[:, -1] / np.maximum(parts.sum(axis=1), _TINY), 0.0)
        return wrong


def fit_label_noise(sample: LabelledChoices, classes: int) -> LabelNoise:
    """Fit the model to a random sample of the scored images, FITTED_IMAGES of them or all.

    With two classes, or one choice, a wrong label and a confident mistake look alike: then the noise is 0.
    """
    none = LabelNoise(1.0, np.zeros(1), classes)
    if sample.choices.size:
        informative = sample.informative
        if informative.mean() < 1 - COUNTED:
            return none
        sample = LabelledChoices(
            sample.choices[informative], sample.true_rank[informative], sample.true_probability[informative]
        )
    mistake = sample.true_rank != 1
    if not mistake.any() or classes < 3 or sample.choices.shape[1] < 2:
        return none
    images = _Parts(sample, classes)
    sharpness = images.sharpness()
    parts = images.all(sharpness)
    _, clean = _fit_weights(parts[:, :-1])
    weights, noisy = _fit_weights(parts)
    if 2 * (noisy - clean) < EVIDENCE:
        return none
    found = LabelNoise(sharpness, weights, classes)
    explained = math.ceil(found.noise * len(mistake))
    shares = np.sort((parts * weights)[mistake, -1] / np.maximum((parts[mistake] * weights).sum(axis=1), _TINY))[::-1]
    limit = float(shares[explained - 1]) if explained < len(shares) else 0.0
    return found._replace(suspected_from=max(SUSPECTED_FROM, limit))


class _Parts:
    """Probabilities of the labels of some images by each part of the mixture."""

    def __init__(self, images: LabelledChoices, classes: int) -> None:
        top = images.choices[:, :CHOICES].astype(np.float64)
        others = classes - top.shape[1]
        rest = np.maximum(1 - top.sum(axis=1), 0) / max(others, 1)
        label = images.true_probability.astype(np.float64)
        beyond = (images.true_rank == 0) | (images.true_rank > top.shape[1])
        smallest = float(np.finfo(np.float32).eps)
        self._classes, self._others = classes, others
        self._top, self._rest, self._label = (
            np.log(np.maximum(values, smallest)) for values in (top, rest, np.where(beyond, rest, label))
        )
        self._rank = np.where(beyond, 0, images.true_rank)

    def all(self, sharpness: float) -> Floats:
        """[images, parts], noise last."""
        wrong = (1 - self._tempered(sharpness)) / (self._classes - 1)
        tempered = [self._tempered(sharpness * factor) for factor in _TEMPERATURES]
        return np.column_stack([*tempered, *map(self._by_order, _DECAYS), wrong])

    def sharpness(self) -> float:
        """The sharpness of the largest likelihood, with _ASSUMED_NOISE."""
        noise = _ASSUMED_NOISE / self._classes
        fits = [np.log((1 - _ASSUMED_NOISE) * self._tempered(each) + noise).sum() for each in _SHARPNESS]
        return float(_SHARPNESS[int(np.argmax(fits))])

    def _tempered(self, sharpness: float) -> Floats:
        terms = sharpness * np.column_stack([self._top, self._rest])
        highest = terms.max(axis=1)
        total = np.exp(terms - highest[:, None]) @ np.append(np.ones(self._top.shape[1]), self._others)
        found: Floats = np.exp(sharpness * self._label - highest) / total
        return found

    def _by_order(self, speed: float) -> Floats:
        """Geometric in the rank, from the second one."""
        behind = (self._classes - 2) / 8
        weights = (speed * behind / (1 + behind)) ** np.arange(self._classes - 1)
        weights /= weights.sum()
        kept = self._top.shape[1]
        by_rank = np.zeros(kept + 1)
        by_rank[2:] = weights[: kept - 1]
        by_rank[0] = weights[kept - 1 :].sum() / max(self._others, 1)
        return by_rank[self._rank]


def _fit_weights(parts: Floats) -> tuple[Floats, float]:
    """Weights of the largest likelihood, by expectation maximisation, and its logarithm. parts: [images, parts]."""
    weights, before = np.full(parts.shape[1], 1 / parts.shape[1]), -np.inf
    for _ in range(_STEPS):
        total = np.maximum(parts @ weights, _TINY)
        likelihood = float(np.log(total).sum())
        weights = weights * (parts.T @ (1 / total)) / len(parts)
        if likelihood - before < 1e-3:
            break
        before = likelihood
    return weights, likelihood
