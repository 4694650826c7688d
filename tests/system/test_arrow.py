"""`keep_pandas_out` stops pyarrow from importing pandas."""

import subprocess
import sys

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
