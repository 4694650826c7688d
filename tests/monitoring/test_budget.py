"""The budget of false alarms: the documented table is the one that limits follow from."""

import re
from pathlib import Path

import pytest

from batchland.monitoring.budget import LARGEST, SMALLEST, limit_of

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| (\d+(?:\.\d+)?) \| (\d(?:\.\d+)?) \| (\d(?:\.\d+)?) \|$", re.MULTILINE)


def test_the_documented_table_is_the_one_in_use() -> None:
    rows = [tuple(map(float, row)) for row in ROW.findall((ROOT / "docs/monitoring.md").read_text())]
    assert (rows[0][0], rows[-1][0]) == (SMALLEST, LARGEST)
    assert rows == [
        (budget, limit_of(budget, 150, labelled=False), limit_of(budget, 150, labelled=True)) for budget, _, _ in rows
    ]


@pytest.mark.parametrize("labelled", [False, True])
def test_between_two_rows_the_limit_is_interpolated(labelled: bool) -> None:
    less, between, more = (limit_of(budget, 150, labelled=labelled) for budget in (1.0, 1.5, 2.0))
    assert between == pytest.approx((less + more) / 2)


def test_larger_nights_have_higher_limits_from_150_to_1000_images() -> None:
    limits = [limit_of(1.0, images, labelled=False) for images in (5, 150, 400, 1000, 5000)]
    assert limits == pytest.approx([0.87, 0.87, 0.998, 1.118, 1.118], abs=0.001)
