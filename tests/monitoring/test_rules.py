"""Exact rules: numbers, blank pictures, copies, failures."""

from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pytest
from observed import observed

from batchland.monitoring.observations import MEASURES, NOTHING, Observations
from batchland.monitoring.rules import Night, check_rules

TONIGHT = date(2026, 11, 29)


def night(images: Observations, failed: int = 0, days_ago: int = 0, listed: int | None = None) -> Night:
    listed = len(images) + failed if listed is None else listed
    return Night(TONIGHT - timedelta(days=days_ago), images, listed, failed)


def earlier(count: int, images: int = 40) -> list[Night]:
    return [night(observed(np.random.default_rng(ago), images), days_ago=ago) for ago in range(count, 0, -1)]


def found(tonight: Night, before: list[Night]) -> list[tuple[str, str]]:
    return [(finding.kind, finding.message) for finding, _ in check_rules(tonight, before)]


def test_usual_night_breaks_no_rule() -> None:
    assert found(night(observed(np.random.default_rng(0), 40)), earlier(10)) == []


@pytest.mark.parametrize(
    ("nights", "images", "message"),
    [
        (0, 1, None),
        (1, 5, None),
        (1, 3, "3 images, usually 40"),
        (5, 17, None),
        (5, 10, "10 images, usually 40"),
        (5, 120, "120 images, usually 40"),
        (28, 30, None),
        (28, 9, "9 images, usually 40"),
        (28, 85, "85 images, usually 40"),
    ],
)
def test_number_of_images(nights: int, images: int, message: str | None) -> None:
    tonight = night(observed(np.random.default_rng(0), images))
    assert found(tonight, earlier(nights)) == ([("volume", message)] if message else [])


def test_numbers_before_an_accepted_change_do_not_count() -> None:
    """Copies of those nights still do."""
    before, tonight = earlier(28), night(observed(np.random.default_rng(0), 120))
    changed = [*before[1:], night(observed(np.random.default_rng(99), 110), days_ago=1)]

    def kinds(start: date | None, night: Night = tonight) -> list[str]:
        return [finding.kind for finding, _ in check_rules(night, changed, start=start)]

    assert (kinds(None), kinds(changed[-1].date)) == (["volume"], [])
    again = night(replace(tonight.observed, hashes=np.resize(changed[-3].observed.hashes, 120)), listed=tonight.listed)
    assert "earlier_copies" in kinds(changed[-1].date, again)


def test_the_limit_grows_with_the_variation_of_the_numbers() -> None:
    before = [night(observed(np.random.default_rng(ago), 10 + 37 * ago % 90), days_ago=ago) for ago in range(30, 0, -1)]
    assert found(night(observed(np.random.default_rng(0), 150)), before) == []


def test_blank_pictures_and_the_rows_that_show_them() -> None:
    images = observed(np.random.default_rng(0), 40)
    images.values[5:11, MEASURES.index("contrast")] = 0.001
    ((finding, rows),) = check_rules(night(images), [])
    assert finding.message == "6 of 40 images have one colour and nothing in it (usually none)"
    assert (finding.kind, list(rows)) == ("blank", [5, 6, 7, 8, 9, 10])
    assert finding.strength == pytest.approx(1.5)


def test_a_usual_share_breaks_no_rule() -> None:
    images = observed(np.random.default_rng(0), 40)
    images.values[:6, MEASURES.index("contrast")] = 0.001
    usual = [night(images, days_ago=ago) for ago in (3, 2, 1)]
    blank = [kind for kind, _ in found(night(images), usual)]
    assert "blank" not in blank


@pytest.mark.parametrize(("count", "blank"), [(1, 1), (2, 2), (4, 4), (4, 3), (2, 1)])
def test_a_share_of_few_images_is_all_of_them(count: int, blank: int) -> None:
    images = observed(np.random.default_rng(0), count)
    images.values[:blank, MEASURES.index("contrast")] = 0
    message = f"{blank} of {count} images have one colour and nothing in it (usually none)"
    assert found(night(images), []) == ([("blank", message)] if blank == count else [])


def test_copies_of_a_small_night_are_found() -> None:
    before = [night(observed(np.random.default_rng(ago), 2), days_ago=ago) for ago in (3, 2, 1)]
    copies = night(observed(np.random.default_rng(1), 2))
    assert [kind for kind, _ in found(copies, before)] == ["earlier_copies"]
    assert found(night(observed(np.random.default_rng(0), 2)), before) == []


def test_copies_within_the_night_differ_in_two_bits_at_most() -> None:
    images = observed(np.random.default_rng(0), 40)
    images.hashes[10:20] = images.hashes[0] ^ np.uint64(0b11)
    images.hashes[20:30] = images.hashes[1] ^ np.uint64(0b111)
    message = "19 of 40 images are copies of others of this night (usually none)"
    assert found(night(images), []) == [("copies", message)]  # 10 of the first, 9 of each other


def test_copies_of_an_earlier_night() -> None:
    before = earlier(10)
    images = observed(np.random.default_rng(0), 40)
    images.hashes[:20] = before[-3].observed.hashes[:20] ^ np.uint64(1 << 40)
    message = f"20 of 40 images are copies of earlier ones, most of {before[-3].date} (usually none)"
    assert found(night(images), before) == [("earlier_copies", message)]
    bad = night(observed(np.random.default_rng(1), 40), days_ago=1)
    images.hashes[:] = bad.observed.hashes
    copied = check_rules(night(images), before, delivered=[*before, bad])
    assert [finding.message for finding, _ in copied] == [
        f"40 of 40 images are copies of earlier ones, most of {bad.date} (usually none)"
    ]
    images.hashes[:] = before[0].observed.hashes  # ten nights ago: too long
    assert found(night(images), before) == []


def test_failed_images() -> None:
    images = observed(np.random.default_rng(0), 40)
    message = "10 of 50 images could not be read or scored (usually none)"
    assert found(night(images, failed=10), earlier(3)) == [("failed", message)]
    assert found(night(NOTHING, failed=40), earlier(3)) == [
        ("failed", "40 of 40 images could not be read or scored (usually none)")
    ]


def knowing(images: int, strangers: int, seed: int = 0) -> Observations:
    """Images of which the first ones are strangers."""
    known = np.where(np.arange(images) < strangers, 0.01, 0.5)
    return replace(observed(np.random.default_rng(seed), images), known=known)


def test_more_strangers_than_usual() -> None:
    message = "{} of 100 images are unlike the model's known photos (usually at most {})"
    for strangers, before, expected in (
        (14, [], []),
        (16, [], [("strangers", message.format(16, "5.0%"))]),
        (30, [12, 11], []),
        (40, [12, 11], [("strangers", message.format(40, "12.0%"))]),
    ):
        nights = [night(knowing(100, count, ago), days_ago=ago) for ago, count in enumerate(before, 1)]
        assert found(night(knowing(100, strangers)), nights) == expected


def test_strangers_in_a_small_night_are_chance() -> None:
    assert found(night(knowing(30, 6)), []) == []
    assert found(night(knowing(30, 9)), []) == [
        ("strangers", "9 of 30 images are unlike the model's known photos (usually at most 5.0%)")
    ]


def test_the_strangers_are_the_pictures_of_the_finding() -> None:
    ((_, rows),) = check_rules(night(knowing(100, 20)), [])
    assert sorted(rows) == list(range(20))
