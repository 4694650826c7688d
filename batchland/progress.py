"""Show how far a run is: a bar on a terminal, a log line now and then elsewhere. Decides nothing."""

import logging
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Final, Never, Self

from tqdm import tqdm

from batchland.errors import BatchlandError
from batchland.scoring import Progress

LOG_EVERY_SECONDS: Final = 30.0

_log = logging.getLogger("batchland")


class ScoreProgress:
    """Context whose `update` takes a `Progress`.

    count: gives the total; it runs in the background, while scoring. None where counting would cost too much.
    """

    def __init__(self, count: Callable[[], int] | None = None) -> None:
        self._bar: tqdm[Never] | None = None
        self._total: int | None = None
        self._last_log = self._begin = time.monotonic()
        if sys.stderr.isatty():
            self._bar = tqdm(unit=" images", dynamic_ncols=True, smoothing=0.1)
        if count is not None:
            threading.Thread(target=self._count, args=(count,), name="count", daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def update(self, progress: Progress) -> None:
        """Show it: every time on a terminal, every half minute in a log."""
        if self._bar is not None:
            if self._bar.n == 0:
                self._bar.initial = progress.resumed
            self._bar.total = self._total
            self._bar.set_postfix(failed=progress.failed, refresh=False)
            self._bar.update(progress.done - self._bar.n)
        elif time.monotonic() - self._last_log >= LOG_EVERY_SECONDS:
            self._last_log = time.monotonic()
            rate = (progress.done - progress.resumed) / (self._last_log - self._begin)
            of = f" of {self._total}" if self._total else ""
            _log.info("%d%s images, %d failed, %.1f images/s", progress.done, of, progress.failed, rate)

    def _count(self, count: Callable[[], int]) -> None:
        with suppress(BatchlandError, OSError):  # the run itself reports it
            self._total = count()
