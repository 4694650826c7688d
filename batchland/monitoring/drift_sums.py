"""Slow drift: cumulative sums of the deviations of nightly means (CUSUM). They find changes too small for one night."""

from collections.abc import Iterator, Mapping
from datetime import date
from typing import Final

from batchland.monitoring.schema import DriftSum, Finding

SLACK: Final = 1.25
"""Only the part of a deviation above this is added, in standard deviations."""
MAX_SCORE: Final = 4.0
"""Largest deviation that is used of one night."""
LIMIT: Final = 20.0
"""A larger sum is an alarm."""


def cumulate(before: Mapping[str, DriftSum], deviations: Mapping[str, float], night: date) -> dict[str, DriftSum]:
    """The sums after another night, without zeros. deviations: z by measure."""
    after = {}
    for measure, z in deviations.items():
        for name, step in ((f"{measure} up", z), (f"{measure} down", -z)):
            old = before.get(name)
            value = (old.value if old else 0.0) + min(step, MAX_SCORE) - SLACK
            if value > 0:
                after[name] = DriftSum(value=round(value, 3), since=old.since if old else night)
    return after


def drifts(sums: Mapping[str, DriftSum], usual: Mapping[str, str], limit: float = 1.0) -> Iterator[Finding]:
    """The sums above `limit` times LIMIT. usual: by measure, a text with its value tonight and its usual values."""
    for name, found in sums.items():
        if found.value > limit * LIMIT:
            measure, _, direction = name.rpartition(" ")
            message = f"slow drift {direction}: {usual[measure]}"
            strength = found.value / LIMIT / limit
            yield Finding(kind="drift", what=measure, message=message, strength=strength, since=found.since)
