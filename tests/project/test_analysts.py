"""docs/analysts.md: complete against the schemas, and every query in it runs and answers right."""

import re
import textwrap
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pytest
from evaluation_data import Row, write_label_folders, write_predictions

from batchland.evaluation.comparison import compare
from batchland.evaluation.evaluate import evaluate
from batchland.evaluation.gates import parse_gate
from batchland.evaluation.schema import (
    CLASS_CHANGES,
    CONFUSION,
    FLIPS,
    MISTAKES,
    OUTCOMES,
    PER_CLASS,
    EvaluationSummary,
    Figures,
)
from batchland.predictions.schema import KNOWN, PREDICTIONS, features_column
from batchland.report.write import write_comparison, write_report

TEXT = (Path(__file__).parents[2] / "docs" / "analysts.md").read_text()
TABLES = {
    "preds.parquet": pa.schema([*PREDICTIONS, KNOWN, features_column(1)]),
    "per_class.parquet, per_class.csv": PER_CLASS,
    "confusion.parquet": CONFUSION,
    "outcomes.parquet": OUTCOMES,
    "mistakes.parquet": MISTAKES,
    "per_class.parquet of a comparison": CLASS_CHANGES,
    "flips.parquet of a comparison": FLIPS,
}
TYPES = {
    "top_k": "list of (label, class_index, probability)",
    "log_probabilities": "list of halffloat",
    "prediction_set": "list of string",
    "features": "list of N halffloat",
}
FOLDERS = ("00.Red_Tower", "01.Green_Hill", "02.Blue_Lake")
RED, GREEN, BLUE = (0.8, 0.15, 0.05), (0.25, 0.65, 0.1), (0.375, 0.0, 0.625)
ROWS = (
    Row("00.Red_Tower/1.jpg", RED, width=300, height=300),
    Row("00.Red_Tower/2.jpg", GREEN, width=300, height=300),
    Row("01.Green_Hill/1.jpg", RED),
    Row("01.Green_Hill/2.jpg", GREEN),
    Row("01.Green_Hill/3.jpg", BLUE),
    Row("02.Blue_Lake/1.jpg", error_code="truncated"),
    Row("02.Blue_Lake/2.jpg", BLUE),
)


def sections() -> dict[str, str]:
    parts = re.split(r"^### (.+)$", TEXT, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def rows(section: str) -> list[tuple[str, ...]]:
    """Cells of the section's table, without its head."""
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    return [tuple(cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]) for line in lines]


@pytest.mark.parametrize("title", TABLES)
def test_columns_are_described_as_in_the_file(title: str) -> None:
    expected = [
        (
            f"`{field.name}`",
            TYPES.get(field.name, str(field.type)),
            field.metadata[b"description"].decode(),
        )
        for field in TABLES[title]
    ]
    assert rows(sections()[title]) == expected


def test_figures_and_summary_parts_are_described() -> None:
    section = sections()["summary.json"].partition("## Ten queries")[0]
    assert [name.strip("`") for name, _ in rows(section)] == list(Figures.model_fields)
    parts = ("account", "most_confused", "reliability", "coverage", "slices", "failures", "model", "run_id", "labels",
             "versions")  # fmt: skip
    assert set(parts) <= set(EvaluationSummary.model_fields)
    assert all(f"`{name}`" in section for name in parts)


def test_gates_in_the_guide_are_valid() -> None:
    section = TEXT.partition("## Gates")[2].partition("## Ten")[0]
    gates = re.findall(r"`([^`]+ [<>]=? [0-9.]+%?)`", section)
    assert len(gates) == 9
    assert all(parse_gate(gate) for gate in gates)


def queries() -> list[tuple[str, str]]:
    """(language, code) of each numbered query."""
    found = re.findall(r"^\d+\. .+?```(sql|python)\n(.+?)```", TEXT.partition("## Ten queries")[2], flags=re.M | re.S)
    return [(language, textwrap.dedent(code)) for language, code in found]


def run(number: int) -> Any:
    language, code = queries()[number - 1]
    if language == "sql":
        return duckdb.sql(code).fetchall()
    names: dict[str, Any] = {"pd": pd}
    exec(code, names)
    return names["result"]


