"""Show how far a scoring run is, and count in the background how many images there are."""

import sys
import threading
import time
from contextlib import suppress
from typing import Final, Self

from batchland.errors import BatchlandError
from batchland.scoring.account import Progress
from batchland.scoring.listing import ImageListing
from batchland.scoring.options import Shard
from batchland.system.progress import LOG_EVERY, ProgressBar

_JOIN_SECONDS: Final = 1.0
"""At its end, a run waits this long for the counting thread, which may hang on an unresponsive disk."""


class ScoreProgress:
    """Context manager that shows progress. Call `update` with a `Progress`.

    listing: images to count in a second walk, in a thread, for the total. shard: count only the images of this shard.
    log_every: seconds between two log lines. The count begins when the total is first shown: on a terminal at once, in
    a log with its first line.
    """

    def __init__(
        self, listing: ImageListing | None = None, shard: Shard | None = None, *, log_every: float = LOG_EVERY
    ) -> None:
        self._listing = listing if listing and listing.source.countable else None
        self._shard = shard
        self._count_at = time.monotonic() + (0.0 if sys.stderr.isatty() else log_every)
        self._bar = ProgressBar("images", log_every=log_every)
        self._total: int | None = None
        self._ended = threading.Event()
        self._counting: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._count_if_due()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        if self._counting is not None:  # the interpreter must not end while Arrow reads a list in that thread
            self._counting.join(_JOIN_SECONDS)
        self._bar.__exit__(*exc)

    def update(self, progress: Progress) -> None:
        """Show it."""
        self._count_if_due()
        self._bar.update(progress.done, self._total, before=progress.resumed, failed=progress.failed)

    def _count_if_due(self) -> None:
        if self._listing is not None and self._counting is None and time.monotonic() >= self._count_at:
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
