"""Text helpers: counts, lists that are cut, aligned tables."""

import pytest

from batchland.system.text import aligned, count, counted, ends, files, first_few, ignored_files, images


def test_counts_agree_with_their_nouns():
    assert [counted(number, "night") for number in (0, 1, 12345)] == ["0 nights", "1 night", "12,345 nights"]
    assert [counted(number, "class", "classes") for number in (1, 2)] == ["1 class", "2 classes"]
    assert (images(1), files(3), count(1234567)) == ("1 image", "3 files", "1,234,567")


def test_long_lists_are_cut_and_the_rest_is_counted():
    assert first_few([]) == ""
    assert first_few(("a", "b", "c")) == "a, b, c"
    assert first_few({"a": 1, "b": 2}, 1) == "a and 1 more"
    assert first_few([str(number) for number in range(2000)], 2) == "0, 1 and 1,998 more"
    assert first_few(["hen", "goldfish, Carassius auratus", "cock"], 2) == "hen; goldfish, Carassius auratus and 1 more"


def test_columns_are_as_wide_as_their_widest_cell():
    rows = [("class", "images", ""), ("Tower", "12", "x"), ("Hill", "3,456", "")]
    assert aligned(rows, "<><") == ["class  images", "Tower      12  x", "Hill    3,456"]
    assert aligned([("\u5bcc\u58eb\u5c71", "1"), ("cafe\u0301", "12")], "<>") == [
        "\u5bcc\u58eb\u5c71   1",
        "cafe\u0301    12",
    ]
    assert aligned([], "<>") == []


def test_ignored_files_are_named_by_kind():
    assert ignored_files({}) == ""
    assert ignored_files({".zip": 3}) == ", 3 ignored (.zip)"
    assert ignored_files({".a\x1b": 1000, "hidden": 1}) == ", 1,001 ignored (.a[U+001B] 1,000, hidden 1)"


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (0.79, 0.833, "79.0 to 83.3%"),
        (0.998, 0.99994, "99.8 to >99.9%"),
        (0.0004, 0.012, "<0.1 to 1.2%"),
        (0.0, 1.0, "0.0 to 100.0%"),
    ],
)
def test_ends_of_intervals_are_0_and_100_percent_only_exactly(low: float, high: float, text: str) -> None:
    assert ends(low, high) == text
