"""Write objects to a store through pyarrow.fs: each appears when its upload completes, or not at all.

pyarrow cannot abort an upload: closing the stream after an exception, or freeing it, completes the upload, and half an
object appears under its final name. So a failed upload is never closed here, nor freed.
"""

import ctypes
import hashlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import PurePosixPath
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, TypeVar

import pyarrow as pa

from batchland.errors import BatchlandError, UsageError
from batchland.system.filesystems import OpenUrl, answers, open_location, os_error, start_error
from batchland.system.urls import split_url

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo

_BY_COMPLETION: Final = ("s3", "gcs")
_BY_RENAME: Final = ("hdfs", "local")
"""On these file systems a file is visible while it is written, so it is written under another name and renamed."""
Result = TypeVar("Result")


class Objects:
    """The store of a URL. Paths are those of the store; errors are OSErrors, as of a local file system.

    Raises UsageError if the URL's kind of storage cannot keep unfinished files from being seen.
    """

    def __init__(self, location: OpenUrl) -> None:
        self.location = location
        kind = location.filesystem.type_name
        if kind not in (*_BY_COMPLETION, *_BY_RENAME):
            raise UsageError(
                f"{location.name}: unfinished files would be seen there; give a path, s3://, gs:// or hdfs://"
            )
        self.by_rename = kind in _BY_RENAME
        self.filesystem = location.filesystem

    @classmethod
    def at(cls, url: str) -> Self:
        """Open the store of a URL. Raises UsageError or InputError."""
        if split_url(url).scheme == "s3":  # small objects in one request instead of three
            url += ("&" if split_url(url).query else "?") + "allow_delayed_open=true"
        return cls(open_location(url))

    def call(self, action: Callable[[], Result]) -> Result:
        """Do `action`, and repeat it once if the storage did not answer for a while."""
        try:
            return _local_errors(action)
        except (FileNotFoundError, PermissionError):
            raise
        except OSError:
            if not answers(self.location):
                raise
            return _local_errors(action)

    def info(self, path: PurePosixPath) -> "FileInfo":
        """The kind, size and time of an object or folder; type NotFound if there is none."""
        return self.call(lambda: self.filesystem.get_file_info(str(path)))

    def first_info(self, path: PurePosixPath) -> "FileInfo":
        """`info` for the first request to a store. Raises UsageError or InputError."""
        try:
            return self.info(path)
        except OSError as error:
            raise first_error(error, self.location.name) from error

    def list(self, folder: PurePosixPath) -> "dict[str, FileInfo]":
        """The entries directly in a folder, by name; empty if there is no such folder."""
        from pyarrow.fs import FileSelector

        infos = self.call(lambda: self.filesystem.get_file_info(FileSelector(str(folder), allow_not_found=True)))
        return {info.base_name: info for info in infos}

    def folders(self, folder: PurePosixPath) -> tuple[str, ...]:
        """Names of the folders directly in a folder, in order."""
        from pyarrow.fs import FileSelector

        flat = self.filesystem.type_name == "gcs"  # Arrow does not see subfolders there
        selector = FileSelector(str(folder), recursive=flat, allow_not_found=True)
        infos = self.call(lambda: self.filesystem.get_file_info(selector))
        paths = (PurePosixPath(info.path).relative_to(folder) for info in infos if flat or not info.is_file)
        return tuple(sorted({path.parts[0] for path in paths if not flat or len(path.parts) > 1}))

    def get(self, path: PurePosixPath) -> pa.Buffer:
        """The content of an object."""

        def read() -> pa.Buffer:
            with self.filesystem.open_input_file(str(path)) as file:
                return file.read_buffer()

        return self.call(read)

    def open(self, path: PurePosixPath) -> pa.NativeFile:
        """Open an object to read parts of it."""
        return self.call(lambda: self.filesystem.open_input_file(str(path)))

    def put(self, path: PurePosixPath, data: bytes | pa.Buffer) -> None:
        """Write an object, or replace it."""

        def write() -> None:
            with Upload(self, path) as upload:
                upload.write(data)

        self.call(write)

    def remove(self, path: PurePosixPath) -> None:
        """Remove an object if it is there."""
        self._remove(path, lambda: self.filesystem.delete_file(str(path)))

    def remove_folder(self, folder: PurePosixPath) -> None:
        """Remove a folder with all that is in it, if it is there."""
        self._remove(folder, lambda: self.filesystem.delete_dir(str(folder)))

    def _remove(self, path: PurePosixPath, action: Callable[[], None]) -> None:
        if self._is_gone(path):
            return
        try:
            _local_errors(action)
        except OSError:
            # Arrow writes an empty object for the parent folder. Some stores and policies do not allow that.
            if not self._is_gone(path):
                self.call(action)

    def _is_gone(self, path: PurePosixPath) -> bool:
        from pyarrow.fs import FileType

        return bool(self.info(path).type == FileType.NotFound)


class Upload:
    """An open file. Its content appears at `path` when it is closed without an error, or committed. Raises OSError."""

    closed = False

    def __init__(self, objects: Objects, path: PurePosixPath) -> None:
        self.size = 0
        self.sha256 = hashlib.sha256()
        self._filesystem = objects.filesystem
        self._path = path
        self._target = path.with_name(f".{path.name}.new") if objects.by_rename else path
        self._stream = _local_errors(lambda: self._filesystem.open_output_stream(str(self._target)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.commit()
        else:
            self.abandon()

    def write(self, data: bytes | pa.Buffer) -> int:
        """Start sending data; it may not have arrived when this returns."""
        _local_errors(lambda: self._stream.write(data))
        self.sha256.update(data)
        size = len(memoryview(data))
        self.size += size
        return size

    def flush(self) -> None:
        """Wait until all data has arrived, so that memory stays bounded."""
        _local_errors(self._stream.flush)

    def commit(self) -> None:
        """Complete the upload: the object appears."""
        try:
            _local_errors(self._stream.close)
            if self._target != self._path:
                with suppress(FileNotFoundError):  # hdfs does not move over a file
                    _local_errors(lambda: self._filesystem.delete_file(str(self._path)))
                _local_errors(lambda: self._filesystem.move(str(self._target), str(self._path)))
        except BaseException:
            self.abandon()
            raise
        self.closed = True

    def abandon(self) -> None:
        """Drop the upload. The stream is never freed, since that would complete the upload."""
        if self.closed:
            return
        self.closed = True
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._stream))
        if self._target != self._path:
            with suppress(OSError):
                _local_errors(lambda: self._filesystem.delete_file(str(self._target)))


def first_error(error: OSError, name: str) -> BatchlandError:
    """The error for users when the first request to a store fails."""
    return start_error(error.__cause__ if isinstance(error.__cause__, Exception) else error, name)


def _local_errors(action: Callable[[], Result]) -> Result:
    """Do `action`; errors become OSErrors with a number."""
    try:
        return action()
    except (OSError, pa.ArrowException) as error:
        raise os_error(error) from error
