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
        (budget, limit_of(budget, labelled=False), limit_of(budget, labelled=True)) for budget, _, _ in rows
    ]


@pytest.mark.parametrize("labelled", [False, True])
def test_between_two_rows_the_limit_is_interpolated(labelled: bool) -> None:
    less, more = limit_of(1.0, labelled=labelled), limit_of(2.0, labelled=labelled)
    assert limit_of(1.5, labelled=labelled) == pytest.approx((less + more) / 2)
