"""sha256 of large files in constant memory. It can be started in the background before it is needed."""

import hashlib
import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import BinaryIO, Final

from batchland.system.regular_files import open_regular

_CHUNK_BYTES: Final = 16 << 20
"""Large, because after each chunk this thread waits for the GIL, which another thread holds while it imports."""

_Identity = tuple[int, ...]
_begun: Final[dict[tuple[Path, _Identity], "Future[str]"]] = {}
_known: Final[dict[tuple[Path, _Identity], str]] = {}


def begin_hashing(path: Path) -> None:
    """Compute the sha256 of a file in the background, for a later `hash_file`. Does nothing if it cannot be read."""
    try:
        key = path, _identity(os.stat(path))
    except OSError:
        return
    found: Future[str] = Future()

    def compute() -> None:
        try:
            found.set_result(_hash(path))
        except BaseException as error:
            found.set_exception(error)

    if key not in _begun:
        _begun[key] = found
        threading.Thread(target=compute, name="hash", daemon=True).start()


def hash_file(path: Path) -> str:
    """sha256 of a regular file; it is computed again only if the file has changed. Raises OSError."""
    key = path, _identity(os.stat(path))
    begun = _begun.pop(key, None)
    found = _known.get(key) or (begun.result() if begun else _hash(path))
    if _identity(os.stat(path)) != key[1]:
        return _hash(path)
    _known[key] = found
    return found


def chunks(file: BinaryIO, size: int) -> Iterator[memoryview]:
    """The content of an open file in chunks of `size` bytes; each chunk is overwritten by the next one."""
    buffer = memoryview(bytearray(size))
    while count := file.readinto(buffer):  # type: ignore[attr-defined]
        yield buffer[:count]


def _hash(path: Path) -> str:
    total = hashlib.sha256()
    with open_regular(path) as file:
        for chunk in chunks(file, _CHUNK_BYTES):
            total.update(chunk)
    return total.hexdigest()


def _identity(status: os.stat_result) -> _Identity:
    """Changes when somebody replaces the file or writes to it."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
