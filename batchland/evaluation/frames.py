"""Read predictions and report tables into pandas, ready for filters and Excel."""

import os
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from batchland.errors import UsageError
from batchland.predictions.reader import StoredPredictions

if TYPE_CHECKING:
    import pandas as pd


def read(path: str | os.PathLike[str]) -> "pd.DataFrame":
    """A Parquet file of batchland, or a folder of predictions, as a data frame with pandas' nullable types.

    A null is pandas.NA (NaT in times; None in dates, lists and other kinds): integers stay integers with all their
    digits, `correct` stays a boolean, and filters such as `frame[frame["correct"]]` leave out the images that failed.
    Times are UTC without a time zone, as Excel needs them.

    path: a path or a URL. Raises UsageError if it cannot be read or pandas is not installed.
    """
    try:
        import pandas as pd
    except ModuleNotFoundError:
        raise UsageError("batchland.read needs pandas; install it, or read the file with pyarrow") from None
    stored = StoredPredictions(path)
    if stored.kind is None:
        raise UsageError(f"{stored.name}: does not exist")
    if stored.kind == "file" and stored.name.lower().endswith((".csv", ".json", ".html")):
        raise UsageError(
            f"{stored.name}: is not a Parquet file; give the file of the same name that is, if there is one"
        )
    if stored.kind == "folder" and stored.manifest() is None:
        raise UsageError(f"{stored.name}: holds no finished predictions; give one of its Parquet files")
    schema = stored.schema(stored.parts()[0])
    table = pa.Table.from_batches(stored.rows(schema.names), schema)
    for number, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type) and field.type.tz:
            unit = "ns" if field.type.unit == "ns" else "us"
            table = table.set_column(number, field.name, table[field.name].cast(pa.timestamp(unit)))
    types: dict[pa.DataType, Any] = {
        pa.float32(): pd.Float32Dtype(),
        pa.float64(): pd.Float64Dtype(),
        pa.bool_(): pd.BooleanDtype(),
        pa.string(): pd.StringDtype(),
    }
    for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"):
        nullable = name.replace("u", "U").replace("int", "Int")
        types[pa.type_for_alias(name)] = pd.api.types.pandas_dtype(nullable)
    return table.to_pandas(types_mapper=types.get)
