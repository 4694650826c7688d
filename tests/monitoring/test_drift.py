"""Drift: known values, the ends, and that chance alone stays below its limit."""

import math
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchland.monitoring.drift import CHANCE, Drift, drift, equal_parts

COUNTS = st.lists(st.integers(0, 5000), min_size=1, max_size=12)


def test_a_value_calculated_by_hand():
    """Shares 0.5/0.5 against 0.75/0.25; half an image in each bin hardly matters among millions."""
    found = drift([10**7, 10**7], [15 * 10**6, 5 * 10**6])
    assert found.psi == pytest.approx(0.25 * math.log(3), abs=1e-6)
    p, q, m = (0.5, 0.5), (0.75, 0.25), (0.625, 0.375)
    divergence = sum(sum(a * math.log2(a / c) for a, c in zip(side, m, strict=True)) / 2 for side in (p, q))
    assert found.js == pytest.approx(math.sqrt(divergence))
    assert found.psi_limit == pytest.approx(6.634897 * (1 / 2e7 + 1 / 2e7), rel=1e-6)  # chi-squared, 1 degree, 99%


def test_it_does_not_import_scipy(monkeypatch):
    """That would take as long as the trend of a night."""
    monkeypatch.setitem(sys.modules, "scipy.special", None)
    assert drift([3, 1], [1, 3]).psi > 0


def test_extreme_values():
    assert drift([3, 0, 9], [3, 0, 9]) == Drift(0.0, pytest.approx(6.634897 * 2 / 12), 0.0)
    assert drift([5, 0], [0, 5]).js == 1.0
    assert drift([4], [7]) == Drift(0.0, 0.0, 0.0)
    assert drift([0, 0], [1, 2]) is None
    assert drift([1, 2], [0, 0]) is None


@given(COUNTS, st.data())
def test_it_is_symmetric_not_negative_and_independent_of_the_order_of_bins(before, data):
    now = data.draw(st.lists(st.integers(0, 5000), min_size=len(before), max_size=len(before)))
    found = drift(before, now)
    if found is None:
        assert not any(before) or not any(now)
        return
    assert found.psi >= -1e-12
    assert 0 <= found.js <= 1 + 1e-9
    for other in (drift(now, before), drift(before[::-1], now[::-1])):
        assert other == pytest.approx(found, abs=1e-6)


@pytest.mark.parametrize(("classes", "night", "reference"), [(3, 23, 161), (10, 200, 1400), (50, 60, 420)])
def test_chance_alone_rarely_passes_the_limit(classes, night, reference):
    rng = np.random.default_rng(7)
    shares = rng.dirichlet(np.full(classes, 2.0))
    draws = 2000
    found = [drift(rng.multinomial(reference, shares), rng.multinomial(night, shares)) for _ in range(draws)]
    beyond = sum(each.psi > each.psi_limit for each in found)
    assert beyond <= 2 * (1 - CHANCE) * draws


def test_verdicts():
    assert [Drift(psi, limit, 0.0).verdict for psi, limit in ((0.05, 0.01), (0.2, 0.3), (0.1, 0.1), (0.25, 0.1))] == [
        "steady", "steady", "moved", "moved far"
    ]  # fmt: skip
    assert drift([500, 300, 200], [50, 30, 20]).verdict == "steady"
    assert drift([500, 300, 200], [20, 30, 50]).verdict == "moved far"


def test_neighbouring_bins_are_merged_into_groups_of_about_equal_size():
    histogram = [0, 0, 0, 1, 5, 50, 100, 300, 400, 500]
    starts = equal_parts(histogram)
    assert starts.tolist() == [0, 7, 8, 9]
    assert np.add.reduceat(histogram, starts).tolist() == [156, 300, 400, 500]
    assert equal_parts([1] * 20).tolist() == list(range(0, 20, 2))
    assert equal_parts([0] * 5).tolist() == [0]
    assert equal_parts([9] + [0] * 19).tolist() == [0]


@given(COUNTS)
def test_groups_start_at_the_first_bin_and_each_holds_a_share(counts):
    starts = equal_parts(counts)
    assert starts[0] == 0
    assert (np.diff(starts) > 0).all()
    held = np.add.reduceat(counts, starts)
    assert len(starts) == 1 or held.min() >= sum(counts) / 10
