"""Show how far a run is: a bar on a terminal, a log line now and then elsewhere. Decides nothing."""

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import TracebackType
from typing import Final, Never, Self

from tqdm import tqdm

from batchland.errors import BatchlandError
from batchland.scoring.score import Progress

LOG_EVERY_SECONDS: Final = 30.0
_LAST_LOOK_SECONDS: Final = 1.0
"""A folder on a disk that does not answer is not waited for any longer."""

_log = logging.getLogger("batchland")


class ScoreProgress:
    """Context whose `update` takes a `Progress`.

    listing: what there is to score, to be counted in the background. None where counting would cost too much.
    """

    def __init__(self, listing: Callable[[], Iterable[object]] | None = None) -> None:
        self._bar: tqdm[Never] | None = None
        self._total: int | None = None
        self._last_log = self._begin = time.monotonic()
        if sys.stderr.isatty():
            self._bar = tqdm(unit=" images", dynamic_ncols=True, smoothing=0.1)
        self._ended = threading.Event()
        self._counting: threading.Thread | None = None
        if listing is not None:
            self._counting = threading.Thread(target=self._count, args=(listing,), name="count", daemon=True)
            self._counting.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._counting is not None:  # the interpreter must not end while Arrow reads a list for it
            self._counting.join(_LAST_LOOK_SECONDS)
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

    def _count(self, listing: Callable[[], Iterable[object]]) -> None:
        total = 0
        with suppress(BatchlandError, OSError):  # the run itself reports it
            for _ in listing():
                if self._ended.is_set():
                    return
                total += 1
            self._total = total
