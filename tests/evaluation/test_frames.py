"""The tables in pandas, Excel and polars: missing values stay missing, accents stay, formulas do not run."""

from pathlib import Path

import openpyxl
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from evaluation_data import Row, write_label_folders, write_predictions

from batchland import read
from batchland.errors import UsageError
from batchland.evaluation.evaluate import evaluate
from batchland.report.write import write_report

FOLDERS = ("00.Café_Tower", "01.=1+1")
RED, BLUE = (0.75, 0.25), (0.25, 0.75)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """preds.parquet and report/: one image right, one wrong, one failed."""
    monkeypatch.chdir(tmp_path)
    rows = [
        Row("00.Café_Tower/1.jpg", RED),
        Row("00.Café_Tower/2.jpg", BLUE),
        Row("01.=1+1/1.jpg", error_code="truncated"),
    ]
    write_predictions(Path("preds.parquet"), FOLDERS, rows)
    write_label_folders(Path("labels"), [row.image for row in rows])
    write_report(evaluate("preds.parquet", "labels"), "report")
    return tmp_path


def test_missing_values_stay_missing_and_types_stay(folder: Path) -> None:
    outcomes = read("report/outcomes.parquet")
    assert outcomes["correct"].tolist() == [True, False, pd.NA]
    assert outcomes[outcomes["correct"]]["image"].tolist() == ["00.Café_Tower/1.jpg"]
    assert outcomes[~outcomes["correct"]]["image"].tolist() == ["00.Café_Tower/2.jpg"]
    names = ["image", "correct", "predicted_index", "probability", "file_size"]
    assert outcomes[names].dtypes.map(str).tolist() == ["string", "boolean", "Int32", "Float32", "Int64"]
    assert outcomes["predicted_index"].tolist() == [0, 1, pd.NA]


def test_predictions_in_excel(folder: Path) -> None:
    predictions = read(folder / "preds.parquet")
    assert predictions["modified_at"].dtype == "datetime64[us]"
    predictions.to_excel("preds.xlsx", index=False)
    rows = list(openpyxl.load_workbook("preds.xlsx").active.values)
    assert rows[0] == tuple(predictions.columns)
    assert [row[0] for row in rows[1:]] == predictions["image"].tolist()
    assert [row[5] for row in rows[1:]] == [0, 1, None]


def test_integers_keep_all_digits_beside_nulls(tmp_path: Path) -> None:
    """2**64 - 1 as a float64 is 2**64."""
    kinds = {each: pa.type_for_alias(each) for each in ("int8", "int16", "int32", "int64")}
    kinds |= {f"u{each}": pa.type_for_alias(f"u{each}") for each in kinds}
    largest = {name: 2 ** (kind.bit_width - name.startswith("int")) - 1 for name, kind in kinds.items()}
    pq.write_table(
        pa.table({name: pa.array([largest[name], None], kinds[name]) for name in kinds}), tmp_path / "t.parquet"
    )
    frame = read(tmp_path / "t.parquet")
    assert {name: frame[name].tolist() for name in kinds} == {name: [largest[name], pd.NA] for name in kinds}
    assert [str(kind).lower() for kind in frame.dtypes] == list(kinds)


def test_times_with_a_zone_keep_their_nanoseconds(tmp_path: Path) -> None:
    taken = pa.array([1_700_000_000_123_456_789, None], pa.timestamp("ns", "Europe/Berlin"))
    pq.write_table(pa.table({"taken": taken}), tmp_path / "t.parquet")
    assert read(tmp_path / "t.parquet")["taken"].tolist() == [pd.Timestamp("2023-11-14T22:13:20.123456789"), pd.NaT]


def test_hashes_keep_all_digits_in_excel_as_text(folder: Path) -> None:
    """The example of docs/analysts.md."""
    hashes = [10202398300845040112, 2**64 - 1]
    table = pq.read_table("preds.parquet")
    pq.write_table(table.append_column("difference_hash", pa.array([*hashes, None], pa.uint64())), "h.parquet")
    predictions = read("h.parquet")
    assert predictions["difference_hash"].tolist() == [*hashes, pd.NA]
    text = predictions["difference_hash"].astype("string")
    predictions.assign(difference_hash=text).to_excel("h.xlsx", index=False)
    assert pd.read_excel("h.xlsx", dtype=str)["difference_hash"].tolist()[:2] == [str(each) for each in hashes]


def test_a_csv_opens_in_excel_with_accents_and_without_formulas(folder: Path) -> None:
    data = Path("report/per_class.csv").read_bytes()
    assert data.startswith(b"\xef\xbb\xbf")
    table = pd.read_csv("report/per_class.csv")
    assert table["label"].tolist() == ["Café Tower", "'=1+1"]
    assert table["most_confused_with"].tolist()[0] == "'=1+1"
    assert read("report/per_class.parquet")["label"].tolist() == ["Café Tower", "=1+1"]


def test_polars(folder: Path) -> None:
    outcomes = pl.read_parquet("report/outcomes.parquet")
    assert outcomes["correct"].to_list() == [True, False, None]
    assert outcomes.filter(~pl.col("correct"))["image"].to_list() == ["00.Café_Tower/2.jpg"]
    assert pl.read_csv("report/per_class.csv")["label"].to_list() == ["Café Tower", "'=1+1"]


def test_unreadable_files_are_errors(folder: Path) -> None:
    for path, message in (
        ("gone.parquet", "gone.parquet: does not exist"),
        ("labels", "labels: holds no finished predictions; give one of its Parquet files"),
        ("report/per_class.csv", "report/per_class.csv: is not a Parquet file; give the file of the same name that is"),
    ):
        with pytest.raises(UsageError, match=message):
            read(path)


def test_missing_pandas_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(UsageError, match=r"batchland\.read needs pandas"):
        read("preds.parquet")
