"""A fault lasts if the next night has the same one: never if its figures only deviate in the same measures."""

from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pytest
from observed import observed

from batchland.monitoring.observations import MEASURES, Observations
from batchland.monitoring.rules import Night
from batchland.monitoring.verdict import judge

LABELS = ("red", "green", "blue")
FIRST, SECOND = date(2026, 11, 21), date(2026, 11, 22)


def faulty(number: int, fault: str) -> Observations:
    """A night of 100 images. dark and bright pictures are noisy, too."""
    rng = np.random.default_rng(number)
    shifts = {
        "dark": {"brightness": -5.0, "contrast": -4.0, "noise": 3.0},
        "darker": {"brightness": -12.0, "contrast": -9.0, "noise": 8.0},
        "bright": {"brightness": 5.0, "contrast": 1.0, "noise": 3.0},
        "noisy": {"noise": 4.0},
    }
    images = observed(rng, shift=shifts.get(fault, {}))
    if fault == "black":
        images.values[:, MEASURES.index("contrast")] = 0
        images.values[:, MEASURES.index("noise")] = -6
    if fault == "red only":
        images = replace(images, classes=np.where(rng.random(100) < 0.9, 0, images.classes).astype(np.int32))
    if fault == "red missing":
        images = replace(images, classes=np.maximum(images.classes, 1))
    if fault == "one picture":
        images.hashes[:] = 77
    return images.take(np.arange(10)) if fault == "few" else images


@pytest.fixture(scope="module")
def good() -> list[Night]:
    days = [FIRST - timedelta(days=ago) for ago in range(14, 0, -1)]
    return [Night(day, observed(np.random.default_rng(day.toordinal())), 100, 0) for day in days]


@pytest.mark.parametrize(
    ("first", "second", "lasts"),
    [
        *((fault, fault, True) for fault in ("dark", "noisy", "black", "red only", "few", "one picture")),
        ("dark", "bright", False),
        ("dark", "noisy", False),
        ("dark", "darker", False),
        ("black", "dark", False),
        ("dark", "black", False),
        ("few", "dark", False),
        ("red only", "red missing", False),
    ],
)
def test_a_fault_lasts_if_the_same_figures_deviate_alike(
    good: list[Night], first: str, second: str, lasts: bool
) -> None:
    before, tonight = (
        Night(day, images, len(images), 0) for day, images in ((FIRST, faulty(1, first)), (SECOND, faulty(2, second)))
    )
    earlier = judge(before, good, good, LABELS)
    found = judge(tonight, good, good, LABELS, before=(before, earlier), delivered=[*good, before])
    assert (earlier.verdict, found.verdict) == ("suspicious", "suspicious")
    assert found.since == (FIRST if lasts else None)
    assert any(each.since for each in found.findings) is lasts


def test_the_first_night_of_a_fault_is_passed_on(good: list[Night]) -> None:
    nights = [Night(FIRST + timedelta(days=number), faulty(number, "dark"), 100, 0) for number in range(3)]
    before = None
    for night in nights:
        found = judge(night, good, good, LABELS, before=before)
        before = night, found
    assert (found.since, found.findings[0].since) == (FIRST, FIRST)


def test_other_numbers_of_images_are_the_same_fault_only_in_one_direction(good: list[Night]) -> None:
    def since(first: int, second: int) -> date | None:
        images = observed(np.random.default_rng(3))
        before = Night(FIRST, images, first, 0)
        earlier = judge(before, good, good, LABELS)
        assert [each.kind for each in earlier.findings] == ["volume"]
        return judge(Night(SECOND, images, second, 0), good, good, LABELS, before=(before, earlier)).since

    assert (since(500, 480), since(500, 20), since(20, 25)) == (FIRST, None, FIRST)
