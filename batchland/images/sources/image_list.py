"""Images named by a list: one path or URL a line, or a column of a CSV or Parquet file.

The list is streamed, never held in memory, so a path that occurs twice in it has two rows.
"""

import codecs
import io
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property, lru_cache
from typing import IO, TYPE_CHECKING, Any, Final, cast
from urllib.parse import unquote

from batchland.errors import UsageError
from batchland.images.sources.file_patterns import check_file, display_location, open_file
from batchland.images.sources.list_content import problem_with_lines
from batchland.images.sources.list_table import PEEKED_BYTES, Entry, check_content, open_table
from batchland.images.sources.refs import Ignored, ImageRef
from batchland.system.names import display_name, display_path, file_name
from batchland.system.paths import resolved
from batchland.system.urls import INVALID, bare_url, is_url, local_path, mistyped_url, split_url

if TYPE_CHECKING:
    import pyarrow as pa

STANDARD_INPUT: Final = "-"
_SCHEMES: Final = frozenset(("file", "s3", "gs", "gcs", "abfs", "abfss", "hdfs", "viewfs", "http", "https"))
_WITHOUT_HOST: Final = ("file", "hdfs", "viewfs")
"""Schemes of URLs that may name no host."""
WEB_SCHEMES: Final = ("http", "https")
_INVENTORY_MANIFEST: Final = "manifest.json"
_MAX_LINE_BYTES: Final = 1024**2


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
        self.name = display_location(self._base) if is_url(self._base) else display_path(resolved(self._base))
        self.countable = listing != STANDARD_INPUT and os.path.isfile(listing)  # noqa: PTH113 - a pipe is read once

    @cached_property
    def own(self) -> "pa.Schema":
        """See `ListSource.own`. Lines, standard input and inventories have no further columns."""
        import pyarrow as pa

        if self._listing != STANDARD_INPUT:
            with _opened(self._listing) as file, open_table(file, display_location(self._listing)) as table:
                if table:
                    return table.own()
        return pa.schema([])

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
        with _opened(self._listing) as file, open_table(file, name) as table:
            for path, own in table.entries() if table else _lines(file, name):
                if path:
                    yield self._ref(path)._replace(own=own)
                else:
                    ignored.counts["blank line"] += 1

    def _prefix(self, bucket: str) -> str:
        """The prefix of the keys of an inventory's images. Raises UsageError if the folder is not in its bucket."""
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
        if ref.error is None and self.planned(ref.name, b"") != ref._replace(own=()):
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
        if is_url(text.strip()):  # blanks belong to a path, not to a URL
            text, entry = text.strip(), entry.strip()
        elif meant := mistyped_url(text):
            return ImageRef(
                meant, b"", ("io_error", "it is not a valid URL; write SCHEME://HOST/PATH with nothing before it")
            )
        try:
            if is_url(text) and (problem := _problem_with_url(text)):
                return ImageRef(bare_url(text), b"", ("io_error", problem))
            if is_url(text):
                return self._web_ref(text) if is_web(text) else _ref_of_url(text, display_name(entry))
            if is_web(self._base):
                from batchland.images.sources.web_names import joined_url

                return self._web_ref(joined_url(self._base, text))
        except UsageError:
            return ImageRef(bare_url(text), b"", ("io_error", f"it {INVALID}"))
        if is_url(self._base) and not text.startswith("/"):
            return _remote_files(self._base).ref(text.removeprefix("./"), name=display_name(entry))
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
    return files.ref(unquote(parts.path).lstrip("/"), name=bare_url(url))


@lru_cache
def _remote_files(url: str) -> Any:
    from batchland.images.sources.remote import RemoteFiles  # imports pyarrow, which local files do not need

    return RemoteFiles(url, listed=False)


def _problem_with_url(url: str) -> str | None:
    parts = split_url(url)
    if parts.scheme not in _SCHEMES:
        return f"{parts.scheme} cannot be read; give paths, or URLs of http, s3, gs, abfs, hdfs or file"
    if not parts.netloc and parts.scheme not in _WITHOUT_HOST:
        return "a URL without a server or bucket; give whole URLs"
    return None


def _opened(listing: str) -> AbstractContextManager[IO[bytes]]:
    if listing == STANDARD_INPUT:
        return nullcontext(sys.stdin.buffer)
    if is_url(listing):
        from batchland.system.filesystems import open_location

        location = open_location(listing)
        return io.BufferedReader(cast("io.RawIOBase", location.filesystem.open_input_file(location.path)))
    return open_file(listing)


def _lines(file: IO[bytes], list_name: str) -> Iterator[Entry]:
    """Entries separated by line ends, also `\\r` alone, or by zero bytes if there are any (`find -print0`)."""
    read = cast("io.BufferedReader", file).read1  # returns what a pipe holds, without waiting for more
    chunk = read(PEEKED_BYTES)
    check_content(problem_with_lines(chunk), list_name)
    separator, ending = (b"\0", b"") if b"\0" in chunk else (b"\n", b"\r")
    if separator == b"\n" not in chunk and b"\r" in chunk[:-1]:
        separator = b"\r"
    rest = b""
    while chunk:
        *entries, rest = (rest + chunk).split(separator)
        yield from (Entry(_without_mark(entry).removesuffix(ending)) for entry in entries)
        if len(rest) > _MAX_LINE_BYTES:
            check_content("has a line of more than a megabyte", list_name)
        chunk = read(PEEKED_BYTES)
    if rest:
        yield Entry(_without_mark(rest).removesuffix(ending))


def _without_mark(entry: bytes) -> bytes:
    """Without byte order marks: several, or some inside a list, if lists were joined."""
    while entry.startswith(codecs.BOM_UTF8):
        entry = entry.removeprefix(codecs.BOM_UTF8)
    return entry
