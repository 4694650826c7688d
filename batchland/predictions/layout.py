"""How an output is laid out, wherever it lies: names, Parquet files, and what may be replaced. Knows no place."""

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
"""Mark among the parts that all of them are there, and the output is being replaced."""
RUN_NOTE: Final = "run.json"
"""Among the parts: whose they are."""
_log = logging.getLogger("batchland")

AnyPath = TypeVar("AnyPath", bound=PurePath)


def manifest_path(out: AnyPath) -> AnyPath:
    """Where the manifest of an output is: inside a folder, beside a file."""
    return out.with_suffix(".manifest.json") if is_file_output(out) else out / "_manifest.json"


def is_file_output(out: PurePath) -> bool:
    """`--out preds.parquet` is one file; any other name is a folder of parts."""
    return out.suffix == ".parquet"


def part_name(index: int) -> str:
    """Of a part, and of the file of a folder that comes of it."""
    return f"part-{index:06d}.parquet"


def read_table(source: Path | pa.NativeFile) -> pa.Table:
    """A whole Parquet file. Raises OSError or pa.ArrowException."""
    with pq.ParquetFile(source) as file:  # pq.read_table would import pyarrow.dataset, and that pandas
        return file.read()


def write_table(table: pa.Table, file: Any, metadata: dict[bytes, bytes], row_group_size: int | None = None) -> None:
    """One Parquet file, of one row group if no size is given: the same table gives the same bytes."""
    table = table.combine_chunks().replace_schema_metadata(metadata)
    pq.write_table(table, file, compression="zstd", row_group_size=row_group_size or max(1, table.num_rows))


def count_rows(part: Path | pa.NativeFile) -> int:
    """Of a part; a broken one has none."""
    with suppress(OSError, pa.ArrowException):
        return int(pq.read_metadata(part).num_rows)
    return 0


def is_predictions(file: Path | pa.NativeFile) -> bool:
    """Whether it is a Parquet file of batchland's, and whole."""
    with suppress(OSError, pa.ArrowException):
        return METADATA_KEY in (pq.read_metadata(file).metadata or {})
    return False


def differences(one: dict[str, Any], other: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Names of the values that differ in two fingerprints, as `options.top_k`."""
    for name in sorted({*one, *other}):
        first, second = one.get(name), other.get(name)
        if isinstance(first, dict) and isinstance(second, dict):
            yield from differences(first, second, f"{prefix}{name}.")
        elif first != second:
            yield prefix + name


def warn_discarded(out: str, known: str, fingerprint: str, images: int) -> None:
    """Say what is lost where a run of `fingerprint` begins, and one of `known` had finished so many images."""
    if images:
        names = ", ".join(differences(json.loads(known), json.loads(fingerprint)))
        _log.warning(
            "%s: begins anew and discards %d finished images of an interrupted run, which differs in %s",
            out,
            images,
            names,
        )


def check_replaceable(
    out: PurePath | str,
    found: Literal["file", "folder"] | None,
    *,
    file_output: bool,
    ours: Callable[[], bool],
    replace: bool,
) -> None:
    """Raise UsageError unless what is found at `out` may be replaced.

    ours: whether it is empty, or batchland wrote it. replace: the user, or a run killed in the middle, wants it.
    """
    if found and not replace:
        raise UsageError(f"{out}: exists; give --overwrite to replace it, or another --out")
    if found and (found == "file") != file_output:
        raise UsageError(f"{out}: is a {found}; an output named *.parquet is a file, any other is a folder")
    if found and not ours():
        raise UsageError(f"{out}: is a {found} that batchland did not write; give another --out")
