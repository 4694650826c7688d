"""Images named by a list: one path or URL a line, or a column of a CSV or Parquet file.

The list is streamed, never held in memory, so a path that occurs twice in it has two rows.
"""

import csv
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any, Final, cast
from urllib.parse import unquote

from batchland.errors import BatchlandError, UsageError
from batchland.images.sources.file_patterns import check_file, display_location, open_file
from batchland.images.sources.list_content import COLUMNS, problem_with, problem_with_lines
from batchland.images.sources.refs import Ignored, ImageRef
from batchland.system.names import display_name, display_path, file_name
from batchland.system.urls import bare_url, is_url, local_path, split_url

STANDARD_INPUT: Final = "-"
_SCHEMES: Final = frozenset(("file", "s3", "gs", "gcs", "abfs", "abfss", "hdfs", "viewfs", "http", "https"))
WEB_SCHEMES: Final = ("http", "https")
_INVENTORY_MANIFEST: Final = "manifest.json"
_CHUNK_BYTES: Final = 64 * 1024
_LONGEST_LINE: Final = 1024**2
_LONGEST_PATH: Final = 4096
"""Bytes, as on Linux."""
_TRIED: Final = 100
"""Entries at the beginning of a list, one of which at least must be a path or a URL that can be used."""


class ImageList:
    """The images that `listing` names, in its order, as a Source. Relative paths are below `base`.

    Image names are those of the list, without credentials in URLs.
    """

    is_sorted = False

    def __init__(self, listing: str, base: str | None, *, all_files: bool = False, private_hosts: bool = False) -> None:
        self._all_files = all_files
        self._private_hosts = private_hosts
        self._listing = listing
        self._base = os.curdir if base is None else local_path(base) or base
        self.name = display_location(self._base) if is_url(self._base) else display_path(Path(self._base).resolve())
        self.countable = listing != STANDARD_INPUT and os.path.isfile(listing)  # noqa: PTH113 - a pipe is read once

    def images(self, ignored: Ignored) -> Iterator[ImageRef]:
        """The images in list order. Counts blank lines in `ignored`. Raises UsageError if it is not a list."""
        if not is_url(self._base) and not os.path.isdir(self._base):  # noqa: PTH112
            raise UsageError(f"{self.name}: is not a folder; the paths of a list are below a folder, or absolute")
        if is_url(self._listing):
            check_file(self._listing)
        return self._images(ignored)

    def _images(self, ignored: Ignored) -> Iterator[ImageRef]:
        name = display_location(self._listing)
        if self._listing.partition("?")[0].rpartition("/")[2] == _INVENTORY_MANIFEST:
            from batchland.images.sources.inventory import Inventory  # imports pyarrow, which other lists do not need

            with _opened(self._listing) as file:
                inventory = Inventory.of(self._listing, file.read())
            if inventory is not None:
                prefix = self._prefix(inventory.bucket)
                yield from map(self._ref, inventory.images(prefix, ignored, all_files=self._all_files))
                return
        with _opened(self._listing) as file:
            for entry in _usable(_reader(self._listing)(file, name), name):
                if entry:
                    yield self._ref(entry)
                else:
                    ignored.counts["blank line"] += 1

    def _prefix(self, bucket: str) -> str:
        """What the keys of an inventory's images begin with. Raises UsageError if the folder is not in its bucket."""
        parts = split_url(self._base) if is_url(self._base) else None
        if parts is None or parts.netloc.rpartition("@")[2] != bucket:
            raise UsageError(
                f"{display_location(self._listing)}: is an inventory of the bucket {bucket}; give a URL of that bucket "
                f"as the folder, such as s3://{bucket}"
            )
        prefix = unquote(parts.path).strip("/")
        return f"{prefix}/" if prefix else ""

    def inputs(self) -> Iterable[str]:
        """The folder, and the list unless it is standard input."""
        return [self._base] if self._listing == STANDARD_INPUT else [self._base, self._listing]

    def key(self, ref: ImageRef) -> bytes:
        """Nothing. Raises UsageError for a URL with parts that are left out of its name."""
        if ref.error is None and self.planned(ref.name, b"") != ref:
            raise UsageError(
                f"{ref.name}: its URL holds a password or a signature, which no plan keeps; score the list"
            )
        return b""

    def planned(self, name: str, key: bytes) -> ImageRef:  # noqa: ARG002
        """See `Source.planned`."""
        return self._ref(file_name(name))

    def retry_refs(self, name: str) -> Iterator[ImageRef]:
        """The image of that name; the list is not read."""
        return iter([self._ref(file_name(name))])

    def _ref(self, entry: bytes) -> ImageRef:
        text = entry.decode(errors="replace")
        try:
            if is_url(text):
                return self._web_ref(text) if is_web(text) else _ref_of_url(text, display_name(entry))
            if is_web(self._base):
                from batchland.images.sources.web import joined_url

                return self._web_ref(joined_url(self._base, text))
        except UsageError as error:
            return ImageRef(bare_url(text), b"", ("vanished", str(error)))
        if is_url(self._base) and not text.startswith("/"):
            ref: ImageRef = _remote_files(self._base).ref(text.removeprefix("./"), name=display_name(entry))
            return ref
        return ImageRef(display_name(entry), os.path.join(os.fsencode(self._base), entry))  # noqa: PTH118 - bytes

    def _web_ref(self, url: str) -> ImageRef:
        from batchland.images.sources.web import WebImages  # imports urllib3, which other lists do not need

        return WebImages(self._private_hosts).ref(url)


