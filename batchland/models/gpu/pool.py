"""Share several runners among threads: each batch goes to the next free one.

Two runners on one GPU overlap the copies of one with the computing of the other (double buffering); runners on several
GPUs use them all. The caller keeps the order of batches.
"""

import queue
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from batchland.images.encoded_jpegs import NO_JPEGS, JpegRows
from batchland.images.preprocess import Pixels
from batchland.models.contract import Answer, Probabilities


class Runner(Protocol):
    """Computes batches, for one thread at a time."""

    def answer(self, pixels: Pixels, jpegs: JpegRows = NO_JPEGS) -> Answer:
        """Probabilities and features of uint8 [images, height, width, 3], some rows still JPEGs."""


class RunnerPool:
    """Runners, each with its own thread: a CUDA graph must be replayed by the thread that captured it."""

    def __init__(self, runners: Sequence[Runner]) -> None:
        self._all = [(runner, ThreadPoolExecutor(1, f"device-{index}")) for index, runner in enumerate(runners)]
        self._free: queue.SimpleQueue[tuple[Runner, ThreadPoolExecutor]] = queue.SimpleQueue()
        for each in self._all:
            self._free.put(each)

    def __len__(self) -> int:
        """The number of runners, so of useful parallel calls of `answer`."""
        return len(self._all)

    def answer(self, pixels: Pixels, jpegs: JpegRows = NO_JPEGS) -> Answer:
        """The answer of the next free runner. Thread-safe. Raises what the runner raises."""
        runner, thread = self._free.get()
        try:
            return thread.submit(runner.answer, pixels, jpegs).result()
        finally:
            self._free.put((runner, thread))

    def warm_up(self, pixels: Pixels) -> list[Probabilities]:
        """The probabilities of every runner, computed one after the other. Raises what a runner raises."""
        return [thread.submit(runner.answer, pixels).result().probabilities for runner, thread in self._all]

    def close(self) -> None:
        """End the threads."""
        for _, thread in self._all:
            thread.shutdown()
