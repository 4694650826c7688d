"""The layout of an output, local or remote: file names, Parquet files, and which outputs may be replaced."""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path, PurePath
from typing import Any, Final, Literal, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from batchland.errors import UsageError
from batchland.predictions.schema import METADATA_KEY

PUBLISHING: Final = "publishing"
"""A file among the parts: all parts are finished, and the output is being replaced."""
RUN_NOTE: Final = "run.json"
"""A file among the parts: the fingerprint of the run that they belong to."""
MANIFEST: Final = "_manifest.json"
"""The manifest of a folder of parts."""
_log = logging.getLogger("batchland")

AnyPath = TypeVar("AnyPath", bound=PurePath)


def manifest_path(out: AnyPath) -> AnyPath:
    """The path of an output's manifest: inside a folder, beside a file."""
    return out.with_suffix(".manifest.json") if is_file_output(out) else out / MANIFEST


def is_file_output(out: PurePath) -> bool:
    """Whether the output is one file (`preds.parquet`); any other name is a folder of parts."""
    return out.suffix == ".parquet"


def check_no_predictions(path: Path) -> None:
    """Raise UsageError if `path` is predictions, so that nothing else may be written there."""
    if manifest_path(path).exists():
        raise UsageError(f"{path}: has a manifest, so it holds predictions; give another name")


def part_name(index: int) -> str:
    """The name of a part, and of its file in a folder."""
    return f"part-{index:06d}.parquet"


def read_table(source: Path | pa.NativeFile) -> pa.Table:
    """A whole Parquet file. Raises OSError or pa.ArrowException."""
    with pq.ParquetFile(source) as file:  # pq.read_table would import pyarrow.dataset, which imports pandas
        return file.read()


def parquet_options(schema: pa.Schema) -> dict[str, Any]:
    """How predictions are written. Features hardly repeat: a dictionary of them takes twice the time and more space."""
    coded: list[str] | bool = True
    if "features" in schema.names:
        coded = [leaf for field in schema if field.name != "features" for leaf in _leaves(field.name, field.type)]
    return {"compression": "zstd", "use_dictionary": coded}


def _leaves(path: str, kind: pa.DataType) -> list[str]:
    """Paths of a column's values in Parquet."""
    if pa.types.is_struct(kind):
        return [leaf for child in kind for leaf in _leaves(f"{path}.{child.name}", child.type)]
    return _leaves(f"{path}.list.element", kind.value_type) if pa.types.is_list(kind) else [path]


def write_table(table: pa.Table, file: Any, metadata: dict[bytes, bytes], row_group_size: int | None = None) -> None:
    """One Parquet file, of one row group if no size is given: the same table gives the same bytes."""
    table = table.combine_chunks().replace_schema_metadata(metadata)
    rows = row_group_size or max(1, table.num_rows)
    pq.write_table(table, file, row_group_size=rows, **parquet_options(table.schema))


def count_rows(part: Path | pa.NativeFile) -> int:
    """Rows of a part; 0 if it is damaged."""
    with suppress(OSError, pa.ArrowException):
        return int(pq.read_metadata(part).num_rows)
    return 0


def is_predictions(file: Path | pa.NativeFile) -> bool:
    """Whether it is an undamaged predictions file of batchland."""
    with suppress(OSError, pa.ArrowException):
        return METADATA_KEY in (pq.read_metadata(file).metadata or {})
    return False


def differences(one: dict[str, Any], other: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Names of the values that differ between two fingerprints: `top_k` of the options, `versions.numpy`."""
    for name in sorted({*one, *other}):
        first, second = one.get(name), other.get(name)
        if isinstance(first, dict) and isinstance(second, dict):
            yield from differences(first, second, "" if name == "options" else f"{prefix}{name}.")
        elif first != second:
            yield prefix + name


def warn_discarded(out: str, known: str, fingerprint: str, images: int) -> None:
    """Warn that `images` finished images of an interrupted run with another fingerprint are discarded."""
    if images:
        names = ", ".join(differences(json.loads(known), json.loads(fingerprint)))
        text = "%s: discards %d finished images of an interrupted run, which differs in %s"
        _log.warning(text, out, images, names)


def check_replaceable(
    out: PurePath | str,
    found: Literal["file", "folder"] | None,
    *,
    file_output: bool,
    ours: Callable[[], bool],
    replace: bool,
) -> None:
    """Raise UsageError unless what is found at `out` may be replaced.

    ours: whether it is empty or was written by batchland. replace: the user allows it, or it completes a killed run.
    """
    if found and not replace:
        raise UsageError(f"{out}: exists already", advice="overwrite")
    if found and (found == "file") != file_output:
        raise UsageError(f"{out}: is a {found}; an output named *.parquet is a file, any other is a folder")
    if found and not ours():
        raise UsageError(f"{out}: is a {found} that batchland did not write; give another output")
