"""Quantiles of the normal and the chi-squared distribution, without scipy: importing it takes longer than a verdict."""

from math import erfc, exp, lgamma, log, sqrt
from statistics import NormalDist
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]

_INSIDE: Final = np.nextafter([0.0, 1.0], [1.0, 0.0])


def normal_quantile(probabilities: npt.ArrayLike) -> Floats:
    """The normal deviate below which each probability lies: 1.645 for 0.95. Infinite for 0 and 1; about 1e-15 exact."""
    wanted = np.asarray(probabilities, np.float64)
    inside = np.clip(wanted, *_INSIDE).ravel().tolist()
    found: Floats = np.fromiter(map(NormalDist().inv_cdf, inside), np.float64, wanted.size).reshape(wanted.shape)
    found[wanted <= 0], found[wanted >= 1] = -np.inf, np.inf
    return found


def chi_squared_quantile(probability: float, degrees: int) -> float:
    """The value that a chi-squared variable is below with this probability, at least 0.5; about 1e-12 exact.

    degrees: of freedom, at least 1. Newton's method, from the approximation of Wilson and Hilferty.
    """
    variance = 2 / (9 * degrees)
    value = degrees * (1 - variance + sqrt(variance) * NormalDist().inv_cdf(probability)) ** 3
    for _ in range(5):
        half = value / 2
        powers = np.arange(degrees / 2 - 1, -0.25, -1)  # down to 0 or 1/2
        above = sum(exp(power * log(half) - half - lgamma(power + 1)) for power in powers)
        above += erfc(sqrt(half)) if degrees % 2 else 0
        density = exp((degrees / 2 - 1) * log(half) - half - lgamma(degrees / 2)) / 2
        value += (above - (1 - probability)) / density
    return value
