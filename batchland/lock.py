"""One run per output: a kernel lock on a file, freed by the kernel however its holder ends."""

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from batchland.errors import LockedError


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold an exclusive lock on `path` (made if absent, removed afterwards).

    Raises LockedError at once if another process holds it, naming the holder, its host and since when. `what` names the
    guarded thing in that message.
    """
    descriptor = _acquire(path, what)
    try:
        holder = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now(UTC).isoformat("T", "seconds"),
        }
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(holder).encode(), 0)
        yield
    finally:
        path.unlink(missing_ok=True)  # while still holding it; see _acquire
        os.close(descriptor)


def _acquire(path: Path, what: str) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 4096, 0)
            os.close(descriptor)
            raise LockedError(f"{what}: {_describe(holder)} is writing it; wait for that run or stop it") from None
        # The last holder may have removed the file between our open and our lock: then this is no longer its lock.
        if _same_file(descriptor, path):
            return descriptor
        os.close(descriptor)


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _describe(holder: bytes) -> str:
    try:
        facts = json.loads(holder)
        return f"another run (process {facts['pid']} on {facts['host']}, since {facts['since']})"
    except (ValueError, KeyError, TypeError):
        return "another run"
