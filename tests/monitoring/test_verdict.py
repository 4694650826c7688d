"""The verdict on a night: its findings, and the pictures that show one of them."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pytest
from observed import observed

from batchland.monitoring import verdict
from batchland.monitoring.budget import LARGEST, SMALLEST, limit_of
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
    found = judge(Night(TONIGHT, images, 12, 0), nights, nights, LABELS)
    assert [finding.kind for finding in found.findings][:2] == ["blank", "volume"]
    assert (found.pictures_show, found.pictures) == ("blank", tuple(f"{number:03}.jpg" for number in range(3, 9)))
    few = judge(Night(TONIGHT, replace(images).take(np.arange(1)), 1, 0), nights, nights, LABELS)
    assert judge(Night(TONIGHT, images.take(np.arange(1)), 1, 0), [], [], LABELS).notes == few.notes
    assert [(finding.kind, finding.message) for finding in few.findings] == [("volume", "1 image, usually 100")]
    assert (few.pictures_show, few.pictures) == (None, ())
    assert few.notes == ("1 image, fewer than 5; only gross faults are found",)


def test_the_verdict_says_with_which_change_the_reference_begins() -> None:
    nights = good_nights(6)
    tonight = Night(TONIGHT, observed(np.random.default_rng(0)), 100, 0)
    start = nights[0].date
    assert judge(tonight, nights, nights, LABELS, start=start).reference_start == start
    assert judge(tonight, nights, nights, LABELS).reference_start is None


def test_pictures_are_also_compared_with_the_nights_of_the_model_before_until_there_are_enough() -> None:
    """Five nights that differ much hide what twenty others show; a change of the answers is no finding of those."""
    nights = good_nights(20)
    own = [
        Night(night.date, observed(np.random.default_rng(number), night=0.8), 100, 0)
        for number, night in enumerate(nights[-5:])
    ]

    def found(shifted: str, own: Sequence[Night], other_model: Sequence[Night]) -> set[str]:
        images = observed(np.random.default_rng(0), shift={shifted: 1.6})
        verdict = judge(Night(TONIGHT, images, 100, 0), own, [], LABELS, other_model=other_model)
        assert verdict.reference == tuple(night.date for night in own)
        assert (verdict.strength or 0) > 1 or not verdict.findings
        return {each.what for each in verdict.findings}

    assert (found("noise", own, ()), found("noise", own, nights)) == (set(), {"noise"})
    assert found("noise", own * 3, nights) == set()
    assert found("entropy", own, nights) == found("entropy", own, ())


def test_labelled_photos_are_a_reference_from_the_first_night_on() -> None:
    photos = observed(np.random.default_rng(1), 400)
    good = judge(Night(TONIGHT, observed(np.random.default_rng(0)), 100, 0), [], [], LABELS, photos=photos)
    assert (good.verdict, good.judged_by, good.reference, good.reference_photos) == ("ok", "reference", (), 400)
    assert good.notes == ()
    dark = observed(np.random.default_rng(0), shift={"brightness": -4})
    bad = judge(Night(TONIGHT, dark, 100, 0), [], [], LABELS, photos=photos, same_model=False)
    assert (bad.verdict, bad.findings[0].what) == ("suspicious", "brightness")
    assert bad.notes == ("the reference was scored by another model; only pictures are compared",)


def test_small_changes_in_every_night_are_drift_from_labelled_photos() -> None:
    photos = observed(np.random.default_rng(1), 400)
    before = None
    for number in range(60):
        night = observed(np.random.default_rng(number), shift={"noise": 0.7}, night=0.02)
        found = judge(Night(TONIGHT, night, 100, 0), [], [], LABELS, photos=photos, before=before)
        if found.verdict == "suspicious":
            break
        before = Night(TONIGHT, night, 100, 0), found
    assert [(finding.kind, finding.what) for finding in found.findings] == [("drift", "noise")]
    assert number > 3


@pytest.mark.parametrize("labelled", [False, True])
def test_a_larger_budget_means_lower_limits(labelled: bool) -> None:
    budgets = np.linspace(SMALLEST, LARGEST, 20)
    limits = [limit_of(budget, 100, labelled=labelled) for budget in budgets]
    assert (np.diff(limits) < 0).all()
    with pytest.raises(ValueError, match="a budget of 1000 false alarms a year was not measured"):
        limit_of(1000, 100, labelled=labelled)


def test_strength_is_a_multiple_of_the_limit_of_the_budget() -> None:
    nights = good_nights(14)
    tonight = Night(TONIGHT, observed(np.random.default_rng(0)), 100, 0)
    strengths = [judge(tonight, nights, nights, LABELS, budget=budget).strength for budget in (SMALLEST, LARGEST)]
    limits = [limit_of(budget, 100, labelled=False) for budget in (SMALLEST, LARGEST)]
    assert strengths[0] * limits[0] == pytest.approx(strengths[1] * limits[1])


def test_large_nights_are_compared_with_some_images_of_large_nights(monkeypatch: pytest.MonkeyPatch) -> None:
    """The verdict hardly depends on how many."""
    nights = good_nights(14)
    tonight = Night(TONIGHT, observed(np.random.default_rng(0), shift={"noise": 2}), 100, 0)
    everything = judge(tonight, nights, nights, LABELS).strength
    monkeypatch.setattr(verdict, "MAX_REFERENCE_IMAGES", 14 * 60)
    assert judge(tonight, nights, nights, LABELS).strength == pytest.approx(everything, rel=0.1)


def test_another_change_begins_on_its_own_night() -> None:
    """Although both nights are noisy."""
    nights = good_nights(14)
    images = observed(np.random.default_rng(0), shift={"noise": 6})
    turned = replace(images, thumbnails=np.ascontiguousarray(images.thumbnails[:, ::-1, ::-1]))
    swapped = replace(images, thumbnails=np.ascontiguousarray(images.thumbnails[..., ::-1]))
    yesterday = TONIGHT - timedelta(days=1)
    before = Night(yesterday, turned, 100, 0)
    first = judge(before, nights, [], LABELS)
    assert first.findings[0].kind == "change"
    second = judge(Night(TONIGHT, swapped, 100, 0), nights, [], LABELS, before=(before, first))
    assert (second.findings[0].what, second.since) == ("red and blue swapped", None)
    assert {each.since for each in second.findings} == {None}
    again = judge(Night(TONIGHT, turned, 100, 0), nights, [], LABELS, before=(before, first))
    assert (again.since, again.findings[0].since) == (yesterday, yesterday)
