"""Read predictions that are stored: a file, or a folder of parts, with its manifest, at a path or a URL.

stored = StoredPredictions("preds.parquet")
print(stored.info().classes, stored.table("preds.parquet", ["image", "label"]))
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from batchland.errors import UsageError
from batchland.predictions.layout import manifest_path
from batchland.predictions.schema import METADATA_KEY, Manifest, PredictionsInfo
from batchland.predictions.storage import input_location
from batchland.system.arrow import parquet_batches
from batchland.system.files import read_error
from batchland.system.urls import display_url

if TYPE_CHECKING:
    from batchland.predictions.objects import Objects

Result = TypeVar("Result")
Kind = Literal["file", "folder"]
Stamp = tuple[int, int]
"""Size in bytes and modification time in nanoseconds; a file that replaces another has a different one."""


class StoredPredictions:
    """The predictions at a location. Raises UsageError if a file is missing or damaged, and InputError.

    location: a path or a URL. If nothing exists there, `kind` is None.
    """

    def __init__(self, location: str | os.PathLike[str]) -> None:
        self._files: _Files
        location = input_location(location)
        if isinstance(location, Path):
            try:
                self._files = _LocalFiles(location)
            except OSError as error:
                raise read_error(error, str(location)) from error
        else:
            from batchland.predictions.objects import Objects  # slow to import; local predictions do not need it

            self._files = _RemoteFiles(Objects.at(location), display_url(location).rstrip("/"))
        self.name = self._files.name
        """For messages: a path or a URL."""
        self.kind = self._files.kind
        self._metadata: dict[str, bytes | None] = {}
        """Metadata of the first part that was opened, by folder. All parts of a run have the same."""

    def parts(self) -> list[str]:
        """Names of the Parquet files in order; of a single file, its own name.

        For shards that were merged in place, these are the names in the manifest, such as
        `shard-00000-of-00002/part-000000.parquet`.
        """
        parts = self._read(self._files.parts)
        if not parts and self.kind == "folder" and (manifest := self.manifest()):
            return [file.path for file in manifest.files]
        return parts

    def folders(self) -> list[str]:
        """Names of the folders directly in a folder, in order."""
        return self._read(self._files.folders)

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
        return self._read(lambda: self._files.stamp(part))

    def sha256(self, part: str) -> str:
        """sha256 of a part's bytes, hexadecimal."""
        with self._opened(part) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def manifest(self) -> Manifest | None:
        """The manifest; None if there is none, which means that the predictions are not complete."""
        content = self._manifest_content()
        return None if content is None else parse_manifest(content, self._files.manifest_name)

    def is_complete(self) -> bool:
        """Whether there is a manifest, valid or not."""
        return self._manifest_content() is not None

    def _manifest_content(self) -> bytes | None:
        try:
            return self._files.manifest()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise read_error(error, self._files.manifest_name) from error

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
            with self._files.open(part) as file:
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


class _Files(Protocol):
    """The files of predictions. Methods raise OSError."""

    name: str
    kind: Kind | None
    manifest_name: str

    def parts(self) -> list[str]: ...

    def folders(self) -> list[str]: ...

    def stamp(self, part: str) -> Stamp: ...

    def open(self, part: str) -> Any: ...

    def manifest(self) -> bytes: ...


class _LocalFiles:
    def __init__(self, out: Path) -> None:
        self.name = str(out)
        self.manifest_name = str(manifest_path(out))
        self.kind: Kind | None = None
        if out.exists():
            self.kind = "folder" if out.is_dir() else "file"
        self._out = out

    def parts(self) -> list[str]:
        if self.kind == "folder":
            return sorted(path.name for path in self._out.glob("part-*.parquet"))
        return [self._out.name]

    def folders(self) -> list[str]:
        return sorted(path.name for path in self._out.iterdir() if path.is_dir())

    def stamp(self, part: str) -> Stamp:
        status = self._path(part).stat()
        return status.st_size, status.st_mtime_ns

    def open(self, part: str) -> Any:
        return self._path(part).open("rb")

    def manifest(self) -> bytes:
        return manifest_path(self._out).read_bytes()

    def _path(self, part: str) -> Path:
        return self._out / part if self.kind == "folder" else self._out


class _RemoteFiles:
    def __init__(self, objects: "Objects", name: str) -> None:
        self.name = name
        self.manifest_name = f"{name.rpartition('/')[0]}/{manifest_path(PurePosixPath(name.rpartition('/')[2]))}"
        self._objects = objects
        self._out = PurePosixPath(objects.location.path)
        info = objects.first_info(self._out)
        self.kind: Kind | None = {"File": "file", "Directory": "folder"}.get(info.type.name)  # type: ignore[assignment]

    def parts(self) -> list[str]:
        if self.kind == "folder":
            names = self._objects.list(self._out)
            return sorted(name for name in names if fnmatchcase(name, "part-*.parquet"))
        return [self._out.name]

    def folders(self) -> list[str]:
        return list(self._objects.folders(self._out))

    def stamp(self, part: str) -> Stamp:
        info = self._objects.info(self._path(part))
        if not info.is_file:
            raise FileNotFoundError(f"{part} is gone")
        return info.size, info.mtime_ns or 0

    def open(self, part: str) -> Any:
        return self._objects.open(self._path(part))

    def manifest(self) -> bytes:
        return bytes(self._objects.get(manifest_path(self._out)).to_pybytes())

    def _path(self, part: str) -> PurePosixPath:
        return self._out / part if self.kind == "folder" else self._out
