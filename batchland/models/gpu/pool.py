"""Several runners, each with a thread of its own, for whoever has a batch: the next free one takes it.

Two runners on one GPU overlap one's copies with the other's computing (double buffering); runners on several GPUs use
them all. Knows nothing of onnxruntime or of GPUs. The order of batches is the caller's affair.
"""

import queue
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from batchland.images.encoded_jpegs import NO_JPEGS, JpegRows
from batchland.images.preprocess import Pixels
from batchland.models.contract import Probabilities


class Runner(Protocol):
    """What computes, for one thread at a time."""

    def predict(self, pixels: Pixels, jpegs: JpegRows = NO_JPEGS) -> Probabilities:
        """Probabilities, float32 [images, classes], of uint8 [images, height, width, 3], JPEGs among them."""


class RunnerPool:
    """Runners to share. A CUDA graph wants the thread that captured it, so each runner keeps its own."""

    def __init__(self, runners: Sequence[Runner]) -> None:
        self._all = [(runner, ThreadPoolExecutor(1, f"device-{place}")) for place, runner in enumerate(runners)]
        self._free: queue.SimpleQueue[tuple[Runner, ThreadPoolExecutor]] = queue.SimpleQueue()
        for each in self._all:
            self._free.put(each)

    def __len__(self) -> int:
        """How many calls of `predict` make sense at once."""
        return len(self._all)

    def predict(self, pixels: Pixels, jpegs: JpegRows = NO_JPEGS) -> Probabilities:
        """What a free runner gives; waits for one. For any number of threads. Raises what the runner raises."""
        runner, thread = self._free.get()
        try:
            return thread.submit(runner.predict, pixels, jpegs).result()
        finally:
            self._free.put((runner, thread))

    def warm_up(self, pixels: Pixels) -> None:
        """Have every runner do it once, one after the other. Raises what a runner raises."""
        for runner, thread in self._all:
            thread.submit(runner.predict, pixels).result()

    def close(self) -> None:
        """End the threads."""
        for _, thread in self._all:
            thread.shutdown()
