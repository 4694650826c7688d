"""Show the progress of training: a bar per epoch on a terminal, a log line every half minute elsewhere."""

import logging
import sys
import time
from types import TracebackType
from typing import Final, Never, Self

from tqdm import tqdm

LOG_EVERY_SECONDS: Final = 30.0

_log = logging.getLogger("batchland")


class TrainProgress:
    """Context manager; call `update` with the step, the amount done and the total."""

    def __init__(self) -> None:
        self._on_terminal = sys.stderr.isatty()
        self._bar: tqdm[Never] | None = None
        self._doing = ""
        self._last_log = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()

    def update(self, doing: str, done: int, total: int) -> None:
        """Show the progress: at every call on a terminal, every half minute in a log."""
        if self._on_terminal:
            if self._bar is None or doing != self._doing:
                self.clear()
                self._bar = tqdm(total=total, desc=doing, initial=done - 1, leave=False, dynamic_ncols=True)
            self._bar.update(done - self._bar.n)
            if done == total:
                self.clear()
        elif time.monotonic() - self._last_log >= LOG_EVERY_SECONDS:
            self._last_log = time.monotonic()
            _log.info("%s: %d of %d", doing, done, total)
        self._doing = doing

    def clear(self) -> None:
        """Remove the bar, so that a line can be written."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
