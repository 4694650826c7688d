"""Progress of a long task: a bar on a terminal; elsewhere, a log line every 30 seconds."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, Never, Self

if TYPE_CHECKING:
    from tqdm import tqdm

LOG_EVERY: Final = 30.0
"""Seconds."""

_log = logging.getLogger("batchland")
_bars = ContextVar("bars", default=True)


@contextmanager
def without_bars() -> Iterator[None]:
    """Context in which new progress bars write log lines instead."""
    token = _bars.set(False)
    try:
        yield
    finally:
        _bars.reset(token)


class ProgressBar:
    """Context that shows how much of a task is done on stderr; one bar per task.

    unit: what is counted, as a plural. keep: leave a finished bar on the terminal. log_every: seconds between two log
    lines, measured with `clock`.
    """

    def __init__(
        self,
        unit: str = "",
        *,
        keep: bool = True,
        log_every: float = LOG_EVERY,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._unit = unit
        self._keep = keep
        self._log_every = log_every
        self._clock = clock
        self._on_terminal = sys.stderr.isatty() and _bars.get()
        self._bar: tqdm[Never] | None = None
        self._task = ""
        self._begin = self._last_log = clock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._close()

    def update(
        self, done: int, total: int | None = None, *, task: str = "", before: int = 0, failed: int | None = None
    ) -> None:
        """Show the progress. before: units done before this run; they do not count for the speed."""
        if self._on_terminal:
            self._draw(done, total, task, before, failed)
        elif self._clock() - self._last_log >= self._log_every:
            self._last_log = self._clock()
            facts = [f"{done} of {total}" if total else str(done)]
            facts[0] += f" {self._unit}" if self._unit else ""
            facts += [f"{failed} failed"] if failed is not None else []
            facts += [f"{(done - before) / (self._last_log - self._begin):.1f} {self._unit}/s"] if self._unit else []
            _log.info("%s%s", f"{task}: " if task else "", ", ".join(facts))

    def update_task(self, task: str, done: int, total: int | None) -> None:
        """Show the progress of one of several tasks; for use as a callback."""
        self.update(done, total, task=task)

    def _draw(self, done: int, total: int | None, task: str, before: int, failed: int | None) -> None:
        if self._bar is None or task != self._task:
            self._close()
            from tqdm import tqdm  # not needed by nightly runs, and takes a while

            self._bar = tqdm(
                desc=task or None,
                total=total,
                unit=f" {self._unit}" if self._unit else "",
                unit_scale=not self._unit,
                initial=before,
                leave=self._keep,
                dynamic_ncols=True,
                smoothing=0.1,
            )
            self._task = task
        self._bar.total = total
        if failed is not None:
            self._bar.set_postfix(failed=failed, refresh=False)
        self._bar.update(done - self._bar.n)
        if done == total and not self._keep:
            self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
