"""Find mistakes that are probably wrong labels, by a model of label noise.

Each label is the true class with probability 1 - noise, else a random other class. The model of the true class is a
mixture, because a model may be much more overconfident on some images than on others, and confident in a wrong class:

- the probabilities, at several temperatures around the one that fits best;
- the order of the classes alone: not the first choice, but one that is not far behind it.

Wrong labels differ from both: they are also far behind, whatever the probabilities are. The weights are fitted to all
labels together. No label is suspected unless the fit shows that some are wrong, and at most as many as it shows.

Wrong labels are spread over the classes. Two classes that are often confused, by the model or by those who labelled,
are left out (`_confusions`). Confident mistakes that are spread over the classes look like wrong labels: those of a
model with heavy-tailed logits, or those on images of something else.
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
exceeds 5.4 in one of a hundred cases."""
COUNTED: Final = 0.25
"""If at least this share of images has no information, the probabilities are counts of votes: no label is suspected."""
FITTED_IMAGES: Final = 20_000
CHOICES: Final = 20
"""Choices per image that the model of noise uses; the other classes share the rest equally."""
_TEMPERATURES: Final = (1 / 3, 0.5, 0.7, 1.0, 1.4, 2.0, 3.0)
"""Sharpness of the mixture's parts, relative to the one that fits best."""
_SHARPNESS: Final = 2.0 ** np.arange(-5, 2.6, 0.5)
"""Values of the sharpness (1 / temperature) that are tried for all probabilities."""
_DECAYS: Final = (0.2, 0.5, 1.0)
"""How fast the weight of a class falls with its rank, relative to the slowest fall. With that, the mean rank is an
eighth of the number of classes."""
_ASSUMED_NOISE: Final = 0.1
"""Share of labels that are ignored when the sharpness is chosen. If more labels are wrong, the probabilities seem too
high, which explains the wrong labels almost as well as noise does. With 0.05 and a tenth of the labels wrong, chance
decided whether the list was empty or complete."""
_CONFUSION_BY_CHANCE: Final = 0.01
"""Largest chance that random wrong labels make any cell of the confusion matrix a confusion."""
_CLEARLY_MORE: Final = 2
"""Pairs of suspects in the same cell are too many if they clearly exceed this many times the expected number."""
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
    label: Ints
    """Class index of the label."""
    first: Ints
    """Class index of the first choice."""

    def where(self, mask: npt.NDArray[np.bool_]) -> "LabelledChoices":
        """Some of the images."""
        choices, rank, probability = self.choices[mask], self.true_rank[mask], self.true_probability[mask]
        return LabelledChoices(choices, rank, probability, self.label[mask], self.first[mask])

    def in_cells(self, cells: Ints, classes: int) -> npt.NDArray[np.bool_]:
        """Whether each image is in one of these cells of the confusion matrix: label * classes + first choice."""
        return np.isin(self.label * classes + self.first, cells)

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
    confusions: Ints = np.zeros(0, np.int64)
    """Cells of the confusion matrix that are confusions of two classes (label * classes + first choice)."""

    @property
    def noise(self) -> float:
        """Share of wrong labels; 0 if the labels do not show that some are wrong."""
        return float(self.weights[-1])

    def error_probabilities(self, mistakes: LabelledChoices) -> Floats:
        """Probability that each label is wrong, for images with a first choice that differs from the label.

        0 for images that cannot say so, and for confusions of two classes.
        """
        if not self.noise:
            return np.zeros(len(mistakes.label))
        parts = _Parts(mistakes, self.classes).all(self.sharpness) * self.weights
        wrong: Floats = parts[:, -1] / np.maximum(parts.sum(axis=1), _TINY)
        wrong[~mistakes.informative | mistakes.in_cells(self.confusions, self.classes)] = 0
        return wrong


def fit_label_noise(sample: LabelledChoices, classes: int) -> LabelNoise:
    """Fit the model to a random sample of the scored images, FITTED_IMAGES of them or all.

    With two classes, or one choice, a wrong label and a confident mistake look alike: then the noise is 0.
    """
    none = LabelNoise(1.0, np.zeros(1), classes)
    if classes < 3 or sample.choices.shape[1] < 2 or sample.informative.mean() < 1 - COUNTED:
        return none
    sample = sample.where(sample.informative)
    confusions = none.confusions
    while found := _fit(sample, classes):
        mistakes = sample.where(sample.label != sample.first)
        suspects = mistakes.where(found.error_probabilities(mistakes) >= found.suspected_from)
        new = _confusions(suspects, np.bincount(sample.label, minlength=classes) / len(sample.label), confusions)
        if not len(new):
            return found._replace(confusions=confusions)
        confusions = np.append(confusions, new)
        sample = sample.where(~sample.in_cells(new, classes))
    return none


def _fit(sample: LabelledChoices, classes: int) -> LabelNoise | None:
    """The model of all images of the sample; None if they do not show that labels are wrong."""
    mistake = sample.true_rank != 1
    if not mistake.any():
        return None
    images = _Parts(sample, classes)
    sharpness = images.sharpness()
    parts = images.all(sharpness)
    _, clean = _fit_weights(parts[:, :-1])
    weights, noisy = _fit_weights(parts)
    if 2 * (noisy - clean) < EVIDENCE:
        return None
    found = LabelNoise(sharpness, weights, classes)
    explained = math.ceil(found.noise * len(mistake))
    shares = np.sort(found.error_probabilities(sample.where(mistake)))[::-1]
    limit = float(shares[explained - 1]) if explained < len(shares) else 0.0
    return found._replace(suspected_from=max(SUSPECTED_FROM, limit))


def _confusions(suspects: LabelledChoices, frequency: Floats, before: Ints) -> Ints:
    """Cells of the confusion matrix with clearly more suspects than random wrong labels would give.

    The wrong labels of images with the same first choice are spread over the other classes, equally or by frequency. A
    cell is a confusion if the Chernoff bound on its binomial chance, times the number of cells, is below
    _CONFUSION_BY_CHANCE. If there is none, but too many pairs of suspects are in the same cell, all cells with two or
    more are confusions. frequency: share of each class among the labels. before: confusions that are left out already.
    """
    classes = len(frequency)

    def chances(cells: Ints) -> Floats:
        label, first = cells // classes, cells % classes
        by_frequency: Floats = frequency[label] / np.maximum(1 - frequency[first], _TINY)
        return np.maximum(1 / (classes - 1), by_frequency)

    left = 1 - np.bincount(before % classes, weights=chances(before), minlength=classes)
    cells, images = np.unique(suspects.label * classes + suspects.first, return_counts=True)
    by_first = np.bincount(suspects.first, minlength=classes)
    chance = (chances(cells) / np.maximum(left[cells % classes], _TINY)).clip(max=1 - 1e-9)
    share = images / by_first[cells % classes]
    evidence = share * np.log(share / chance) + (1 - share) * np.log(np.maximum(1 - share, _TINY) / (1 - chance))
    limit = math.log(classes * (classes - 1) / _CONFUSION_BY_CHANCE)
    confusion = (share > chance) & (by_first[cells % classes] * evidence > limit)
    if not confusion.any():
        same = float((images * (images - 1)).sum() / 2)
        expected = _CLEARLY_MORE * float((images * (by_first[cells % classes] - 1) * chance).sum() / 2)
        if same > expected and same * math.log(same / expected) - same + expected > -math.log(_CONFUSION_BY_CHANCE):
            confusion = images > 1
    return cells[confusion]


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
        return np.exp(sharpness * self._label - highest) / total

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
