"""Read ranges of bytes of a file from several threads: local, remote (by cached blocks), or packed by gzip.

At most OPEN_FILES files are open at a time. The last BLOCKS blocks of remote files are kept in memory.
"""

import errno
import os
import sys
import tempfile
import threading
import weakref
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from gzip import BadGzipFile, GzipFile
from typing import BinaryIO, Final, Generic, Protocol, TypeVar, cast

from batchland.errors import InputError
from batchland.system.filesystems import call, listed_us, open_location
from batchland.system.times import known_time
from batchland.system.urls import is_url, split_url

Opened = TypeVar("Opened")

BLOCK_BYTES: Final = 8 * 1024**2
BLOCKS: Final = 16
"""Blocks in memory, for all remote files together: 128 MiB."""
DIRECT_BYTES: Final = 512 * 1024
"""Bytes. Larger ranges are fetched by a separate request and not cached."""
OPEN_FILES: Final = 4
_UNPACK_BYTES: Final = 64 * 1024
"""As many unpacked bytes before damage may be lost."""
GZIP: Final = b"\x1f\x8b"
"""A file that is packed by gzip begins with it."""
_WRONG_CHECKSUM: Final = "its checksum is wrong: pictures in it may be damaged; score an intact one to new predictions"
_GZIP_PROBLEMS: Final = {
    "CRC check failed": _WRONG_CHECKSUM,
    "Incorrect length": _WRONG_CHECKSUM,
    "Not a gzipped file": "something that is not gzip follows its gzip stream",
}
"""What a BadGzipFile means, by the beginning of its message."""


class RandomAccess(Protocol):
    """An open file. Thread-safe."""

    size: int
    """Bytes."""
    modified_us: int | None
    """Microseconds since 1970, UTC; None if unknown."""
    problem: str | None
    """What is wrong with it, if it is a packed file that is truncated or damaged and was read that far."""

    def read_at(self, offset: int, size: int, *, alone: bool = False) -> bytes:
        """`size` bytes, fewer at the end of the file. alone: do not cache the bytes around them. Raises OSError."""

    def finish(self) -> None:
        """Read a packed file to its end, where its checksum is, so that `problem` is known. Raises OSError."""


class _Plain:
    """A file that is not packed."""

    problem: str | None = None

    def finish(self) -> None:
        """See `RandomAccess.finish`. There is no checksum."""


class _Local(_Plain):
    """A local file. Its descriptor is closed with the last reference to it."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        status = os.fstat(descriptor)
        self.size, self.modified_us = status.st_size, known_time(status.st_mtime_ns // 1000)
        weakref.finalize(self, os.close, descriptor)

    def read_at(self, offset: int, size: int, *, alone: bool = False) -> bytes:  # noqa: ARG002
        chunks = []
        while size > 0 and (chunk := os.pread(self.descriptor, size, offset)):
            chunks.append(chunk)
            offset, size = offset + len(chunk), size - len(chunk)
        return b"".join(chunks)


class _Remote(_Plain):
    """A remote file. Small ranges come from cached blocks; with each block the next one is fetched, too."""

    def __init__(self, url: str) -> None:
        location = open_location(url)
        self._folder = location._replace(
            path=location.path.rpartition("/")[0]
        )  # to probe the server, even if this file is gone
        self._file = call(self._folder, lambda: location.filesystem.open_input_file(location.path))
        info = call(self._folder, lambda: location.filesystem.get_file_info(location.path))
        self.size: int = self._file.size()
        self.modified_us = listed_us(info)

    def read_at(self, offset: int, size: int, *, alone: bool = False) -> bytes:
        size = min(size, self.size - offset)
        if size <= 0:
            return b""
        if alone or size >= DIRECT_BYTES:
            return self._fetched(offset, size)
        data = b""
        while len(data) < size:
            index, begin = divmod(offset + len(data), BLOCK_BYTES)
            data += self._block(index)[begin : begin + size - len(data)]
        return data

    def _block(self, index: int) -> bytes:
        following = (index + 1) * BLOCK_BYTES < self.size
        wanted = _blocks.ask(self, index, lambda: self._fetched(index * BLOCK_BYTES, BLOCK_BYTES))
        if following:
            _blocks.ask(self, index + 1, lambda: self._fetched((index + 1) * BLOCK_BYTES, BLOCK_BYTES))
        return wanted.result()

    def _fetched(self, offset: int, size: int) -> bytes:
        size = min(size, self.size - offset)
        data: bytes = call(self._folder, lambda: self._file.read_at(size, offset))
        if len(data) < size:
            raise OSError(errno.EIO, "the object was replaced while it was read")
        return data


class _Blocks:
    """The most recently used blocks of all remote files, fetched or being fetched."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[_Remote, int], Future[bytes]] = OrderedDict()
        self._threads = ThreadPoolExecutor(4, "fetch")

    def ask(self, file: _Remote, index: int, fetch: Callable[[], bytes]) -> Future[bytes]:
        key = (file, index)
        with self._lock:
            block = self._kept.get(key)
            if block is None or (block.done() and block.exception() is not None):
                block = self._kept[key] = self._threads.submit(fetch)
            self._kept.move_to_end(key)
            while len(self._kept) > BLOCKS:
                self._kept.popitem(last=False)
            return block


