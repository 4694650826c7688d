"""Rows sorted in memory and by DuckDB are in the same order."""

import logging
from collections.abc import Iterable
from itertools import pairwise
from tempfile import TemporaryFile

import numpy as np
import pyarrow as pa
import pytest

from batchland.errors import UsageError
from batchland.evaluation import sorting
from batchland.evaluation.sorting import RowRanges, range_starts, ranges_of_sorted, sorted_batches, written_down

SCHEMA = pa.schema([("name", pa.string()), ("row", pa.int64()), ("share", pa.float32()), ("at", pa.timestamp("us"))])


def batches(count: int = 20) -> list[pa.RecordBatch]:
    rng = np.random.default_rng(0)
    found = []
    for start in range(0, count * 50, 50):
        names = [f"{'Äé~_a'[number % 5]}{number}" for number in rng.permutation(50) + start]
        columns = [names, np.arange(start, start + 50), rng.random(50).astype(np.float32), rng.integers(0, 9**9, 50)]
        arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
        found.append(pa.record_batch(arrays, schema=SCHEMA))
    return found


@pytest.mark.parametrize("order", [[("name", "ascending")], [("share", "descending"), ("name", "ascending")]])
def test_memory_and_disk_give_the_same_order(order: list) -> None:
    given = batches()
    memory, disk = (
        pa.Table.from_batches(sorted_batches(SCHEMA, given, order, rows_in_memory=limit)) for limit in (10_000, 10)
    )
    assert memory.equals(disk)
    assert memory.num_rows == 1000
    if order[0] == ("name", "ascending"):
        names = memory["name"].to_pylist()
        assert names == sorted(names, key=str.encode)


@pytest.mark.parametrize("limit", [10_000, 10])
def test_an_error_of_the_rows_is_raised(limit: int) -> None:
    def failing():
        yield from batches(2)
        raise UsageError("the labels are damaged")

    with pytest.raises(UsageError, match="the labels are damaged"):
        list(sorted_batches(SCHEMA, failing(), [("row", "ascending")], rows_in_memory=limit))


def test_without_duckdb_all_is_sorted_in_memory(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sorting, "find_spec", lambda name: None)
    with caplog.at_level(logging.WARNING):
        found = pa.Table.from_batches(sorted_batches(SCHEMA, batches(), [("row", "ascending")], rows_in_memory=10))
    assert found["row"].to_pylist() == list(range(1000))
    assert caplog.messages == [
        "more than 10 rows are sorted in memory; with DuckDB (pip install 'batchland[large]') memory does not grow"
    ]


NAMED = pa.schema([("name", pa.string())])


def within(name: str, start: str | None, end: str | None) -> bool:
    return (start is None or start <= name) and (end is None or name < end)


def texts(batches: Iterable[pa.RecordBatch]) -> list[str]:
    return [name for batch in batches for name in batch["name"].to_pylist()]


def named(*names: str) -> pa.RecordBatch:
    return pa.record_batch([pa.array(names, pa.string())], schema=NAMED)


def test_ranges_keep_equal_names_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """All ranges of both sides, of sorted names and of names in any order, hold the same names as a plain filter."""
    monkeypatch.setattr(sorting, "_RUN_ROWS", 4)
    rng = np.random.default_rng(0)
    for _ in range(50):
        names, others = (rng.choice(list("abcdefghÄé~"), rng.integers(0, 14)).tolist() for _ in range(2))
        cut = [named(*sorted(names)[at : at + 3]) for at in range(0, len(names), 3)]
        starts = range_starts((batch["name"] for batch in cut), 2)
        assert starts is not None
        ends = [None, *starts.to_pylist(), None]
        with TemporaryFile() as file:
            given = [named(*others[at : at + 3]) for at in range(0, len(others), 3)]
            ranges = RowRanges(file, NAMED, given, "name", starts)
            found = [texts(ranges.rows(number)) for number in range(len(ends) - 1)]
        limits = list(pairwise(ends))
        assert found == [[name for name in others if within(name, *limit)] for limit in limits]
        assert ranges.sizes.tolist() == [len(each) for each in found]
        assert [texts(each) for each in ranges_of_sorted(cut, "name", starts)] == [
            [name for name in sorted(names) if within(name, *limit)] for limit in limits
        ]


def test_ranges_are_in_the_order_of_bytes() -> None:
    keys = [pa.array(["a", "b", "b"]), pa.array([], pa.string()), pa.array(["b", "~", "é", "\U0001f600"])]
    assert range_starts(keys, 2) == pa.array(["b", "~", "\U0001f600"])
    assert range_starts(keys, 10) == pa.array([], pa.string())
    assert range_starts([pa.array(["b", "a"])], 1) is None
    assert range_starts([pa.array(["a", "c"]), pa.array(["b"])], 1) is None


def test_what_is_written_down_is_read_back() -> None:
    given = batches(3)
    assert pa.Table.from_batches(written_down(SCHEMA, given)).equals(pa.Table.from_batches(given))
    assert list(written_down(SCHEMA, [])) == []
