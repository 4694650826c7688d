"""Turn SIGINT and SIGTERM into a question that a loop can ask between two steps."""

import signal
import threading
from types import FrameType
from typing import Any, Self


class StopSignal:
    """Context in which the first SIGINT or SIGTERM is noted in `received` instead of killing.

    A second one acts as usual. Outside the main thread, where Python allows no handlers, nothing is caught.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM):
                self._before[signum] = signal.signal(signum, self._note)
        return self

    def __exit__(self, *exc: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def _note(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self.received = signum
        for number, handler in self._before.items():
            signal.signal(number, handler)
