"""Quantiles of the normal distribution, without scipy: importing it takes as long as a verdict."""

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
