"""Which mistakes are probably wrong labels, by a model of label noise.

Each label is the true class with probability 1 - noise, else a random other class. The true class has the model's
probability, after temperature scaling. Temperature and noise are fitted together to all labels, so an overconfident
model does not blame the labels for its own mistakes. Nothing is suspected unless the noise is beyond doubt.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from batchland.evaluation.intervals import Floats
from batchland.evaluation.outcomes import Outcomes

SUSPECTED_FROM: Final = 0.6
"""Smallest probability of a label error that is suspected."""
CONFIDENT_MISTAKES: Final = 0.01
"""Share of answers that are wrong in ways that no probability shows. Lowers the probability of label errors."""
EVIDENCE: Final = 15.0
"""Twice the log likelihood ratio of noise against no noise from which on labels are suspected. Chance exceeds 10.8 once
in a thousand; real models do not fit perfectly."""
FITTED_IMAGES: Final = 20_000
CHOICES: Final = 20
"""Choices per image that the model of noise uses; the others share what is left."""


def label_error_probabilities(outcomes: Outcomes, classes: int, seed: int) -> Floats:
    """Probability that the label of each image is wrong, [images]; 0 where it agrees with the first choice.

    All are 0 if the labels do not show that some of them are wrong.
    """
    found = np.zeros(len(outcomes.ok))
    scored = np.flatnonzero(outcomes.ok)
    wrong = scored[(outcomes.predicted != outcomes.truth)[scored]]
    if not len(wrong) or classes < 2:
        return found
    fitted = scored
    if len(scored) > FITTED_IMAGES:
        fitted = np.random.default_rng(seed).choice(scored, FITTED_IMAGES, replace=False)
    model = _NoiseModel(outcomes, fitted, classes)
    sharpness, noise = model.fit()
    if noise == 0:
        return found
    label, random_label = _NoiseModel(outcomes, wrong, classes).label_probabilities(sharpness)
    honest = (1 - CONFIDENT_MISTAKES) * label + CONFIDENT_MISTAKES / classes
    found[wrong] = noise * random_label / (noise * random_label + (1 - noise) * honest)
    return found


class _NoiseModel:
    """The likelihood of the labels of some images."""

    def __init__(self, outcomes: Outcomes, images: npt.NDArray[np.int64], classes: int) -> None:
        top = outcomes.choices[images, :CHOICES].astype(np.float64)
        others = classes - top.shape[1]
        rest = np.maximum(1 - top.sum(axis=1), 0) / max(others, 1)
        label = outcomes.true_probability[images]
        beyond = np.isnan(label) | (outcomes.true_rank[images] > CHOICES)
        smallest = float(np.finfo(np.float32).eps)
        self._classes, self._others = classes, others
        self._top, self._rest, self._label = (
            np.log(np.maximum(values, smallest)) for values in (top, rest, np.where(beyond, rest, label))
        )

    def label_probabilities(self, sharpness: float) -> tuple[Floats, Floats]:
        """Probability of each label as the true class, and as a random wrong one. sharpness: 1 / temperature."""
        total = np.exp(sharpness * self._top).sum(axis=1) + self._others * np.exp(sharpness * self._rest)
        label = np.exp(sharpness * self._label) / total
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
