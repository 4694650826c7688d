"""Load batches with several processes, because Python's lock (the GIL) limits how many images one process can decode.

    this process    images, index of a buffer  ->  decoding process    a new interpreter with threads
    this process    <-  outcomes of the images     pixels are in memory that the processes share

Each process has its own GIL, threads, timeouts and notes (crash_guard.py). If one dies, the images that it was loading
are suspects: another process takes over its batches and decodes these images in subprocesses.
"""

import gc
import mmap
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import ceil
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Never

import numpy as np

from batchland.errors import BatchlandError, EngineError
from batchland.images.batch import Batch, Outcome
from batchland.images.crash_guard import CrashGuard
from batchland.images.decoding_threads import POLL_SECONDS, DecodingThreads
from batchland.images.preprocess import Pixels, PreprocessSpec
from batchland.images.sources.refs import ImageRef, shared_store
from batchland.system.helper_process import HelperProcess
from batchland.system.memory import keep_freed_memory

if TYPE_CHECKING:
    from multiprocessing.connection import Connection  # takes 20 ms to import

CORES_PER_PROCESS: Final = 4
"""With this number of threads, a process seldom waits for the GIL."""
MIN_CORES: Final = 8
"""With fewer cores, the threads of one process can use all of them."""
IMAGES_BEFORE_START: Final = 500
"""Unless their number is given, the processes start after this number of images, because starting takes a while."""
_AHEAD: Final = 3
"""Batches that are assigned to a process at once."""
_MAX_LOSSES: Final = 10
"""Number of processes that may die in a row, without a loaded batch in between."""


class _Settings(NamedTuple):
    """The first message to a process."""

    guard: Callable[[], CrashGuard]
    spec: PreprocessSpec
    batch_size: int
    timeout: float
    num_workers: int | None
    cores: int


@dataclass(eq=False)
class _Request:
    """A batch of images for a process to load."""

    process: "_Process"
    refs: Sequence[ImageRef]
    buffer: int
    outcomes: list[Outcome] | None = None


@dataclass(eq=False)
class _Process:
    """A decoding process, and its requests in order."""

    number: int
    helper: HelperProcess
    requests: deque[_Request] = field(default_factory=deque)
    is_ready: bool = False


def can_share_memory() -> bool:
    """Whether this system supports the memory that the processes share: only Linux does."""
    return hasattr(os, "memfd_create")


def automatic_processes(cores: int) -> int:
    """The number of decoding processes for this number of cores; 0 if the threads of one process are as fast."""
    return ceil(cores / CORES_PER_PROCESS) if cores >= MIN_CORES and can_share_memory() else 0


