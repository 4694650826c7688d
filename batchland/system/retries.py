"""Retry file system calls after temporary errors, such as a busy disk or a network mount without a connection."""

import errno
import random
import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

Result = TypeVar("Result")

FIRST_WAIT: Final = 0.1
"""Seconds before the first retry."""
_WAITS: Final = (1, 4, 16)
MAX_FAILED_CALLS: Final = 20
PAUSE_SECONDS: Final = 60.0

# These errors concern the path, not the storage. All others may be temporary, even EACCES on network mounts.
_FINAL_ERRORS: Final = frozenset(
    (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL, errno.ENXIO)
)


class Retries:
    """Repeats file system calls after temporary errors, with growing waits. Thread-safe.

    After MAX_FAILED_CALLS consecutive calls have failed with all retries, nothing is retried for PAUSE_SECONDS.
    Otherwise the waits for a hundred thousand unreadable files would take a night.

    first_wait: seconds before the first retry. clock: returns seconds; measures PAUSE_SECONDS.
    """

    def __init__(self, *, first_wait: float = FIRST_WAIT, clock: Callable[[], float] = time.monotonic) -> None:
        self._lock = threading.Lock()
        self._clock = clock
        self.reset(first_wait=first_wait)

    def reset(self, *, first_wait: float = FIRST_WAIT) -> None:
        """Forget earlier failures, and use `first_wait` from now on."""
        with self._lock:
            self._first_wait = first_wait
            self._failures = 0
            self._paused_until = 0.0

    def call(self, action: Callable[[], Result]) -> Result:
        """The action's result. Raises the exception of its last attempt."""
        try:
            return action()
        except OSError as error:
            if not is_temporary(error) or self._clock() < self._paused_until:
                raise
        try:
            result = _again(action, self._first_wait)
        except OSError:
            self._count_failure()
            raise
        with self._lock:
            self._failures = 0
        return result

    def _count_failure(self) -> None:
        with self._lock:
            self._failures += 1
            if self._failures >= MAX_FAILED_CALLS:
                self._paused_until = self._clock() + PAUSE_SECONDS


def is_temporary(error: BaseException) -> bool:
    """Whether the same call could succeed a moment later."""
    return isinstance(error, OSError) and error.errno not in _FINAL_ERRORS


def storage_failed(error: OSError) -> bool:
    """Whether the storage failed. Otherwise the path is wrong, or access is not permitted."""
    return is_temporary(error) and not isinstance(error, PermissionError)


# No retry library: importing it at start is slow, and importing it here may fail for lack of file descriptors.
def _again(action: Callable[[], Result], first_wait: float) -> Result:
    for wait in _WAITS[:-1]:
        time.sleep(wait * first_wait * random.uniform(1, 1.25))  # noqa: S311 - so that threads do not all retry at once
        try:
            return action()
        except OSError as error:
            if not is_temporary(error):
                raise
    time.sleep(_WAITS[-1] * first_wait)
    return action()