def is_web(location: str) -> bool:
    """Whether it is an http or https URL."""
    return is_url(location) and location.partition(":")[0].lower() in WEB_SCHEMES


def _ref_of_url(url: str, name: str) -> ImageRef:
    if (path := local_path(url)) is not None:
        return ImageRef(name, os.fsencode(path))
    parts = split_url(url)
    files = _remote_files(f"{parts.scheme}://{parts.netloc}/{'?' if parts.query else ''}{parts.query}")
    ref: ImageRef = files.ref(unquote(parts.path).lstrip("/"), name=bare_url(url))
    return ref


@lru_cache
def _remote_files(url: str) -> Any:
    from batchland.images.sources.remote import RemoteFiles  # imports pyarrow, which local files do not need

    return RemoteFiles(url, listed=False)


def _usable(entries: Iterator[bytes], list_name: str) -> Iterator[bytes]:
    """Pass the entries on. Raises UsageError if none of the first ones is usable: then it is not a list of images."""
    first: list[bytes] = []
    problem = None
    for entry in islice(entries, _TRIED):
        first.append(entry)
        reason = _problem_with_entry(entry) if entry else "blank"
        if reason is None:
            problem = None
            break
        if entry:
            problem = problem or f"{list_name}, entry {len(first)}: {reason}"
    if problem:
        raise UsageError(problem)
    yield from chain(first, entries)


def _problem_with_entry(entry: bytes) -> str | None:
    text = entry.decode(errors="replace")
    if is_url(text):
        scheme = text.partition(":")[0].lower()
        if scheme not in _SCHEMES:
            return f"{scheme} cannot be read; give paths, or URLs of http, s3, gs, abfs, hdfs or file"
    if len(entry) > _LONGEST_PATH:
        return f"a path of {len(entry)} bytes; give one path per line, or a .csv or .parquet file"
    return None


def _opened(listing: str) -> AbstractContextManager[IO[bytes]]:
    if listing == STANDARD_INPUT:
        return nullcontext(sys.stdin.buffer)
    if is_url(listing):
        from batchland.system.filesystems import open_location

        location = open_location(listing)
        return io.BufferedReader(cast("io.RawIOBase", location.filesystem.open_input_file(location.path)))
    return open_file(listing)


