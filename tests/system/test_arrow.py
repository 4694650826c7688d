"""pyarrow does not import pandas, and reads Parquet in constant memory."""

import subprocess
import sys
from time import process_time

import pyarrow as pa
import pyarrow.parquet as pq

from batchland.system.arrow import parquet_batches, plain_columns

CODE = """
import sys
import numpy as np
import pyarrow as pa
from batchland.system.arrow import keep_pandas_out
keep_pandas_out()
table = pa.table({"a": pa.array([1, None]), "b": pa.array(np.array([1.5, np.nan]))})
print("pandas" in sys.modules, table.to_pydict()["a"])
"""


def test_pandas_is_kept_out():
    result = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert result.stdout == "False [1, None]\n"


def test_an_imported_pandas_stays():
    code = (
        "import pandas, pyarrow as pa\n"
        "from batchland.system.arrow import keep_pandas_out\n"
        "keep_pandas_out()\n"
        "print(pa.array(pandas.Series([float('nan')])).null_count)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "1\n"


def test_thousands_of_columns_are_not_compared_with_one_another():
    """10,000 took 17 s of a core."""
    schema = pa.schema([(f"c{number}", pa.int64()) for number in range(10_000)])
    before = process_time()
    assert plain_columns(schema) == schema
    assert process_time() - before < 5


def test_blocks_are_rows_in_order_of_one_row_group_each(tmp_path):
    table = pa.table({"a": range(10), "b": range(10)})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=4)
    with pq.ParquetFile(tmp_path / "t.parquet") as file:
        found = [batch.to_pydict() for batch in parquet_batches(file, ["a"], rows=3)]
        assert pa.Table.from_batches(parquet_batches(file)) == table
    assert found == [{"a": [0, 1, 2]}, {"a": [3]}, {"a": [4, 5, 6]}, {"a": [7]}, {"a": [8, 9]}]
