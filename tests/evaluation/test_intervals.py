"""Confidence intervals and tests, compared with statsmodels and scipy, and checked by simulation."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from batchland.evaluation.intervals import (
    fisher_exact,
    fisher_weaker,
    holm,
    mcnemar_exact,
    paired_difference,
    stratified_variance,
    wilson,
)


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_wilson_equals_statsmodels(confidence: float) -> None:
    hits, trials = np.array([0, 1, 5, 99, 100, 3, 50_000]), np.array([10, 10, 10, 100, 100, 3, 99_999])
    ours = wilson(hits, trials, confidence)
    theirs = proportion_confint(hits, trials, alpha=1 - confidence, method="wilson")
    np.testing.assert_allclose(ours.low, theirs[0], atol=1e-12)
    np.testing.assert_allclose(ours.high, theirs[1], atol=1e-12)


def test_wilson_ends_exactly_at_0_and_1_and_is_nan_without_trials() -> None:
    low, high = wilson([0, 7, 0], [7, 7, 0])
    assert (low[0], high[1]) == (0.0, 1.0)
    assert np.isnan([low[2], high[2]]).all()
    assert 0 < high[0] < 0.5 < low[1] < 1


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (1, 0), (6, 1), (10, 10), (30, 12), (400, 460)])
def test_mcnemar_equals_statsmodels(only_a: int, only_b: int) -> None:
    theirs = mcnemar([[50, only_a], [only_b, 20]], exact=True).pvalue if only_a + only_b else 1.0
    assert mcnemar_exact(only_a, only_b) == pytest.approx(theirs, rel=1e-9)


@pytest.mark.parametrize(
    ("right", "images", "all_right", "all_images"),
    [(0, 1, 1, 2), (3, 5, 7, 11), (5, 5, 5, 5), (0, 20, 30, 60), (480, 500, 4500, 5000), (700, 1000, 79_000, 100_000),
     (160_200, 200_000, 4_000_000, 5_000_000), (0, 4, 2, 1_000_000)],
)  # fmt: skip
def test_fisher_equals_scipy(right: int, images: int, all_right: int, all_images: int) -> None:
    wrong, others = images - right, all_right - right
    table = [[right, wrong], [others, all_images - images - others]]
    for found, alternative in ((fisher_exact, "two-sided"), (fisher_weaker, "less")):
        expected = stats.fisher_exact(table, alternative=alternative).pvalue
        assert found(right, images, all_right, all_images) == pytest.approx(expected, rel=1e-6)


def test_fisher_is_0_far_from_the_mean() -> None:
    assert fisher_exact(0, 10_000, 500_000, 1_000_000) == fisher_weaker(0, 10_000, 500_000, 1_000_000) == 0
    assert fisher_weaker(10_000, 10_000, 500_000, 1_000_000) == pytest.approx(1)


def test_holm_equals_statsmodels() -> None:
    p_values = np.random.default_rng(0).uniform(size=40) ** 3
    np.testing.assert_allclose(holm(p_values), multipletests(p_values, method="holm")[1])
    assert holm([0.01, 0.04, 0.03]).tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]).tolist() == []


def test_stratified_variance_of_a_mean_of_class_rates() -> None:
    """Two strata: 6 of 10 and 40 of 50, each counting half. The shared variance counts like two more images."""
    strata, counts = np.array([0, 0, 1, 1]), np.array([6, 4, 40, 10])
    influence = np.array([1, 0, 1, 0]) / np.array([20, 20, 100, 100])
    own = np.array([0.6 * 0.4 / 9, 0.8 * 0.2 / 49]) / 4
    shared = 0.7 * 0.3 / np.array([10, 50]) / 4
    expected = ((np.array([9, 49]) * own + 2 * shared) / np.array([11, 51])).sum()
    found = stratified_variance(strata, counts, influence, np.array([0.5, 0.5]))
    assert found == pytest.approx(expected)


def test_paired_interval_coverage_by_enumeration() -> None:
    """For every truth tried, the interval covers it in about 95% of all outcomes."""
    pairs = 12
    lost, won = (grid.ravel() for grid in np.meshgrid(np.arange(pairs + 1), np.arange(pairs + 1)))
    possible = lost + won <= pairs
    lost, won = lost[possible], won[possible]
    low, high = paired_difference(lost, won, pairs, 0.95)
    covered = []
    for p_lost, p_won in ((0.05, 0.05), (0.1, 0.3), (0.3, 0.3), (0.02, 0.5), (0.4, 0.1)):
        shares = [p_lost, p_won, 1 - p_lost - p_won]
        weight = stats.multinomial.pmf(np.stack([lost, won, pairs - lost - won], 1), pairs, shares)
        assert weight.sum() == pytest.approx(1)
        truth = p_won - p_lost
        covered.append(weight[(low <= truth) & (truth <= high)].sum())
    assert min(covered) > 0.93
    assert np.mean(covered) == pytest.approx(0.96, abs=0.02)


def test_paired_interval_of_many_images_equals_the_normal_approximation() -> None:
    lost, won, pairs = 300, 420, 10_000
    low, high = paired_difference(lost, won, pairs, 0.95)
    difference, spread = (won - lost) / pairs, np.sqrt(lost + won - (won - lost) ** 2 / pairs) / pairs
    expected = difference - 1.96 * spread, difference + 1.96 * spread
    assert (float(low), float(high)) == pytest.approx(expected, abs=1e-5)
    assert np.isnan(paired_difference(0, 0, 0, 0.95)).all()
