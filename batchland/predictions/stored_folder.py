"""A folder of files at a path or a URL: that of all shards, or of a plan."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal, cast

import pyarrow as pa

from batchland.errors import BatchlandError
from batchland.predictions.storage import display_location
from batchland.system.files import read_error, replace_file
from batchland.system.retries import storage_failed

if TYPE_CHECKING:
    from batchland.predictions.objects import Objects


Stamp = tuple[int, int]
"""Size in bytes and modification time in nanoseconds; a file that replaces another has a different one."""


class StoredFolder:
    """A folder with folders of files in it. Names are relative, like `shard-00000-of-00002/part-000000.parquet`.

    Methods raise OSError. Thread-safe.
    """

    def __init__(self, location: Path | str) -> None:
        self.location = location
        self.name = display_location(location)
        """For messages: an absolute path, or a URL without credentials."""
        self.parallel = 1 if isinstance(location, Path) else 16
        """Files that are worth reading at once, per core."""

    def kind(self) -> Literal["file", "folder"] | None:
        """Whether the location is a file or a folder; None if nothing is there. Raises UsageError, InputError, too."""
        if isinstance(self.location, Path):
            exists, is_folder = self.location.exists(), self.location.is_dir()
        else:
            info = self._objects.first_info(self._path(""))
            exists, is_folder = info.type.name in ("File", "Directory"), not info.is_file
        return ("folder" if is_folder else "file") if exists else None

    def folders(self) -> list[str]:
        """Names of the folders directly in this folder."""
        if isinstance(self.location, Path):
            return [path.name for path in self.location.iterdir() if path.is_dir()]
        return list(self._objects.folders(self._path("")))

    def stamp(self, name: str) -> Stamp:
        """Size and modification time of a file."""
        if isinstance(self.location, Path):
            status = (self.location / name).stat()
            return status.st_size, status.st_mtime_ns
        info = self._objects.info(self._path(name))
        if not info.is_file:
            raise FileNotFoundError(f"{name} is gone")
        return info.size, info.mtime_ns or 0

    def names(self, folder: str = "") -> list[str]:
        """Names of the files and folders directly in this folder, or in one of its folders."""
        if isinstance(self.location, Path):
            return [path.name for path in (self.location / folder).iterdir()]
        objects, path = self._objects, self._path(folder)
        further = objects.folders(path) if objects.filesystem.type_name == "gcs" else ()  # else they are listed, too
        return [*objects.list(path), *further]

    def first_error(self, error: OSError) -> BatchlandError | None:
        """The error for users if the storage fails or refuses the first request; None for other errors."""
        if isinstance(self.location, Path):
            return read_error(error, self.name) if storage_failed(error) else None
        if isinstance(error, FileNotFoundError):
            return None
        from batchland.predictions.objects import first_error

        return first_error(error, self.name)

    def read(self, name: str) -> bytes:
        """The content of a file."""
        if isinstance(self.location, Path):
            return (self.location / name).read_bytes()
        return bytes(self._objects.get(self._path(name)).to_pybytes())

    def sha256(self, name: str) -> str:
        """The digest of a file's content."""
        with self.opened(name) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @contextmanager
    def opened(self, name: str) -> Iterator[Any]:
        """A file, open for reading at any position."""
        if isinstance(self.location, Path):
            with (self.location / name).open("rb") as file:
                yield file
            return
        with self._objects.open(self._path(name)) as file:
            yield file

    def write(self, name: str, content: bytes | pa.Buffer) -> None:
        """Write a file so that it appears whole."""
        if isinstance(self.location, Path):
            replace_file(self.location / name, content)
        else:
            self._objects.put(self._path(name), content)

    def remove(self, name: str) -> None:
        """Remove a file if it is there."""
        if isinstance(self.location, Path):
            (self.location / name).unlink(missing_ok=True)
        else:
            self._objects.remove(self._path(name))

    def sizes(self) -> dict[str, int]:
        """Bytes of the files directly in this folder, by name; empty if there is no such folder."""
        if isinstance(self.location, Path):
            files = [path for path in self.location.iterdir() if path.is_file()] if self.location.is_dir() else []
            return {path.name: path.stat().st_size for path in files}
        return {name: info.size for name, info in self._objects.list(self._path("")).items() if info.is_file}

    def remove_if_empty(self) -> None:
        """Remove the folder if nothing is in it."""
        with suppress(OSError):  # something is in it, or the store has no folders
            if isinstance(self.location, Path):
                self.location.rmdir()
            elif not self._objects.list(self._path("")):
                self._objects.remove_folder(self._path(""))

    @cached_property
    def _objects(self) -> "Objects":
        from batchland.predictions.objects import Objects  # slow to import; local folders do not need it

        return Objects.at(cast("str", self.location))

    def _path(self, name: str) -> PurePosixPath:
        return PurePosixPath(self._objects.location.path) / name
