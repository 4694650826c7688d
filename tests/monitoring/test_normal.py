"""Quantiles of the normal distribution equal scipy's."""

import numpy as np
import pytest
from scipy.stats import norm

from batchland.monitoring.normal import normal_quantile


def test_quantiles_are_those_of_scipy() -> None:
    small = 10.0 ** -np.arange(1, 300)
    probabilities = np.concatenate([np.linspace(0, 1, 10_001), small, 1 - small[:15]])
    assert normal_quantile(probabilities) == pytest.approx(norm.ppf(probabilities), rel=1e-14, abs=1e-14)
    assert normal_quantile([0.0, 0.5, 1.0]).tolist() == [-np.inf, 0.0, np.inf]
