"""Inventories of S3 buckets: manifest.json with the data files that list a bucket's objects, as CSV, ORC or Parquet.

AWS writes an inventory once a day or a week; it costs far less than listing. The data files lie in the bucket that the
manifest names, or, for a manifest that was copied, below the folder beside it.
"""

import csv
import gzip
import io
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import IO, TYPE_CHECKING, NamedTuple, cast
from urllib.parse import unquote_plus

from batchland.errors import BatchlandError, UsageError
from batchland.images.sources.file_patterns import display_location, open_file
from batchland.images.sources.folder import kind_by_name
from batchland.images.sources.list_table import Read, open_orc, open_parquet
from batchland.images.sources.refs import Ignored
from batchland.system.filesystems import open_location
from batchland.system.text import first_line
from batchland.system.urls import is_url

if TYPE_CHECKING:
    import pyarrow as pa


class Inventory(NamedTuple):
    """An inventory's manifest."""

    location: str
    bucket: str
    """The bucket that is listed."""
    kind: str
    """CSV, ORC or Parquet."""
    columns: tuple[str, ...]
    """Column names of a CSV, which has no header, in lower case without `_`."""
    files: tuple[str, ...]
    """Keys of the data files."""
    data_bucket: str

    @classmethod
    def of(cls, location: str, content: bytes) -> "Inventory | None":
        """The inventory that a manifest.json describes; None if it is something else."""
        try:
            found = json.loads(content)
            if not isinstance(found, dict) or "fileFormat" not in found or "sourceBucket" not in found:
                return None
            return cls(
                location,
                str(found["sourceBucket"]),
                str(found["fileFormat"]).upper(),
                tuple(_plain(name) for name in str(found["fileSchema"]).split(",")),
                tuple(str(file["key"]) for file in found["files"]),
                str(found["destinationBucket"]).rpartition(":")[2],
            )
        except ValueError:  # not JSON
            return None
        except (KeyError, TypeError) as error:
            raise UsageError(
                f"{display_location(location)}: is an inventory without {error}; give the whole one"
            ) from error

    def images(self, prefix: str, ignored: Ignored, *, all_files: bool) -> Iterator[bytes]:
        """Keys below `prefix`, less it, that are images by their extension and are not deleted or replaced."""
        for file in self.files:
            for key in self._keys(file):
                if not key.startswith(prefix) or key.endswith("/"):
                    continue
                name = key[len(prefix) :].encode()
                is_hidden = b"/." in b"/" + name
                kind = "hidden" if is_hidden else kind_by_name(name.rpartition(b"/")[2], all_files=all_files)
                if kind == "file":
                    yield name
                else:
                    ignored.counts[kind] += 1

    def _keys(self, file: str) -> Iterator[str]:
        reads: dict[str, Callable[[IO[bytes]], Iterator[str]]] = {
            "CSV": self._csv,
            "ORC": partial(_columns, open_orc),
            "PARQUET": partial(_columns, open_parquet),
        }
        if self.kind not in reads:
            raise UsageError(
                f"{display_location(self.location)}: its format {self.kind} is not read; use CSV, ORC or Parquet"
            )
        with self._opened(file) as opened:
            try:
                yield from reads[self.kind](opened)
            except BatchlandError:
                raise
            except Exception as error:  # the libraries raise almost anything on damaged files
                reason = first_line(error)
                raise UsageError(
                    f"{display_location(self.location)}: its file {file} cannot be read ({reason})"
                ) from error

    def _csv(self, file: IO[bytes]) -> Iterator[str]:
        with io.TextIOWrapper(gzip.open(file), "utf-8", newline="") as text:
            for row in csv.reader(text):
                facts = dict(zip(self.columns, row, strict=False))
                if _is_current(facts.get("islatest"), facts.get("isdeletemarker")):
                    yield unquote_plus(facts["key"])

    @contextmanager
    def _opened(self, key: str) -> Iterator[IO[bytes]]:
        if not is_url(self.location):
            with _local(self.location, key) as file:
                yield file
            return
        options = self.location.partition("?")[2]
        location = open_location(f"s3://{self.data_bucket}/{key}{'?' if options else ''}{options}")
        with location.filesystem.open_input_file(location.path) as far:
            yield cast("IO[bytes]", far)


@contextmanager
def _local(manifest: str, key: str) -> Iterator[IO[bytes]]:
    """A data file beside a manifest that was copied: in its folder, in `data` there or one folder up, or by its key."""
    folder, name = os.path.dirname(manifest) or ".", key.rpartition("/")[2]  # noqa: PTH120
    tried = [f"{folder}/{name}", f"{folder}/data/{name}", f"{folder}/../data/{name}", f"{folder}/{key}"]
    found = next((path for path in tried if os.path.exists(path)), tried[1])  # noqa: PTH110
    with open_file(found) as file:
        yield file


def _columns(opened: "Callable[[IO[bytes]], tuple[pa.Schema, Read]]", file: IO[bytes]) -> Iterator[str]:
    """The keys in an ORC or Parquet file, without those that are deleted or replaced."""
    schema, read = opened(file)
    names = {_plain(name): name for name in schema.names}
    wanted = [name for name in ("key", "islatest", "isdeletemarker") if name in names]
    for rows in read([names[name] for name in wanted]):
        found = {name: rows.column(names[name]).to_pylist() for name in wanted}
        none = [None] * rows.num_rows
        flags = zip(found["key"], found.get("islatest", none), found.get("isdeletemarker", none), strict=True)
        yield from (key for key, latest, deleted in flags if _is_current(latest, deleted))


def _is_current(is_latest: object, is_delete_marker: object) -> bool:
    return str(is_latest).lower() != "false" and str(is_delete_marker).lower() != "true"


def _plain(name: str) -> str:
    return re.sub(r"[^a-z]", "", name.lower())
