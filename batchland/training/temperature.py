"""Temperature scaling: one number that makes a model's probabilities mean what they say. The first choice stays."""

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

Floats = npt.NDArray[np.floating]
Labels = npt.NDArray[np.intp]

_SPREAD: Final = 0.5
"""How far from 0 the logarithm of a temperature usually lies. It speaks where a few images alone would go anywhere: six
of them, all right, would ask for a temperature of 0."""
_BOUNDS: Final = (np.log(0.05), np.log(20.0))


def fit_temperature(logits: Floats, labels: Labels) -> float:
    """The temperature T at which softmax(logits / T) gives the labels the highest probability, with a weak pull to 1.

    logits: [images, classes], of images that were not trained on. labels: class indices [images].
    """

    def cost(log_temperature: float) -> float:
        total = len(labels) * mean_loss(logits / np.exp(log_temperature), labels)
        return total + log_temperature**2 / (2 * _SPREAD**2)

    found = minimize_scalar(cost, bounds=_BOUNDS, method="bounded", options={"xatol": 1e-4})
    return float(np.exp(found.x))


def mean_loss(logits: Floats, labels: Labels) -> float:
    """Mean cross-entropy, nats."""
    return float(-log_softmax(logits.astype(np.float64), axis=1)[np.arange(len(labels)), labels].mean())
