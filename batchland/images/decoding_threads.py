"""Load batches with threads. Decoders release the GIL, so threads use all cores and share buffers."""

import atexit
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from batchland.errors import ErrorCode, InputError
from batchland.images.batch import Batch, Load, Outcome, measured
from batchland.images.encoded_jpegs import Encoded
from batchland.images.preprocess import Pixels, PreprocessSpec
from batchland.images.sources.refs import ImageRef
from batchland.system.cores import usable_cores

MAX_HANGING: Final = 64
"""The storage counts as unavailable if this many threads wait for an image for longer than the timeout."""
MAX_ABANDONED: Final = 2
"""If this number of abandoned decoders still run (each uses a core and memory for a picture), other images are decoded
in subprocesses, which can be killed."""
MAX_WORKERS: Final = 64
"""Largest number of threads that are started automatically."""
POLL_SECONDS: Final = 0.5
_STOPPED_FACTOR: Final = 3
"""If the time between two polls is longer than usual by this factor, the process was stopped."""
_GIL_SECONDS: Final = 0.0001
"""Rough number of seconds that one image holds the GIL."""
_MIN_WAIT_SECONDS: Final = 0.001
"""Reading that takes less than this does not count as waiting."""
_EXIT_SECONDS: Final = 10.0
"""Seconds that the end of the process waits for abandoned decoders."""
_STALLED_CPU_SECONDS: Final = 0.001
"""A decoder that takes less CPU time than this between two polls is blocked."""


class _Attempt:
    """One image that a thread is working on: whether it is being read or decoded, and for how long.

    CPU time is read only while a batch is waited for, because at that call the kernel may give the core to another
    process, and the thread would hold the GIL meanwhile.

    clock: of the CPU time of its thread, see `_thread_cpu_clock`.
    """

    def __init__(self, clock: int | None) -> None:
        self.decoding = False
        self.returned = False
        """Whether its thread has returned, after the timeout."""
        self._isolated = False
        self._clock = clock
        self._begin = time.monotonic()
        self._cpu: float | None = None
        """CPU seconds of the thread when it was first seen decoding."""
        self._seen_cpu = self._active = 0.0

    def begin_decoding(self, *, isolated: bool) -> None:
        """The image is read. isolated: its decoder has its own limits."""
        self._begin = time.monotonic()
        self._isolated = isolated
        self.decoding = True

    def is_over(self, timeout: float) -> bool:
        """Whether reading or decoding the image has taken too long. Call it at every poll."""
        if self._isolated:
            return False
        now = time.monotonic()
        if not self.decoding or self._clock is None:
            return now - self._begin > timeout
        cpu = self._cpu_seconds(self._clock)
        if self._cpu is None:
            self._cpu, self._seen_cpu, self._active = cpu, cpu, now
        if cpu - self._seen_cpu >= _STALLED_CPU_SECONDS:
            self._seen_cpu, self._active = cpu, now
        return cpu - self._cpu > timeout or now - self._active > timeout

    def _cpu_seconds(self, clock: int) -> float:
        try:
            return time.clock_gettime(clock)
        except OSError:  # the thread has ended
            return self._seen_cpu


def _thread_cpu_clock() -> int | None:
    """The clock of the calling thread's CPU time, for other threads to read; None on macOS, which has none."""
    if not hasattr(time, "pthread_getcpuclockid"):
        return None
    return time.pthread_getcpuclockid(threading.get_ident())


_thread: Final = threading.local()
_abandoned: Final[set[_Attempt]] = set()
"""Abandoned decoders of all loaders that still run in this process."""


def abandoned_decoders() -> int:
    """Number of abandoned decoders that still run. One that ends while Python shuts down may crash Python."""
    return len(_abandoned)


@atexit.register
def _wait_for_abandoned() -> None:
    end = time.monotonic() + _EXIT_SECONDS
    while _abandoned and time.monotonic() < end:
        time.sleep(0.01)


def begin_decoding(*, isolated: bool = False) -> None:
    """Mark the image of the calling thread as read, so that its decoding time begins; no-op outside a loader's threads.

    isolated: the decoder runs in another process, with its own limits.
    """
    attempt: _Attempt | None = getattr(_thread, "attempt", None)
    if attempt is not None:
        attempt.begin_decoding(isolated=isolated)