@pytest.fixture
def night(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """preds.parquet, report/ and changes/ as the queries expect them."""
    monkeypatch.chdir(tmp_path)
    write_label_folders(Path("labels"), [row.image for row in ROWS])
    write_predictions(Path("preds.parquet"), FOLDERS, ROWS)
    worse = [row._replace(probabilities=BLUE) if row.image in {ROWS[0].image, ROWS[3].image} else row for row in ROWS]
    write_predictions(Path("worse.parquet"), FOLDERS, worse)
    evaluation = evaluate("preds.parquet", "labels")
    write_report(evaluation, "report")
    write_comparison(compare(evaluation, evaluate("worse.parquet", "labels")), "changes")
    return tmp_path


def test_there_are_ten_queries() -> None:
    assert [language for language, _ in queries()] == ["sql"] * 6 + ["python"] * 4


def test_what_failed_and_why(night: Path) -> None:
    assert run(1) == [("truncated", 1, "02.Blue_Lake/1.jpg")]


def test_the_least_confident_images(night: Path) -> None:
    found = run(2)
    assert len(found) == 6
    assert found[0] == ("01.Green_Hill/3.jpg", "Blue Lake", 0.625, "Red Tower", 0.25)


def test_a_threshold(night: Path) -> None:
    """0.8: one of two right; 0.65: one of two; 0.625: one of two."""
    assert run(3) == [
        (pytest.approx(0.5), 1.0, 0.5, 0),
        (pytest.approx(0.7), pytest.approx(2 / 6), 0.5, 4),
        (pytest.approx(0.9), 0.0, None, 6),
    ]


def test_pairs_in_either_direction(night: Path) -> None:
    assert run(4) == [("Green Hill", "Red Tower", 2), ("Blue Lake", "Green Hill", 1)]


def test_where_the_right_answer_is(night: Path) -> None:
    assert run(5) == [(2, 2), (3, 1)]


def test_what_broke(night: Path) -> None:
    assert run(6) == [("Green Hill", "Blue Lake", 1), ("Red Tower", "Blue Lake", 1)]


def test_labels_to_check(night: Path) -> None:
    """Three mistakes of six do not show that labels are wrong; five of 293 with a probability of 0.9998 do."""
    assert run(7).empty
    sure, unsure = (0.9998, 0.00015, 0.00005), (0.6, 0.3, 0.1)
    more = [Row(f"00.Red_Tower/more{number}.jpg", sure if number < 288 else unsure) for number in range(348)]
    more += [Row(f"01.Green_Hill/unsure{number}.jpg", unsure) for number in range(40)]
    more += [Row(f"02.Blue_Lake/more{number}.jpg", sure) for number in range(5)]
    write_label_folders(Path("labels"), [row.image for row in more])
    write_predictions(Path("preds.parquet"), FOLDERS, [*ROWS, *more])
    write_report(evaluate("preds.parquet", "labels"), "report")
    expected = {"image", "true_label", "predicted_label", "probability"}
    assert set(run(7).columns) == expected
    assert pd.read_csv("labels_to_check.csv")["image"].tolist() == run(7)["image"].tolist()
    assert set(run(7)["image"]) == {f"02.Blue_Lake/more{number}.jpg" for number in range(5)}


def test_the_confusion_matrix(night: Path) -> None:
    matrix = run(8)
    assert matrix.index.tolist() == matrix.columns.tolist() == ["Blue Lake", "Green Hill", "Red Tower"]
    assert matrix.to_numpy().tolist() == [[1, 0, 0], [1, 1, 1], [0, 1, 1]]


def test_accuracy_by_size(night: Path) -> None:
    result = run(9)
    assert [(str(size), *row) for size, row in zip(result.index, result.to_numpy().tolist(), strict=True)] == [
        ("(0.0, 0.1]", 0.5, 2),
        ("(0.1, 0.5]", 0.5, 4),
    ]


def test_which_model_it_was(night: Path) -> None:
    assert run(10) == {
        "run_id": "run-1", "images": "/photos", "device": "cpu", "model": "toy",
        "counts": {"listed": 7, "ok": 6, "failed": 1, "failed_by_code": {"truncated": 1}, "decisions": {}},
    }  # fmt: skip