class _Unpacked:
    """A gzip file, unpacked to a temporary file as far as needed. A damaged stream ends where the damage is.

    Raises InputError if the temporary file cannot be written, which is not a fault of the gzip file.
    """

    def __init__(self, packed: "Reader") -> None:
        self._stream = GzipFile(fileobj=cast("BinaryIO", packed))
        self._unpacked = 0
        self._complete = False
        self.problem: str | None = None
        self.size, self.modified_us = sys.maxsize, packed.file.modified_us
        with _scratch_errors(), tempfile.TemporaryFile(prefix="batchland-") as file:
            self._file = _Local(os.dup(file.fileno()))
        self._lock = threading.Lock()

    def read_at(self, offset: int, size: int, *, alone: bool = False) -> bytes:  # noqa: ARG002
        with self._lock:
            while self._unpacked < offset + size and not self._complete:
                data = self._unpack()
                with _scratch_errors():
                    while data:  # a disk that is almost full takes only a part
                        written = os.pwrite(self._file.descriptor, data, self._unpacked)
                        self._unpacked, data = self._unpacked + written, data[written:]
        return self._file.read_at(offset, size)

    def finish(self) -> None:
        """See `RandomAccess.finish`. What is unpacked here is not kept, so it cannot be read any more."""
        with self._lock:
            while not self._complete:
                self._unpack()

    def _unpack(self) -> bytes:
        """The next bytes of the stream; none at its end."""
        data = b""
        try:
            data = self._stream.read1(_UNPACK_BYTES)  # `read` would lose what precedes an error
        except EOFError:
            self.problem = "its gzip stream ends too early"
        except (zlib.error, BadGzipFile) as error:
            known = (problem for begin, problem in _GZIP_PROBLEMS.items() if str(error).startswith(begin))
            self.problem = next(known, "its gzip stream is damaged")
        self._complete = not data
        return data


@contextmanager
def _scratch_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        folder, reason = tempfile.tempdir or "the folder for temporary files", os.strerror(error.errno or 0)
        raise InputError(
            f"{folder}: cannot be written ({reason}), and tar.gz files are unpacked there; free some space or set "
            f"TMPDIR, then run the same command again"
        ) from error


class Reader:
    """A file as a seekable stream, for libraries that need one. size: bytes of it, by default all. Not thread-safe."""

    closed = False

    def __init__(self, file: RandomAccess, position: int = 0, size: int | None = None) -> None:
        self.file = file
        self.position = position
        self.size = file.size if size is None else size

    def tell(self) -> int:
        """Position of the next byte."""
        return self.position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """See `io.IOBase.seek`. Raises OSError before the begin of the file."""
        position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self.position, os.SEEK_END: self.size}[whence]
        if position < 0:  # zipfile looks there for what an empty zip file does not have
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self.position = position
        return self.position

    def read(self, size: int = -1) -> bytes:
        """`size` bytes, fewer at the end; by default all of the rest."""
        rest = max(0, self.size - self.position)
        data = self.file.read_at(self.position, min(size, rest) if size >= 0 else rest)
        self.position += len(data)
        return data

    def close(self) -> None:
        """Does nothing: other readers share the file."""


class RecentlyOpened(Generic[Opened]):
    """Cache of the OPEN_FILES most recently used open files. Thread-safe."""

    def __init__(self, opened: Callable[[str], Opened]) -> None:
        self._opened = opened
        self._lock = threading.Lock()
        self._recent: OrderedDict[str, Opened] = OrderedDict()

    def get(self, location: str) -> Opened:
        """The open file of a path or URL. Raises what opening it raises."""
        with self._lock:
            if location not in self._recent:
                self._recent[location] = self._opened(location)
            self._recent.move_to_end(location)
            while len(self._recent) > OPEN_FILES:
                self._recent.popitem(last=False)
            return self._recent[location]

    def close(self) -> None:
        """Forget all of them, so that files are opened again and changes are seen."""
        with self._lock:
            self._recent.clear()


def _opened(location: str) -> RandomAccess:
    file: RandomAccess = (
        _Remote(location) if is_url(location) else _Local(os.open(location, os.O_RDONLY | os.O_CLOEXEC))
    )
    named_packed = split_url(location).path.lower().endswith((".gz", ".tgz"))
    packed = named_packed and file.read_at(0, len(GZIP), alone=True) == GZIP
    return _Unpacked(Reader(file)) if packed else file


_blocks: Final = _Blocks()
open_files: Final = RecentlyOpened(_opened)