class _StartedBatch:
    """A batch in progress. Each image is finished once: by its worker, or by a timeout; a later result is dropped."""

    def __init__(self, refs: Sequence[ImageRef], buffer: Pixels, timeout: float) -> None:
        self.refs = refs
        self.buffer = buffer
        self._encoded: dict[int, Encoded] = {}
        self._timeout = timeout
        self._outcomes: list[Outcome | None] = [None] * len(refs)
        self._attempts: list[_Attempt | None] = [None] * len(refs)
        self._missing = len(refs)
        self._bug: BaseException | None = None
        self._lock = threading.Lock()
        self._done = threading.Event()

    def start(self, index: int, clock: int | None) -> _Attempt:
        self._attempts[index] = attempt = _Attempt(clock)
        return attempt

    def finish(self, index: int, outcome: Outcome, picture: Pixels | Encoded | None) -> bool:
        """Store an image. False if it was abandoned before, because the buffer may belong to another batch now."""
        with self._lock:
            if self._outcomes[index] is not None:
                return False
            if isinstance(picture, Encoded):
                self._encoded[index] = picture
            else:
                self.buffer[index] = 0 if picture is None else picture
            self._outcomes[index] = outcome
            self._missing -= 1
            complete = self._missing == 0
        if complete:
            self._outcomes[:] = measured([outcome for outcome in self._outcomes if outcome is not None])
            self._done.set()
        return True

    def break_off(self, bug: BaseException) -> None:
        self._bug = bug
        self._done.set()

    def wait(
        self, on_abandoned: Callable[[_Attempt], None], on_wait: Callable[[], None] | None, poll_seconds: float
    ) -> Batch:
        last, stopped = time.monotonic(), False
        while not self._done.wait(poll_seconds):
            if on_wait:
                on_wait()
            now = time.monotonic()
            last, stopped = now, not stopped and now - last > _STOPPED_FACTOR * poll_seconds
            if stopped:  # the whole process, for example by SIGSTOP: its threads need a moment
                continue
            for index, attempt in enumerate(self._attempts):
                if attempt is not None and self._outcomes[index] is None and attempt.is_over(self._timeout):
                    what = "decoded" if attempt.decoding else "read"
                    error: tuple[ErrorCode, str] = ("timeout", f"not {what} within {self._timeout:g} s")
                    if self.finish(index, Outcome(error=error), None):
                        on_abandoned(attempt)
        if self._bug is not None:
            raise self._bug
        outcomes = [outcome for outcome in self._outcomes if outcome is not None]
        return Batch(self.refs, self.buffer[: len(self.refs)], outcomes, self._encoded)


_Task = tuple[_StartedBatch, int]


class DecodingThreads:
    """Daemon threads, so that one that hangs in a decoder or on a dead mount cannot keep the process alive.

    buffers: uint8 [batch_size, height, width, 3] each. num_workers: by default one per core, and more where reading
    takes longer than decoding. The other parameters are those of BatchLoader.
    """

    def __init__(
        self,
        spec: PreprocessSpec,
        buffers: Sequence[Pixels],
        load: Load,
        load_isolated: Load | None = None,
        *,
        num_workers: int | None = None,
        start_small: bool = False,
        cores: int | None = None,
        timeout: float = 60.0,
        max_hanging: int = MAX_HANGING,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self.buffers = buffers
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._spec = spec
        self._load = load
        self._load_isolated = load_isolated or load
        self._num_workers = num_workers
        self._cores = cores or usable_cores()
        self._timeout = timeout
        self._max_hanging = max_hanging
        self._poll_seconds = poll_seconds
        self._stopping = threading.Event()
        self._count = 0
        self._hanging: set[_Attempt] = set()
        """Attempts that were abandoned while reading and have not returned."""
        self._lock = threading.Lock()
        self._grow(num_workers or (1 if start_small else self._cores))

    def start(self, refs: Sequence[ImageRef], buffer: int) -> _StartedBatch:
        """Load images into a buffer, given by its index."""
        batch = _StartedBatch(refs, self.buffers[buffer], self._timeout)
        for index in range(len(refs)):
            self._tasks.put((batch, index))
        return batch

    def finish(self, batch: _StartedBatch, on_wait: Callable[[], None] | None = None) -> Batch:
        """Wait for a batch. Raises what `load` or `on_wait` raises, and InputError if the storage hangs."""
        finished = batch.wait(self._replace, on_wait, self._poll_seconds)
        if self._num_workers is None:
            self._grow(_enough_workers(finished.outcomes, self._cores))
        return finished

    def stop(self) -> None:
        """Let the threads end. Images that have not begun are not loaded."""
        self._stopping.set()
        for _ in range(self._count):
            self._tasks.put(None)

    def _add(self) -> None:
        self._count += 1
        threading.Thread(target=self._work, name=f"decode-{self._count}", daemon=True).start()

    def _grow(self, count: int) -> None:
        """Start threads until there are at least `count`."""
        while self._count < count:
            self._add()

    def _replace(self, attempt: _Attempt) -> None:
        """Start a thread that replaces the one of an abandoned image. Raises InputError if the storage hangs."""
        with self._lock:
            if not attempt.returned:
                (_abandoned if attempt.decoding else self._hanging).add(attempt)
        if len(self._hanging) >= self._max_hanging:
            raise InputError(
                f"{len(self._hanging)} images hang at once, each past its timeout: their storage does not answer; "
                f"finished parts are kept, run the same command again when it does"
            )
        self._add()

    def _work(self) -> None:
        clock = _thread_cpu_clock()
        while (task := self._tasks.get()) is not None:
            batch, index = task
            if self._stopping.is_set():
                continue
            _thread.attempt = attempt = batch.start(index, clock)
            load = self._load if len(_abandoned) < MAX_ABANDONED else self._load_isolated
            try:
                in_time = batch.finish(index, *load(batch.refs[index], self._spec))
            except BaseException as bug:  # raised again in the thread that waits for the batch
                batch.break_off(bug)
            else:
                if not in_time:  # another thread took over when this image was abandoned
                    with self._lock:
                        attempt.returned = True
                        _abandoned.discard(attempt)
                        self._hanging.discard(attempt)
                    return


def _enough_workers(outcomes: Sequence[Outcome], cores: int) -> int:
    """Number of threads that keep all cores decoding while others wait for images, estimated from the last batch."""
    decoded = [outcome for outcome in outcomes if outcome.error is None and outcome.decode_seconds > 0]
    if not decoded:
        return cores
    decode = max(_GIL_SECONDS, np.median([outcome.decode_seconds for outcome in decoded]))
    read = np.median([outcome.read_seconds for outcome in decoded])
    waits = read / decode if read > _MIN_WAIT_SECONDS else 0.0
    return min(MAX_WORKERS, round(min(cores, decode / _GIL_SECONDS) * (1 + waits)))
