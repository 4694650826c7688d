"""One run per output: a kernel lock on a file, freed by the kernel however its holder ends."""

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from batchland.errors import LockedError

_POLL_SECONDS: Final = 0.05


@contextmanager
def locked(path: Path, what: str, *, wait: float = 0.0) -> Iterator[None]:
    """Hold an exclusive lock on `path` (made if absent, removed afterwards).

    Raises LockedError if another process holds it, for longer than `wait` seconds, naming the holder, its host and
    since when. `what` names the guarded thing in that message.
    """
    descriptor = _acquire(path, what, time.monotonic() + wait)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(holder_facts()).encode(), 0)
        yield
    finally:
        path.unlink(missing_ok=True)  # while still holding it; see _acquire
        os.close(descriptor)


def holder_facts() -> dict[str, object]:
    """This process, as a lock names its holder."""
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now(UTC).isoformat("T", "seconds"),
    }


def holder(path: Path) -> dict[str, Any] | None:
    """Who holds the lock: `pid`, `host` and `since` as far as they are known; None if nobody does.

    Asks the kernel, by holding a shared lock for a moment: whoever wants the lock meanwhile needs a short `wait`.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return read_facts(os.pread(descriptor, 4096, 0))
    else:
        return None
    finally:
        os.close(descriptor)


def _acquire(path: Path, what: str, deadline: float) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            facts = read_facts(os.pread(descriptor, 4096, 0))
            os.close(descriptor)
            if time.monotonic() < deadline:
                time.sleep(_POLL_SECONDS)
                continue
            raise LockedError(f"{what}: {describe_holder(facts)} is writing it; wait for that run or stop it") from None
        # The last holder may have removed the file between our open and our lock: then this is no longer its lock.
        if _same_file(descriptor, path):
            return descriptor
        os.close(descriptor)


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def read_facts(written: bytes) -> dict[str, Any]:
    """What a holder has written of itself; nothing, if it has not yet."""
    try:
        facts = json.loads(written)
    except ValueError:  # the holder has not written them yet
        return {}
    return facts if isinstance(facts, dict) else {}


def describe_holder(facts: dict[str, Any]) -> str:
    """A holder in words."""
    try:
        return f"another run (process {facts['pid']} on {facts['host']}, since {facts['since']})"
    except KeyError:
        return "another run"
