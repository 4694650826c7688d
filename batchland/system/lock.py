"""Locks between processes, with flock on a file. The kernel frees the lock when its holder ends or is killed."""

import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from batchland.errors import LockedError
from batchland.system.files import open_existing

_POLL_SECONDS: Final = 0.05

_log = logging.getLogger("batchland")


@contextmanager
def locked(path: Path, what: str, *, wait: float = 0.0) -> Iterator[None]:
    """Hold an exclusive lock on the file `path`, which is created if absent and removed afterwards.

    what: names the locked thing in messages. wait: seconds. Raises LockedError if another process still holds the lock
    after that time, naming its process, host and start, and OSError if `path` cannot be opened or is a link.
    """
    descriptor = _acquire(path, what, time.monotonic() + wait)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(holder_facts()).encode(), 0)
        yield
    finally:
        try:
            path.unlink(missing_ok=True)  # while still holding it; see _acquire
        except OSError as error:
            _log.warning("%s: the lock file cannot be removed (%s); it does not lock anything", path, error.strerror)
        finally:
            _close(descriptor)


def shared_lock(path: Path) -> int:
    """Lock an existing file against `in_use`, until the returned descriptor is closed. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    return descriptor


def in_use(path: Path) -> bool:
    """Whether a process has a lock on an existing file, shared or exclusive. Raises OSError."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def holder_facts() -> dict[str, object]:
    """Description of this process as the holder of a lock: `pid`, `host` and `since`."""
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now(UTC).isoformat("T", "seconds"),
    }


def holder(path: Path) -> dict[str, Any] | None:
    """The holder of a lock: `pid`, `host` and `since` as far as they are known; None if the lock is free.

    It takes a shared lock for a moment to find out. A process that needs the lock at that moment needs a short `wait`.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        _flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB, path)
    except BlockingIOError:
        return _facts_in(descriptor)
    else:
        return None
    finally:
        _close(descriptor)


def _acquire(path: Path, what: str, deadline: float) -> int:
    while True:
        descriptor = open_existing(path, os.O_RDWR)
        try:
            _flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, path)
            # The last holder may have removed the file between our open and our lock: then the lock is useless.
            if _same_file(descriptor, path):
                return descriptor
        except BlockingIOError:
            if time.monotonic() >= deadline:
                holder = describe_holder(_facts_in(descriptor))
                _close(descriptor)
                raise LockedError(f"{what}: {holder} is writing it; wait for that run or stop it") from None
            time.sleep(_POLL_SECONDS)
        except OSError:
            _close(descriptor)
            raise
        _close(descriptor)


def _flock(descriptor: int, operation: int, path: Path) -> None:
    """flock; its errors name the file. Raises BlockingIOError if another process holds the lock."""
    try:
        fcntl.flock(descriptor, operation)
    except OSError as error:
        error.filename = str(path)
        raise


def _facts_in(descriptor: int) -> dict[str, Any]:
    try:
        return read_facts(os.pread(descriptor, 4096, 0))
    except OSError:  # the lock is held nevertheless
        return {}


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat(follow_symlinks=False))
    except FileNotFoundError:
        return False


def _close(descriptor: int) -> None:
    try:
        os.close(descriptor)
    except OSError as error:  # only the note about the holder is lost; the descriptor is closed anyway
        _log.warning("a lock file cannot be closed (%s)", error.strerror)


def read_facts(written: bytes) -> dict[str, Any]:
    """The facts that a holder has written into its lock file; empty if it has not yet."""
    try:
        facts = json.loads(written)
    except ValueError:
        return {}
    return facts if isinstance(facts, dict) else {}


def describe_holder(facts: dict[str, Any]) -> str:
    """Description of a holder for messages."""
    try:
        return f"another run (process {facts['pid']} on {facts['host']}, since {facts['since']})"
    except KeyError:
        return "another run"
