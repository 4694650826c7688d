"""Cumulative sums find a small lasting change."""

from datetime import date, timedelta

from batchland.monitoring.drift_sums import LIMIT, cumulate, drifts
from batchland.monitoring.schema import DriftSum

FIRST = date(2026, 11, 1)


def after(deviations: list[float]) -> dict[str, DriftSum]:
    sums: dict[str, DriftSum] = {}
    for number, z in enumerate(deviations):
        sums = cumulate(sums, {"noise": z}, FIRST + timedelta(days=number))
    return sums


def test_small_deviations_leave_no_sum() -> None:
    assert after([1.2, -1.2, 0.5, 1.0]) == {}


def test_sum_counts_what_exceeds_the_slack_since_it_was_zero() -> None:
    assert after([0.0, 2.25, 1.75]) == {"noise up": DriftSum(value=1.5, since=FIRST + timedelta(days=1))}
    assert after([-3.25, -1.25]) == {"noise down": DriftSum(value=2.0, since=FIRST)}


def test_one_night_counts_as_four_deviations_at_most() -> None:
    assert after([100.0])["noise up"].value == 2.75


def test_slow_drift_is_found_and_dated() -> None:
    sums = after([0.3] * 10 + [2.5] * 17)
    (finding,) = drifts(sums, {"noise": "noise: mean 3, usually 1 to 2"})
    assert finding.model_dump() == {
        "kind": "drift",
        "what": "noise",
        "message": "slow drift up: noise: mean 3, usually 1 to 2",
        "strength": 17 * 1.25 / LIMIT,
        "since": FIRST + timedelta(days=10),
    }
    assert list(drifts(after([2.5] * 10), {})) == []
