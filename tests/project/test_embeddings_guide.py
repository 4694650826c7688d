"""docs/embeddings.md: complete against the schema, and every query in it runs and answers right."""

import re
import textwrap
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from evaluation_data import Row, write_predictions
from feature_columns import with_features

from batchland.embeddings.duplicates import DUPLICATES

TEXT = (Path(__file__).parents[2] / "docs" / "embeddings.md").read_text()
QUERIES = [
    (language, textwrap.dedent(code))
    for language, code in re.findall(r"^\d+\. .+?```(sql|python)\n(.+?)```", TEXT, flags=re.M | re.S)
]
FOLDERS = ("00.Red_Tower", "01.Green_Hill")


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """preds.parquet with features, and copies.parquet."""
    monkeypatch.chdir(tmp_path)
    names = ["00.Red_Tower/1.jpg", "00.Red_Tower/2.jpg", "01.Green_Hill/1.jpg"]
    rows = [*(Row(name, (0.75, 0.25)) for name in names), Row("01.Green_Hill/2.jpg", error_code="truncated")]
    write_predictions(Path("plain.parquet"), FOLDERS, rows)
    features = np.array([[1, 0], [0.6, 0.8], [0.8, 0.6]], np.float16)
    with_features(Path("plain.parquet"), Path("preds.parquet"), features)
    known = pa.array([0.5, 0.01, 0.9, None], pa.float32())
    pq.write_table(pq.read_table("preds.parquet").append_column("known", known), "preds.parquet")
    copies = [
        (1, "a.parquet", "1.jpg", "Red Tower", 0.75, "aa", 0.25, False),
        (1, "a.parquet", "2.jpg", "Green Hill", 0.5, "bb", 0.25, False),
        (2, "a.parquet", "3.jpg", "Red Tower", 0.75, "cc", 0.0, False),
        (2, "b.parquet", "4.jpg", "Red Tower", 0.75, "cc", 0.0, False),
    ]
    columns = [list(column) for column in zip(*copies, strict=True)]
    pq.write_table(pa.table(columns, schema=DUPLICATES), "copies.parquet")


def run(number: int) -> Any:
    language, code = QUERIES[number - 1]
    if language == "sql":
        return duckdb.sql(code).fetchall()
    names: dict[str, Any] = {"pq": pq, "np": np}
    exec(code, names)
    return names["result"]


def test_the_queries_answer(files: None) -> None:
    assert len(QUERIES) == 7
    np.testing.assert_allclose(run(1), [[1, 0], [0.6, 0.8], [0.8, 0.6]], atol=1e-3)
    assert run(2) == [
        ("01.Green_Hill/1.jpg", pytest.approx(0.8, abs=1e-3)),
        ("00.Red_Tower/2.jpg", pytest.approx(0.6, abs=1e-3)),
    ]
    assert run(3) == [(1, 2, ["Green Hill", "Red Tower"])]
    assert run(4) == [("2.jpg",), ("4.jpg",)]
    assert run(5) == [
        ("01.Green_Hill/1.jpg", pytest.approx(0.8, abs=1e-3)),
        ("00.Red_Tower/2.jpg", pytest.approx(0.6, abs=1e-3)),
    ]
    assert run(6) == [(2, "a.parquet", "3.jpg"), (2, "b.parquet", "4.jpg")]
    assert run(7) == [("Red Tower", 1, 3)]


def test_columns_are_described_as_in_the_file() -> None:
    lines = [line for line in TEXT.splitlines() if line.startswith("| `")]
    found = [tuple(cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]) for line in lines]
    assert found == [
        (f"`{field.name}`", str(field.type), field.metadata[b"description"].decode()) for field in DUPLICATES
    ]
