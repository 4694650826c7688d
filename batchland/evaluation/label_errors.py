"""Find mistakes that are probably wrong labels, by a model of label noise.

Each label is the true class with probability 1 - noise, else a random other class. The true class has the model's
probability, after temperature scaling. Temperature and noise are fitted together to all labels, so that the mistakes of
an overconfident model are not attributed to the labels. No label is suspected unless the evidence of noise is strong.
"""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from batchland.evaluation.intervals import Floats, Ints

SUSPECTED_FROM: Final = 0.6
"""Smallest probability of a label error that is suspected."""
CONFIDENT_MISTAKES: Final = 0.01
"""Assumed share of wrong answers with high probabilities. Lowers the probability of label errors."""
EVIDENCE: Final = 15.0
"""Labels are suspected only if twice the log likelihood ratio of noise against no noise is at least this. By chance it
exceeds 10.8 in one of a thousand cases; the limit is higher because real models do not fit perfectly."""
COUNTED: Final = 0.25
"""If at least this share of images has no information, the probabilities are counts of votes: no label is suspected."""
FITTED_IMAGES: Final = 20_000
CHOICES: Final = 20
"""Choices per image that the model of noise uses; the other classes share the rest equally."""


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
    """1 / temperature."""
    noise: float
    """Share of wrong labels; 0 if the labels do not show that some are wrong."""
    classes: int

    def error_probabilities(self, mistakes: LabelledChoices) -> Floats:
        """Probability that each label is wrong, for images with a first choice that differs from the label."""
        if not self.noise:
            return np.zeros(len(mistakes.true_rank))
        label, random_label = _NoiseModel(mistakes, self.classes).label_probabilities(self.sharpness)
        random_label = np.where(mistakes.informative, random_label, 0.0)
        honest = (1 - CONFIDENT_MISTAKES) * label + CONFIDENT_MISTAKES / self.classes
        wrong: Floats = self.noise * random_label / (self.noise * random_label + (1 - self.noise) * honest)
        return wrong


def fit_label_noise(sample: LabelledChoices, classes: int) -> LabelNoise:
    """Fit the model to a random sample of the scored images, FITTED_IMAGES of them or all."""
    if sample.choices.size:
        informative = sample.informative
        if informative.mean() < 1 - COUNTED:
            return LabelNoise(1.0, 0.0, classes)
        sample = LabelledChoices(
            sample.choices[informative], sample.true_rank[informative], sample.true_probability[informative]
        )
    if not len(sample.true_rank) or classes < 2 or (sample.true_rank == 1).all():
        return LabelNoise(1.0, 0.0, classes)
    return LabelNoise(*_NoiseModel(sample, classes).fit(), classes)


class _NoiseModel:
    """The likelihood of the labels of some images."""

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

    def label_probabilities(self, sharpness: float) -> tuple[Floats, Floats]:
        """Probability of each label as the true class, and as a random wrong one. sharpness: 1 / temperature."""
        terms = sharpness * np.column_stack([self._top, self._rest])
        highest = terms.max(axis=1)
        total = np.exp(terms - highest[:, None]) @ np.append(np.ones(self._top.shape[1]), self._others)
        label = np.exp(sharpness * self._label - highest) / total
        return label, (1 - label) / (self._classes - 1)

    def fit(self) -> tuple[float, float]:
        """(sharpness, noise) of the largest likelihood; noise is 0 without EVIDENCE."""
        from scipy.optimize import minimize

        def loss(parameters: Floats) -> float:
            """Parameters: logarithm of the sharpness; logit of the noise, or nothing for no noise."""
            noise = 1 / (1 + np.exp(-parameters[1])) if len(parameters) > 1 else 0.0
            label, random_label = self.label_probabilities(float(np.exp(parameters[0])))
            return float(-np.log((1 - noise) * label + noise * random_label).sum())

        clean = minimize(loss, [0.0], method="Nelder-Mead")
        noisy = min(
            (minimize(loss, [clean.x[0], logit], method="Nelder-Mead") for logit in (-5.0, -2.5)),
            key=lambda found: float(found.fun),
        )
        if 2 * (clean.fun - noisy.fun) < EVIDENCE:
            return float(np.exp(clean.x[0])), 0.0
        return float(np.exp(noisy.x[0])), float(1 / (1 + np.exp(-noisy.x[1])))
