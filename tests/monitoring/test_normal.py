"""Quantiles equal scipy's."""

import numpy as np
import pytest
from scipy.stats import chi2, norm

from batchland.monitoring.normal import chi_squared_quantile, normal_quantile


def test_quantiles_are_those_of_scipy() -> None:
    small = 10.0 ** -np.arange(1, 300)
    probabilities = np.concatenate([np.linspace(0, 1, 10_001), small, 1 - small[:15]])
    assert normal_quantile(probabilities) == pytest.approx(norm.ppf(probabilities), rel=1e-14, abs=1e-14)
    assert normal_quantile([0.0, 0.5, 1.0]).tolist() == [-np.inf, 0.0, np.inf]


@pytest.mark.parametrize("probability", [0.5, 0.9, 0.99, 0.9999])
def test_chi_squared_quantiles_are_those_of_scipy(probability: float) -> None:
    degrees = [1, 2, 3, 4, 9, 10, 49, 50, 1023, 5000]
    found = [chi_squared_quantile(probability, each) for each in degrees]
    assert found == pytest.approx(chi2.ppf(probability, degrees), rel=1e-9)
