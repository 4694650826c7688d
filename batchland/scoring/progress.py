"""Show how far a scoring run is, and count in the background how many images there are."""

import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from batchland.errors import BatchlandError
from batchland.scoring.score import Progress
from batchland.system.progress import ProgressBar

_LAST_COUNT_SECONDS: Final = 1.0
"""How long the end of a run waits for the count, which may hang on a disk that does not answer."""


class ScoreProgress:
    """Context whose `update` takes a `Progress`.

    listing: the images to score, counted in the background. None where counting would cost too much.
    """

    def __init__(self, listing: Callable[[], Iterable[object]] | None = None) -> None:
        self._bar = ProgressBar("images")
        self._total: int | None = None
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
            self._counting.join(_LAST_COUNT_SECONDS)
        self._bar.__exit__(kind, error, trace)

    def update(self, progress: Progress) -> None:
        """Show it."""
        self._bar.update(progress.done, self._total, before=progress.resumed, failed=progress.failed)

    def _count(self, listing: Callable[[], Iterable[object]]) -> None:
        total = 0
        with suppress(BatchlandError, OSError):  # the run itself reports it
            for _ in listing():
                if self._ended.is_set():
                    return
                total += 1
            self._total = total
