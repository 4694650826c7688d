"""Temperature scaling: divide logits by one number to calibrate probabilities. Keeps the order of the classes."""

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

Floats = npt.NDArray[np.floating]
Labels = npt.NDArray[np.intp]

_SPREAD: Final = 0.5
"""Standard deviation of the log temperature's prior. Without it, six images that are all right would give a temperature
of 0."""
_BOUNDS: Final = (np.log(0.05), np.log(20.0))


def fit_temperature(logits: Floats, labels: Labels) -> float:
    """The temperature T that maximises the likelihood of the labels under softmax(logits / T), with a weak prior at 1.

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
