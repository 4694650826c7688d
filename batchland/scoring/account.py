"""Count the images and the seconds per stage of a run, and decide when it must stop."""

import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from batchland.errors import Interrupted, ModelError, TimeLimitError
from batchland.models.session import OpenModel
from batchland.predictions.schema import Seconds
from batchland.predictions.writer import Entry, PredictionSink
from batchland.scoring.engines.engine import Scored
from batchland.system.signals import GRACE_SECONDS, StopSignal


class Progress(NamedTuple):
    """Numbers of images so far."""

    done: int
    """Images with a row, those of an interrupted or earlier run included."""
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
    """Counts and seconds of one run of a model. time_limit: seconds after which it stops, None for none."""

    def __init__(
        self, model: OpenModel, stopwatch: Stopwatch, sink: PredictionSink, signal: StopSignal, time_limit: float | None
    ) -> None:
        self._model = model
        self._stopwatch = stopwatch
        self._sink = sink
        self._signal = signal
        self._time_limit = time_limit
        self._scored = self._failed = 0
        self._read = self._decode = self._infer = 0.0
        self.decoded_on_gpu = 0
        """Images."""

    def add(self, scored: Scored) -> None:
        """One more batch. Raises ModelError if the first one shows that the model gives no probabilities at all."""
        if not self._scored and not self._sink.resumed_images and not self._sink.kept_images:
            codes = set(scored.rows.column("error_code").to_pylist())
            if "model_output" in codes and None not in codes:
                raise ModelError(
                    f"{self._model.path}: its outputs for the first batch are not probabilities that sum to 1, not for "
                    f"one image; export or adopt the model again"
                )
        self._scored += scored.rows.num_rows
        self._failed += scored.failed
        self.decoded_on_gpu += scored.decoded_on_gpu
        self._read += scored.read_seconds
        self._decode += scored.decode_seconds
        self._infer += scored.infer_seconds

    @property
    def progress(self) -> Progress:
        """How far the run is."""
        done = self._scored + self._sink.resumed_images + self._sink.kept_images
        return Progress(done, self._failed, self._sink.resumed_images)

    def seconds(self) -> Seconds:
        """Seconds by stage; see docs/performance.md for what is summed over threads."""
        parts = {
            "list": self._stopwatch.list,
            "read": self._read,
            "decode": self._decode,
            "infer": self._infer,
            "write": self._sink.write_seconds,
            "total": self._stopwatch.elapsed(),
        }
        return Seconds(**{name: round(value, 3) for name, value in parts.items()})

    def images_per_second(self) -> float:
        """Images scored by this process, over its wall seconds."""
        return round(self._scored / self._stopwatch.elapsed(), 1)

    def stop_if_due(self) -> None:
        """Between two batches: write a checkpoint and raise Interrupted if a signal or the time limit says stop."""
        self._stop_after(0.0)

    def stop_if_waiting_too_long(self) -> None:
        """While waiting for a batch: the same, but only when the batch has had GRACE_SECONDS to end."""
        self._stop_after(GRACE_SECONDS)

    def _stop_after(self, grace: float) -> None:
        error: Interrupted | None = None
        where = f"{self._sink.out}: stopped after {self.progress.done} images"
        if self._signal.received is not None and self._signal.seconds_ago >= grace:
            error = Interrupted(f"{where}; run the same command again to resume", self._signal.received)
        elif self._time_limit is not None and self._stopwatch.elapsed() >= self._time_limit + grace:
            error = TimeLimitError(f"{where}, at the time limit; run the same command again to resume")
        if error:
            self._sink.checkpoint()
            raise error
