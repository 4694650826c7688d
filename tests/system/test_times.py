"""Modification times."""

from datetime import UTC, datetime

import pytest

from batchland.system.times import known_time


@pytest.mark.parametrize("year", [1, 1970, 9999])
def test_times_that_python_can_represent_are_known(year):
    moment = datetime(year, 12, 31, 23, 59, 59, tzinfo=UTC)
    assert known_time(int(moment.timestamp()) * 1_000_000) == int(moment.timestamp()) * 1_000_000


@pytest.mark.parametrize("seconds", [-62_135_596_801, 253_402_300_800, 2**63 - 1, -(2**63)])
def test_times_outside_the_years_1_to_9999_are_unknown(seconds):
    assert known_time(seconds * 1_000_000) is None
