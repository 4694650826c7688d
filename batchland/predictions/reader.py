"""Read predictions that are stored: a file, or a folder of parts, with its manifest, at a path or a URL.

stored = StoredPredictions("preds.parquet")
print(stored.info().classes, stored.table("preds.parquet", ["image", "label"]))
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import PurePath
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from batchland.errors import UsageError
from batchland.predictions.schema import METADATA_KEY, Manifest, PredictionsInfo
from batchland.predictions.storage import input_location, manifest_location, split_location
from batchland.predictions.stored_folder import Stamp, StoredFolder
from batchland.system.arrow import parquet_batches
from batchland.system.files import read_error

Result = TypeVar("Result")


class StoredPredictions:
    """The predictions at a location. Raises UsageError if a file is missing or damaged, and InputError.

    location: a path or a URL. If nothing exists there, `kind` is None.
    """

    def __init__(self, location: str | os.PathLike[str]) -> None:
        location = input_location(location)
        self._folder = StoredFolder(location)
        self.name = self._folder.name
        """For messages: a path or a URL."""
        self.kind = self._read(self._folder.kind)
        folder, self._last = split_location(location)
        if self.kind != "folder":
            self._folder = StoredFolder(folder)
        self._manifest_name = str(manifest_location(location))
        self._metadata: dict[str, bytes | None] = {}
        """Metadata of the first part that was opened, by folder. All parts of a run have the same."""

    def parts(self) -> list[str]:
        """Names of the Parquet files in order; of a single file, its own name.

        For shards that were merged in place, these are the names in the manifest, such as
        `shard-00000-of-00002/part-000000.parquet`.
        """
        if self.kind != "folder":
            return [self._last]
        parts = sorted(name for name in self._read(self._folder.names) if fnmatchcase(name, "part-*.parquet"))
        if not parts and (manifest := self.manifest()):
            return [file.path for file in manifest.files]
        return parts

    def folders(self) -> list[str]:
        """Names of the folders directly in a folder, in order."""
        return sorted(self._read(self._folder.folders))

    def several(self) -> str | None:
        """What a folder holds instead of one output: shards, or the partitions of a job. None if neither."""
        folders = self.folders()
        if any(name.lstrip(".").startswith("shard-") for name in folders):
            return "holds shards; run `batchland merge`, and give its output"
        partitions = [name for name in folders if name.startswith(("date=", "model="))]
        if partitions:
            return f"holds the partitions of a job, each of them a separate run; give one, like {partitions[-1]}"
        return None

    def stamp(self, part: str) -> Stamp:
        """Size and modification time of a part."""
        return self._read(lambda: self._folder.stamp(part))

    def sha256(self, part: str) -> str:
        """sha256 of a part's bytes, hexadecimal."""
        with self._opened(part) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def manifest(self) -> Manifest | None:
        """The manifest; None if there is none, which means that the predictions are not complete."""
        content = self._manifest_content()
        return None if content is None else parse_manifest(content, self._manifest_name)

    def is_complete(self) -> bool:
        """Whether there is a manifest, valid or not."""
        return self._manifest_content() is not None

    def _manifest_content(self) -> bytes | None:
        try:
            return self._folder.read(PurePath(self._manifest_name).name)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise read_error(error, self._manifest_name) from error

    def info(self) -> PredictionsInfo:
        """The document about the run in the first part's metadata."""
        parts = self.parts()
        if not parts:
            if several := self.several():
                raise UsageError(f"{self.name}: {several}")
            raise UsageError(f"{self.name}: is a folder without predictions", advice="photos")
        first = parts[0]
        info = predictions_info(self.schema(first), self.name)
        if "/" in first and (manifest := self.manifest()):  # a shard's part; the manifest describes all shards
            return info.model_copy(
                update=dict(manifest.model_dump(include={"run_id", "device"}), counts=manifest.counts)
            )
        return info

    def schema(self, part: str) -> pa.Schema:
        """The Arrow schema of a part."""
        with self._open(part) as parquet:
            return parquet.schema_arrow

    def table(self, part: str, columns: Sequence[str]) -> pa.Table:
        """Some columns of a part."""
        with self._open(part) as parquet:
            return parquet.read(list(columns))

    def batches(self, part: str, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """The given columns of a part, or all, in blocks of rows."""
        with self._open(part) as parquet:
            yield from parquet_batches(parquet, columns)

    def rows(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The given columns of all parts, in order, in blocks of rows."""
        for part in self.parts():
            yield from self.batches(part, columns)

    @contextmanager
    def _open(self, part: str) -> Iterator[pq.ParquetFile]:
        with self._opened(part) as file, pq.ParquetFile(file) as parquet:
            found = (parquet.metadata.metadata or {}).get(METADATA_KEY)
            if self._metadata.setdefault(part.rpartition("/")[0], found) != found:
                raise UsageError(f"{self.name}: another run has replaced it while it was read; run the command again")
            yield parquet

    @contextmanager
    def _opened(self, part: str) -> Iterator[Any]:
        name = self.name if self.kind == "file" else f"{self.name}/{part}"
        try:
            with self._folder.opened(part) as file:
                yield file
        except (OSError, pa.ArrowException) as error:
            raise read_error(error, name, "restore it, or score again") from error

    def _read(self, action: Callable[[], Result]) -> Result:
        try:
            return action()
        except OSError as error:
            raise read_error(error, self.name) from error


def read_manifest(location: str | os.PathLike[str]) -> Manifest | None:
    """The manifest of the predictions at a location, None if there is none. Raises UsageError or InputError."""
    return StoredPredictions(location).manifest()


def parse_manifest(content: bytes, name: str) -> Manifest:
    """A manifest from its JSON text. name: the file's name, for messages. Raises UsageError."""
    try:
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        raise UsageError(
            f"{name}: not a manifest that this version of batchland can read; restore it, or delete these predictions "
            f"and score again"
        ) from error


def predictions_info(schema: pa.Schema, name: str) -> PredictionsInfo:
    """The document in a predictions file's metadata. name: the file's name, for messages. Raises UsageError."""
    content = (schema.metadata or {}).get(METADATA_KEY)
    if content is None:
        raise UsageError(f"{name}: not a predictions file of batchland; give what `batchland score` wrote")
    try:
        return PredictionsInfo.model_validate_json(content)
    except ValidationError as error:
        raise UsageError(f"{name}: its metadata is damaged or of another version of batchland; score again") from error
