"""One listed image: what it is called, where it lies, and how its bytes are read. Knows nothing of pixels."""

import errno
import os
import re
import stat
from collections import Counter
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from batchland.errors import ErrorCode, ImageError
from batchland.system.retries import Retries
from batchland.system.urls import display_url, is_url

MAX_FILE_BYTES: Final = 512 * 1024**2
"""Larger files fail as `too_large`, unread."""

retries: Final = Retries()
_ESCAPED: Final = re.compile(rb"\\x([0-9a-f]{2})")
_LOOKS_ESCAPED: Final = re.compile(rb"\\(?=x[0-9a-f]{2})")


class ImageFile(NamedTuple):
    """A file's content, and its size in bytes and modification time at the moment of reading."""

    data: bytes
    size: int
    modified_us: int
    """Microseconds since 1970, UTC."""


class ChangedError(OSError):
    """The file was written to while it was read: what was read may be half old, half new."""


class Store(Protocol):
    """Where images lie. For threads to share, and picklable."""

    def read(self, path: bytes) -> ImageFile:
        """The whole content. Raises OSError, which is retried where it may pass, ChangedError, or ImageError."""

    def facts(self, path: bytes) -> tuple[int | None, int]:
        """Size in bytes and modification time in microseconds, as `read` would give them. Raises OSError.

        The size is None where only reading would tell it, and the time suffices to know the content.
        """


class LocalFiles:
    """The file system of this machine, with all that is mounted there."""

    def read(self, path: bytes) -> ImageFile:
        """Never blocks on a FIFO or a device that took the file's place."""
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ImageError("io_error", "no longer a regular file")
            if status.st_size > MAX_FILE_BYTES:
                raise ImageError("too_large", f"{status.st_size} bytes, more than {MAX_FILE_BYTES}")
            data = file.read(status.st_size + 1)  # a byte more than there should be, and never all of an endless file
            now = os.fstat(descriptor)
        if not (len(data) == status.st_size == now.st_size and status.st_mtime_ns == now.st_mtime_ns):
            raise ChangedError("the file was being written while it was read")
        return ImageFile(data, status.st_size, status.st_mtime_ns // 1000)

    def facts(self, path: bytes) -> tuple[int, int]:
        """Follows links, as reading does."""
        status = os.stat(path)
        return status.st_size, status.st_mtime_ns // 1000


LOCAL_FILES: Final = LocalFiles()


class ImageRef(NamedTuple):
    """One listed image: its name (`/` separated, valid UTF-8, the same in every run), and where to read it."""

    name: str
    path: bytes
    """What `store` knows it by; of a local file, its path."""
    error: tuple[ErrorCode, str] | None = None
    """Set where listing itself failed (a folder that cannot be read): the row is a failed one."""
    store: Store = LOCAL_FILES
    position: int | None = None
    """Place in the whole listing, where a shard scores only some of it."""


@dataclass
class Ignored:
    """What lies there and is not listed, counted by extension or kind. Filled while listing."""

    counts: Counter[str] = field(default_factory=Counter)


def read_image(ref: ImageRef) -> ImageFile:
    """Read an image's bytes, with its size and modification time; errors that may pass are retried.

    Raises ImageError (`vanished`, `permission_denied`, `too_large`, `changed`, `io_error`, `out_of_memory`, or the
    listing's own error).
    """
    if ref.error is not None:
        raise ImageError(*ref.error)
    try:
        return retries.call(lambda: ref.store.read(ref.path))
    except OSError as error:
        raise ImageError(_code(error), error.strerror or str(error)) from error
    except MemoryError as error:
        raise ImageError("out_of_memory", "not enough memory to read it") from error


def display_name(name: bytes) -> str:
    r"""A file name as valid UTF-8: bytes that are not stand as `\xNN`. No two names give the same text.

    (A backslash that happens to stand before such an `xNN` is written `\x5c` for that.)
    """
    return _LOOKS_ESCAPED.sub(rb"\\x5c", name).decode("utf-8", "backslashreplace")


def display_path(path: str | os.PathLike[str]) -> str:
    """A path for people and JSON, as `display_name` shows names; a URL without its credentials."""
    return display_url(str(path)) if is_url(path) else display_name(os.fsencode(path))


def file_name(name: str) -> bytes:
    """The bytes that `display_name` shows as `name`."""
    return _ESCAPED.sub(lambda match: bytes.fromhex(match[1].decode()), name.encode())


def _code(error: OSError) -> ErrorCode:
    if isinstance(error, ChangedError):
        return "changed"
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ESTALE):
        return "vanished"
    if error.errno in (errno.EACCES, errno.EPERM):
        return "permission_denied"
    return "io_error"
