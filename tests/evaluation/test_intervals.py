"""How sure a figure is: checked against statsmodels and scipy, and by experiment."""

import numpy as np
import pytest
from scipy.stats import multinomial
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from batchland.evaluation.intervals import (
    MAX_DRAWS,
    MIN_RESAMPLES,
    affordable_resamples,
    holm,
    mcnemar_exact,
    paired_difference,
    percentile_bounds,
    stratified_draws,
    stratified_weights,
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


def test_holm_equals_statsmodels() -> None:
    p_values = np.random.default_rng(0).uniform(size=40) ** 3
    np.testing.assert_allclose(holm(p_values), multipletests(p_values, method="holm")[1])
    assert holm([0.01, 0.04, 0.03]).tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]).tolist() == []


def test_stratified_draws() -> None:
    strata, counts = np.array([0, 0, 2, 2, 2]), np.array([30, 10, 5, 5, 90])
    drawn = dict(zip((0, 2), stratified_draws(strata, counts, 20_000, seed=1), strict=True))
    for cells, draws in drawn.values():
        total = counts[cells].sum()
        assert (draws.sum(axis=1) == total).all()
        share = counts[cells] / total
        np.testing.assert_allclose(draws.mean(axis=0), counts[cells], rtol=0.02)
        np.testing.assert_allclose(draws.std(axis=0), np.sqrt(total * share * (1 - share)), rtol=0.03)
    again = next(iter(stratified_draws(strata, counts, 20_000, seed=1)))
    assert (again[1] == drawn[0][1]).all()


def test_percentile_bounds() -> None:
    assert percentile_bounds(np.arange(1001.0), 0.9) == pytest.approx((50, 950))
    assert percentile_bounds(np.ones(1000), 0.9) == (None, None)


def test_affordable_resamples() -> None:
    assert affordable_resamples(2500, 1000) == 1000
    assert affordable_resamples(100_000, 1000) == MAX_DRAWS // 100_000
    assert affordable_resamples(10_000_000, 1000) == MIN_RESAMPLES
    assert affordable_resamples(0, 1000) == 1000


def test_stratified_weights() -> None:
    strata = np.array([3, 1, 1, 3, 1, 7])
    drawn = np.stack(list(stratified_weights(strata, 20_000, seed=0)))
    for stratum, size in ((1, 3), (3, 2), (7, 1)):
        assert (drawn[:, strata == stratum].sum(axis=1) == size).all()
    np.testing.assert_allclose(drawn.mean(axis=0), 1, atol=0.02)
    np.testing.assert_allclose(drawn[:, 1].std(), np.sqrt(2 / 3), rtol=0.02)  # binomial of 3 draws, 1/3 each


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
        weight = multinomial.pmf(np.stack([lost, won, pairs - lost - won], 1), pairs, shares)
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