class DecodingProcesses:
    """Several processes that load batches. They start when they are needed.

    guard: of this process; the decoding processes get their own from it.
    held, timeout: as for BatchLoader.
    num_workers, cores: threads and cores of all processes together.
    images_before_start: number of images that are loaded by threads before; 0 to use processes from the first one on.
    """

    def __init__(
        self,
        count: int,
        guard: CrashGuard,
        spec: PreprocessSpec,
        batch_size: int,
        *,
        timeout: float = 60.0,
        num_workers: int | None = None,
        cores: int,
        prefetch_factor: int = 2,
        held: int = 0,
        images_before_start: int = 0,
    ) -> None:
        self._guard = guard
        self._images_before_start = images_before_start
        self._settings = _Settings(
            guard.for_process(0),
            spec,
            batch_size,
            timeout,
            None if num_workers is None else ceil(num_workers / count),
            ceil(cores / count),
        )
        self._count = count
        self._buffer_count = max(prefetch_factor, _AHEAD * count) + held + 1
        self._memory: int | None = None
        self._processes: list[_Process] = []
        self._losses = 0
        self.buffers: Sequence[Pixels] = ()
        """uint8 [batch_size, height, width, 3] each, once the processes have started."""

    def take_over(self, images: int) -> bool:
        """See `LaterDecoders`."""
        if images < self._images_before_start:
            return False
        if not self._processes:
            self._open()
        return not self._images_before_start or all(self._is_ready(process) for process in self._processes)

    def start(self, refs: Sequence[ImageRef], buffer: int) -> _Request:
        """Let the process with the fewest batches load images into a buffer, given by its index."""
        process = min(self._processes, key=lambda each: len(each.requests))
        request = _Request(process, refs, buffer)
        process.requests.append(request)
        _send(process, request)
        return request

    def finish(self, batch: _Request, on_wait: Callable[[], None] | None = None) -> Batch:
        """Wait for a batch. Raises EngineError if several processes die in a row, and any error of the process."""
        while batch.outcomes is None:
            self._receive(batch.process, on_wait)
        return Batch(batch.refs, self.buffers[batch.buffer][: len(batch.refs)], batch.outcomes)

    def stop(self) -> None:
        """End the processes."""
        for process in self._processes:
            process.helper.connection.close()  # all of them begin to end
        for process in self._processes:
            process.helper.close()
        self._processes = []
        if self._memory is not None:
            os.close(self._memory)
            self._memory = None

    def _open(self) -> None:
        settings = self._settings
        shape = (self._buffer_count, settings.batch_size, *settings.spec.shape)
        self._memory = os.memfd_create("batchland-pixels")
        os.ftruncate(self._memory, int(np.prod(shape)))
        self.buffers = list(np.frombuffer(mmap.mmap(self._memory, 0), np.uint8).reshape(shape))
        self._processes = [self._start_process(number) for number in range(self._count)]

    def _start_process(self, number: int) -> _Process:
        assert self._memory is not None
        try:
            process = _Process(number, HelperProcess(__name__, [self._memory]))
        except OSError as error:
            reason = error.strerror or error
            raise EngineError(f"no process that decodes images can start: {reason}; run the command again") from error
        with suppress(OSError):  # the process has died; waiting for its answer will notice that
            process.helper.connection.send(self._settings._replace(guard=self._guard.for_process(number)))
        return process

    def _is_ready(self, process: _Process) -> bool:
        if not process.is_ready and process.helper.connection.poll():
            self._receive(process, None)
        return process.is_ready

    def _receive(self, process: _Process, on_wait: Callable[[], None] | None) -> None:
        """Take the next answer of a process, or replace it if it has died."""
        try:
            if not process.helper.connection.poll(POLL_SECONDS):
                if on_wait is not None:
                    on_wait()
                return
            answer = process.helper.connection.recv()
        except (EOFError, OSError):
            self._replace(process)
            return
        if isinstance(answer, BaseException):
            raise answer
        if answer is None:
            process.is_ready = True
            return
        process.requests.popleft().outcomes = answer
        self._losses = 0

    def _replace(self, lost: _Process) -> None:
        self._losses += 1
        if self._losses > _MAX_LOSSES:
            raise EngineError(
                f"processes that decode images end by themselves: {lost.helper.problem()}; finished parts are kept, "
                f"run the command again"
            )
        lost.helper.close()
        self._guard.process_died(lost.number)
        process = self._start_process(lost.number)
        self._processes[lost.number] = process
        for request in lost.requests:
            request.process = process
            process.requests.append(request)
            _send(process, request)


def _send(process: _Process, request: _Request) -> None:
    with suppress(OSError):  # the process has died; waiting for its answer will notice that
        process.helper.connection.send((request.buffer, request.refs))


def serve(connection: "Connection", memory_fd: int) -> Never:
    """Run in a decoding process, until the other process closes the connection."""
    keep_freed_memory()
    gc.set_threshold(10_000)
    settings: _Settings = connection.recv()
    shape = (-1, settings.batch_size, *settings.spec.shape)
    buffers = list(np.frombuffer(mmap.mmap(memory_fd, 0), np.uint8).reshape(shape))
    started: queue.SimpleQueue[Any] = queue.SimpleQueue()
    with settings.guard() as guard:
        threads = DecodingThreads(
            settings.spec,
            buffers,
            guard.load,
            guard.load_isolated,
            num_workers=settings.num_workers,
            cores=settings.cores,
            timeout=settings.timeout,
        )
        threading.Thread(target=_receive, args=(connection, threads, started), daemon=True).start()
        connection.send(None)
        while True:
            try:
                answer: list[Outcome] | BaseException = list(threads.finish(started.get()).outcomes)
            except BaseException as error:
                answer = error
            _answer(connection, answer)


def _receive(connection: "Connection", threads: DecodingThreads, started: "queue.SimpleQueue[Any]") -> None:
    """Start to load each batch that arrives. The end of the connection ends this process, also if threads still run."""
    with suppress(EOFError, OSError):
        while True:
            buffer, refs = connection.recv()
            own = [ref._replace(store=shared_store(ref.store)) for ref in refs]
            started.put(threads.start(own, buffer))
    os._exit(0)


def _answer(connection: "Connection", answer: "list[Outcome] | BaseException") -> None:
    if isinstance(answer, BaseException) and not isinstance(answer, BatchlandError):
        answer = RuntimeError(f"{type(answer).__name__} in a process that decodes images: {answer}")
    connection.send(answer)
