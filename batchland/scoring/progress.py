"""Show how far a run is: a bar on a terminal, elsewhere a log line every half minute."""

import logging
import sys
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Final, Never, Self

from tqdm import tqdm

from batchland.errors import BatchlandError
from batchland.scoring.account import Progress
from batchland.scoring.listing import ImageListing
from batchland.scoring.options import Shard

LOG_EVERY_SECONDS: Final = 30.0
_JOIN_SECONDS: Final = 1.0
"""How long to wait for the count at the end. A disk that does not answer is not waited for."""

_log = logging.getLogger("batchland")


class ScoreProgress:
    """Context whose `update` takes a `Progress`.

    listing: images to count in a second walk, in a thread, for the total; a log counts them only when its first line is
    due. shard: count only the images of this shard. terminal: whether to show a bar; by default if stderr is one.
    """

    def __init__(
        self,
        listing: ImageListing | None = None,
        shard: Shard | None = None,
        *,
        terminal: bool | None = None,
        log_every: float = LOG_EVERY_SECONDS,
    ) -> None:
        self._listing = listing if listing and listing.source.countable else None
        self._shard = shard
        self._log_every = log_every
        self._bar: tqdm[Never] | None = None
        self._total: int | None = None
        self._last_log = self._begin = time.monotonic()
        self._ended = threading.Event()
        self._counting: threading.Thread | None = None
        if terminal if terminal is not None else sys.stderr.isatty():
            self._bar = tqdm(unit=" images", dynamic_ncols=True, smoothing=0.1)
            self._begin_count()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._counting is not None:  # the interpreter must not end while Arrow reads a list in that thread
            self._counting.join(_JOIN_SECONDS)
        if self._bar is not None:
            self._bar.close()

    def update(self, progress: Progress) -> None:
        """Show it."""
        if self._bar is not None:
            if self._bar.n == 0:
                self._bar.initial = progress.resumed
            self._bar.total = self._total
            self._bar.set_postfix(failed=progress.failed, refresh=False)
            self._bar.update(progress.done - self._bar.n)
        elif time.monotonic() - self._last_log >= self._log_every:
            self._begin_count()
            self._last_log = time.monotonic()
            rate = (progress.done - progress.resumed) / (self._last_log - self._begin)
            of = f" of {self._total}" if self._total else ""
            _log.info("%d%s images, %d failed, %.1f images/s", progress.done, of, progress.failed, rate)

    def _begin_count(self) -> None:
        if self._listing is not None and self._counting is None:
            self._counting = threading.Thread(target=self._count, args=(self._listing,), name="count", daemon=True)
            self._counting.start()

    def _count(self, listing: ImageListing) -> None:
        total = 0
        with suppress(BatchlandError, OSError):  # the run itself reports it
            for _ in listing.second_walk(self._shard):
                if self._ended.is_set():
                    return
                total += 1
            self._total = total
