"""SIGINT and SIGTERM as a flag that a loop checks between two steps, or as an exception."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final, Never, Self

from batchland.errors import Interrupted

GRACE_SECONDS: Final = 10.0
"""Time to finish the current step after a signal."""


class StopSignal:
    """Context in which the first SIGINT or SIGTERM sets `received` and does not end the process.

    The second signal acts as usual. Outside the main thread, Python allows no handlers, so no signal is caught.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._at = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM):
                self._before[signum] = signal.signal(signum, self._note)
        return self

    def __exit__(self, *exc: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    @property
    def seconds_ago(self) -> float:
        """Seconds since the signal."""
        return time.monotonic() - self._at

    def _note(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self.received, self._at = signum, time.monotonic()
        for number, handler in self._before.items():
            signal.signal(number, handler)


@contextmanager
def signals_raise() -> Iterator[None]:
    """Context in which SIGINT and SIGTERM raise Interrupted in the main thread.

    A `StopSignal` inside it takes the first signal. Outside the main thread, nothing is caught.
    """

    def interrupt(signum: int, frame: FrameType | None) -> Never:  # noqa: ARG001
        raise Interrupted(f"stopped by {signal.Signals(signum).name}; run the same command again to continue", signum)

    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        before = {signum: signal.signal(signum, interrupt) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
