"""The verdict on a night: its findings, and the pictures that show one of them."""

from dataclasses import replace
from datetime import date, timedelta

import numpy as np
from observed import observed

from batchland.monitoring.observations import MEASURES
from batchland.monitoring.rules import Night
from batchland.monitoring.verdict import judge

LABELS = ("red", "green", "blue")
TONIGHT = date(2026, 11, 29)


def good_nights(count: int) -> list[Night]:
    days = [TONIGHT - timedelta(days=ago) for ago in range(count, 0, -1)]
    return [Night(day, observed(np.random.default_rng(day.toordinal())), 100, 0) for day in days]


def test_pictures_show_the_finding_that_is_named() -> None:
    """The number of images comes first, but no picture shows it."""
    nights = good_nights(6)
    images = observed(np.random.default_rng(0), 12)
    images.values[3:, MEASURES.index("contrast")] = 0.001
    verdict = judge(Night(TONIGHT, images, 12, 0), nights, nights, LABELS)
    assert [finding.kind for finding in verdict.findings][:2] == ["blank", "volume"]
    assert (verdict.pictures_show, verdict.pictures) == ("blank", tuple(f"{number:03}.jpg" for number in range(3, 9)))
    few = judge(Night(TONIGHT, replace(images).take(np.arange(1)), 1, 0), nights, nights, LABELS)
    assert [(finding.kind, finding.message) for finding in few.findings] == [("volume", "1 image, usually 100")]
    assert (few.pictures_show, few.pictures) == (None, ())


def test_the_verdict_says_with_which_change_the_reference_begins() -> None:
    nights = good_nights(6)
    tonight = Night(TONIGHT, observed(np.random.default_rng(0)), 100, 0)
    start = nights[0].date
    assert judge(tonight, nights, nights, LABELS, start=start).reference_start == start
    assert judge(tonight, nights, nights, LABELS).reference_start is None
