"""Count the images and the seconds per stage of a run, and decide when it must stop."""

import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from batchland.errors import Interrupted, TimeLimitError
from batchland.models.session import OpenModel
from batchland.predictions.parts import Entry
from batchland.predictions.schema import Seconds
from batchland.predictions.writer import PredictionSink
from batchland.scoring.engines.engine import Scored, ScoredPart, Work, require_probabilities
from batchland.system.signals import StopSignal

if TYPE_CHECKING:
    from batchland.scoring.engines.ray.engine import RayEngine


class Progress(NamedTuple):
    """Numbers of images so far."""

    done: int
    """Images with a row, including those of an interrupted or earlier run."""
    failed: int
    """Failed images of this process."""
    resumed: int
    """Images whose rows come from an interrupted run."""


class Stopwatch:
    """Seconds since it was made, and of them those spent listing."""

    def __init__(self) -> None:
        self._begin = time.monotonic()
        self.list = 0.0

    def elapsed(self) -> float:
        """Wall seconds."""
        return time.monotonic() - self._begin

    def listing(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """Pass the entries on, and add the time spent on each to `list`."""
        entries = iter(entries)
        while True:
            begin = time.perf_counter()
            entry = next(entries, None)
            self.list += time.perf_counter() - begin
            if entry is None:
                return
            yield entry


class Account:
    """Counts and seconds of one run of a model.

    time_limit: seconds after which it stops, None for none. grace: seconds that the batch it waits for gets to end when
    the run must stop. engine: given if its workers store the rows.
    """

    def __init__(
        self,
        model: OpenModel,
        stopwatch: Stopwatch,
        sink: PredictionSink,
        signal: StopSignal,
        time_limit: float | None,
        grace: float,
        engine: "RayEngine | None" = None,
    ) -> None:
        self._engine = engine
        self._model = model
        self._stopwatch = stopwatch
        self._sink = sink
        self._signal = signal
        self._time_limit = time_limit
        self._grace = grace
        self._scored = self._failed = 0
        self.work = Work()
        self.unfinished = (0, 0)
        """Images scored by other processes in parts that are not finished, and failed ones among them."""

    def add(self, scored: Scored) -> None:
        """One more batch. Raises ModelError if the first one shows that the model gives no probabilities at all."""
        if not self._scored and not self._sink.resumed_images and not self._sink.kept_images:
            require_probabilities(scored, self._model.path)
        self._scored += scored.rows.num_rows
        self._failed += scored.failed
        self.work = self.work.plus(scored.work)

    def add_part(self, part: ScoredPart) -> None:
        """One more part that another process has scored and written."""
        self._sink.add(part.summary)
        self._scored += part.summary.rows - part.summary.resumed - part.summary.kept
        self._failed += part.summary.failed
        self.work = self.work.plus(part.work)

    @property
    def progress(self) -> Progress:
        """How far the run is."""
        done = self._scored + self._sink.resumed_images + self._sink.kept_images + self.unfinished[0]
        return Progress(done, self._failed + self.unfinished[1], self._sink.resumed_images)

    def seconds(self) -> Seconds:
        """Seconds by stage; see docs/performance.md for what is summed over threads."""
        parts = {
            "list": self._stopwatch.list,
            "read": self.work.read_seconds,
            "decode": self.work.decode_seconds,
            "infer": self.work.infer_seconds,
            "write": self._sink.write_seconds,
            "total": self._stopwatch.elapsed(),
        }
        return Seconds(**{name: round(value, 3) for name, value in parts.items()})

    def images_per_second(self, reused: int) -> float:
        """Images of this process per wall second. reused: the number of images with rows of equal images."""
        return round((self._scored + reused) / self._stopwatch.elapsed(), 1)

    def stop_if_due(self) -> None:
        """Between two batches: write a checkpoint and raise Interrupted if a signal or the time limit says stop."""
        self._stop_after(0.0)

    def stop_if_waiting_too_long(self) -> None:
        """While waiting for a batch: the same, but only when the batch has had `grace` seconds to end."""
        self._stop_after(self._grace)

    def _stop_after(self, grace: float) -> None:
        signalled = self._signal.received is not None and self._signal.seconds_ago >= grace
        late = self._time_limit is not None and self._stopwatch.elapsed() >= self._time_limit + grace
        if not signalled and not late:
            return
        self._checkpoint()
        where = f"{self._sink.out}: stopped after {self.progress.done} images"
        if signalled and self._signal.received is not None:
            raise Interrupted(f"{where}; run the same command again to resume", self._signal.received)
        raise TimeLimitError(f"{where}, at the time limit; run the same command again to resume")

    def _checkpoint(self) -> None:
        """Store the rows scored so far, here or in the workers."""
        if self._engine is None:
            self._sink.checkpoint()
            return
        parts, images = self._engine.stop()
        for part in parts:
            self.add_part(part)
        self.unfinished = (images, 0)
