"""The files of a report."""

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv
from pydantic import BaseModel

from batchland.evaluation.saved import write_folder


class Summary(BaseModel):
    images: int = 1


def test_no_cell_of_a_csv_file_is_a_formula(tmp_path):
    labels = ['=HYPERLINK("http://x")', "+1", "-2+3", "@SUM(A1)", "\tx", "Tower", "a=b", None]
    table = pa.table({"label": labels, "change": [-1.0] * len(labels)})
    write_folder(tmp_path, {"per_class": table}, Summary(), "page")
    read = csv.read_csv(tmp_path / "per_class.csv", convert_options=csv.ConvertOptions(strings_can_be_null=True))
    assert read["label"].to_pylist() == [
        '\'=HYPERLINK("http://x")', "'+1", "'-2+3", "'@SUM(A1)", "'\tx", "Tower", "a=b", None,
    ]  # fmt: skip
    assert read["change"].to_pylist() == [-1.0] * len(labels)
    assert pq.read_table(tmp_path / "per_class.parquet")["label"].to_pylist() == labels
