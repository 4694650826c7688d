"""One listed image: its name, its location, and how to read its bytes."""

import errno
import hashlib
import os
import stat
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, NamedTuple, Protocol

from batchland.errors import ErrorCode, ImageError
from batchland.system.retries import Retries
from batchland.system.times import known_time

MAX_FILE_BYTES: Final = 512 * 1024**2
"""Larger files fail as `too_large` and are not read."""

retries: Final = Retries()


class ImageFile(NamedTuple):
    """A file's content, with its size in bytes and modification time when it was read."""

    data: bytes
    size: int
    modified_us: int | None
    """Microseconds since 1970, UTC; None if unknown, see `known_time`."""

    def facts(self) -> dict[str, Any]:
        """The fields of an image's outcome about its file."""
        return {"file_size": self.size, "modified_us": self.modified_us, "sha256": content_hash(self.data)}


def check_file_size(size: int) -> None:
    """Raise ImageError (`too_large`) for a file of more than MAX_FILE_BYTES."""
    if size > MAX_FILE_BYTES:
        raise ImageError("too_large", f"{size} bytes, more than {MAX_FILE_BYTES}")


def content_hash(data: bytes) -> str:
    """sha256 of an image file's content, hexadecimal: files with the same hash are the same."""
    return hashlib.sha256(data).hexdigest()


class ChangedError(OSError):
    """The file was written to while it was read, so its content may be part old, part new."""


class Store(Protocol):
    """Reads the images of one location. Thread-safe and picklable."""

    def read(self, path: bytes) -> ImageFile:
        """The whole content. Raises ChangedError, ImageError, or OSError, which is retried if it may be temporary."""

    def facts(self, path: bytes) -> tuple[int | None, int | None] | None:
        """Size in bytes and modification time in microseconds, as `read` gives them. Raises OSError.

        The size is None if only reading gives it; then the time alone identifies the content. Returns None if a request
        is too expensive; then the content counts as unchanged.
        """


class LocalFiles:
    """The local file system."""

    def __reduce__(self) -> str:
        """Pickle as the one instance of this module."""
        return "LOCAL_FILES"

    def read(self, path: bytes) -> ImageFile:
        """See `Store.read`. Does not block if the file was replaced by a FIFO or a device."""
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ImageError("io_error", "not a regular file")
            check_file_size(status.st_size)
            data = _read(descriptor, status.st_size)
            now = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        if not (len(data) == status.st_size == now.st_size and status.st_mtime_ns == now.st_mtime_ns):
            raise ChangedError("the file was being written while it was read")
        return ImageFile(data, status.st_size, known_time(status.st_mtime_ns // 1000))

    def facts(self, path: bytes) -> tuple[int, int | None]:
        """See `Store.facts`. Follows links."""
        status = os.stat(path)
        return status.st_size, known_time(status.st_mtime_ns // 1000)


def _read(descriptor: int, size: int) -> bytes:
    """The content of a file of this size, and a byte more if it grew; without the buffers of Python's file objects."""
    data = os.read(descriptor, size + 1)
    while 0 < len(data) < size and (more := os.read(descriptor, size + 1 - len(data))):
        data += more
    return data


LOCAL_FILES: Final = LocalFiles()


class ImageRef(NamedTuple):
    """One listed image: its name (`/` separated, valid UTF-8, the same in every run), and where to read it."""

    name: str
    path: bytes
    """The key of the image in `store`. For a local file, its path."""
    error: tuple[ErrorCode, str] | None = None
    """Set if listing failed (a folder that cannot be read): then its row is a failed one."""
    store: Store = LOCAL_FILES
    position: int | None = None
    """Index in the whole listing, if a shard scores only part of it."""
    own: tuple[Any, ...] = ()
    """Its values of the list's further columns; empty where there are none."""


@lru_cache(64)
def shared_store(store: Store) -> Store:
    """The first of equal stores that this process was given: it may have open connections."""
    return store


def is_there(ref: ImageRef, *, far: bool = True) -> bool:
    """False only if there certainly is no such file. far: read it to find out, if it is not a local file.

    Raises InputError if its storage does not answer.
    """
    if ref.error is not None:
        return True
    if isinstance(ref.store, LocalFiles):
        return _may_exist(ref.path)
    if far:
        try:
            read_image(ref)
        except ImageError as error:
            return error.code != "vanished"
    return True


def _may_exist(path: bytes) -> bool:
    try:
        return not stat.S_ISDIR(os.lstat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    except OSError as error:
        return error.errno != errno.ENAMETOOLONG


@dataclass
class Ignored:
    """Numbers of skipped files, by extension or kind. Filled while listing."""

    counts: Counter[str] = field(default_factory=Counter)


def read_image(ref: ImageRef) -> ImageFile:
    """Read an image's bytes, with its size and modification time. Errors that may be temporary are retried.

    Raises ImageError (`vanished`, `permission_denied`, `too_large`, `changed`, `io_error`, `out_of_memory`, or the
    listing's own error).
    """
    if ref.error is not None:
        raise ImageError(*ref.error)
    try:
        return retries.call(lambda: ref.store.read(ref.path))
    except OSError as error:
        raise ImageError(_code(error), error.strerror or str(error)) from error
    except ValueError as error:  # of a name with a zero byte
        raise ImageError("vanished", "no file can have this name") from error
    except MemoryError as error:
        raise ImageError("out_of_memory", "not enough memory to read it") from error


def _code(error: OSError) -> ErrorCode:
    if isinstance(error, ChangedError):
        return "changed"
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ESTALE):
        return "vanished"
    if error.errno in (errno.EACCES, errno.EPERM):
        return "permission_denied"
    return "io_error"