def _reader(listing: str) -> Callable[[IO[bytes], str], Iterator[bytes]]:
    suffix = os.path.splitext(split_url(listing).path)[1].lower()  # noqa: PTH122
    readers = {".csv": _csv_column, ".tsv": _csv_column, ".parquet": _parquet_column, ".orc": _orc_column}
    return readers.get(suffix, _lines)


def _lines(file: IO[bytes], list_name: str) -> Iterator[bytes]:
    """Entries separated by line ends, or by zero bytes if there are any (`find -print0`)."""
    read = cast("io.BufferedReader", file).read1  # returns what a pipe holds, without waiting for more
    chunk = read(_CHUNK_BYTES)
    _check_content(problem_with(chunk) or problem_with_lines(chunk), list_name)
    chunk = chunk.removeprefix(b"\xef\xbb\xbf")
    separator, ending = (b"\0", b"") if b"\0" in chunk else (b"\n", b"\r")
    rest = b""
    while chunk:
        *entries, rest = (rest + chunk).split(separator)
        yield from (entry.removesuffix(ending) for entry in entries)
        if len(rest) > _LONGEST_LINE:
            _check_content("has a line of more than a megabyte", list_name)
        chunk = read(_CHUNK_BYTES)
    if rest:
        yield rest.removesuffix(ending)


def _csv_column(file: IO[bytes], list_name: str) -> Iterator[bytes]:
    """The column of a CSV file, separated by commas, semicolons or tabs."""
    _check_content(problem_with(cast("io.BufferedReader", file).peek(_CHUNK_BYTES)), list_name)
    with io.TextIOWrapper(file, "utf-8-sig", errors="surrogateescape", newline="") as text:
        header = text.readline()
        rows = csv.reader(chain([header], text), delimiter=max(",;\t", key=header.count))
        try:
            names = next(rows, [])
            column = names.index(_column(names, list_name))
            for row in rows:
                yield os.fsencode(row[column]) if len(row) > column else b""
        except csv.Error as error:
            raise UsageError(f"{list_name}, line {rows.line_num}: cannot be read as CSV ({error})") from error


def _parquet_column(file: IO[bytes], list_name: str) -> Iterator[bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as parquet:
            schema = parquet.schema_arrow
            column = _column(schema.names, list_name)
            kind = schema.field(column).type
            text = kind.value_type if pa.types.is_dictionary(kind) else kind
            if text not in (pa.string(), pa.large_string(), pa.string_view()):
                raise UsageError(f"{list_name}: column {column} holds {kind}, not paths")
            for batch in parquet.iter_batches(columns=[column]):
                yield from ((path or "").encode() for path in batch.column(0).to_pylist())
    except BatchlandError:
        raise
    except Exception as error:  # Arrow raises almost anything on damaged files
        raise UsageError(f"{list_name}: cannot be read as Parquet ({str(error).partition(chr(10))[0]})") from error


def _orc_column(file: IO[bytes], list_name: str) -> Iterator[bytes]:
    from pyarrow.orc import ORCFile

    try:
        orc = ORCFile(file)
        column = _column(orc.schema.names, list_name)
        for stripe in range(orc.nstripes):
            paths = orc.read_stripe(stripe, columns=[column]).column(0).to_pylist()
            yield from (os.fsencode(path or "") for path in paths)
    except BatchlandError:
        raise
    except Exception as error:  # Arrow raises almost anything on damaged files
        raise UsageError(f"{list_name}: cannot be read as ORC ({str(error).partition(chr(10))[0]})") from error


def _check_content(problem: str | None, list_name: str) -> None:
    if problem:
        raise UsageError(f"{list_name}: {problem}; a list has one path per line, or is a .csv, .parquet or .orc table")


def _column(names: Sequence[str], list_name: str) -> str:
    found = next((name for name in COLUMNS if name in names), None)
    if found is None:
        raise UsageError(f"{list_name}: has no column {', '.join(COLUMNS)}, only {', '.join(names) or 'nothing'}")
    if names.count(found) > 1:
        raise UsageError(f"{list_name}: has {names.count(found)} columns {found}; keep one")
    return found
