"""Predictions with a column of features, for tests that need chosen ones."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batchland.predictions.schema import features_column


def with_features(path: Path, out: Path, features: np.ndarray) -> Path:
    """The predictions with a column of features for the scored images."""
    table = pq.read_table(path)
    ok = np.array(table["status"].to_pylist()) == "ok"
    rows = np.zeros((len(ok), features.shape[1]), np.float16)
    rows[ok] = features
    field = features_column(features.shape[1])
    column = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), type=field.type, mask=pa.array(~ok))
    pq.write_table(table.append_column(field, column), out)
    return out
