"""Read and decode images ahead of the model, in order, like a DataLoader that uses threads.

Image decoders release the GIL, so threads use all cores and share one set of buffers.
"""

import atexit
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from functools import partial
from statistics import median
from types import MappingProxyType
from typing import Final, NamedTuple

import numpy as np

from batchland.errors import ErrorCode, ImageError, InputError
from batchland.images.encoded_jpegs import Encoded, keep_encoded
from batchland.images.preprocess import Pixels, PreprocessSpec, decode, fit
from batchland.images.signals import SIGNAL_DTYPE, measure
from batchland.images.sources.refs import ImageRef, read_image
from batchland.system.cores import usable_cores

MAX_HANGING: Final = 64
"""The storage counts as unavailable if this many threads wait for an image for longer than the timeout."""
MAX_ABANDONED: Final = 2
"""From this number of decoders on that were given up and still run (each uses a core and memory for a picture), other
images are decoded in subprocesses, which can be killed."""
MAX_WORKERS: Final = 64
"""Most threads that the loader starts by itself. `num_workers` may be larger."""
_GIL_SECONDS: Final = 0.0001
"""Seconds, roughly, that one image holds the GIL, so that other threads cannot work."""
_MIN_WAIT_SECONDS: Final = 0.001
"""Reading that takes less than this does not count as waiting."""
_POLL_SECONDS: Final = 0.5
_EXIT_SECONDS: Final = 10.0
"""How long the end of the process waits for decoders that were given up."""
_STALLED_CPU_SECONDS: Final = 0.001
"""A decoder that takes less CPU time than this between two polls does not run: it is blocked."""
_END: Final = object()


class Outcome(NamedTuple):
    """The result of loading one image: its facts, as far as known, and the error if it failed."""

    width: int | None = None
    height: int | None = None
    """Pixels of the upright picture at full size."""
    file_size: int | None = None
    """Bytes."""
    modified_us: int | None = None
    """Modification time, microseconds since 1970, UTC."""
    sha256: str | None = None
    """Of the file's content, hexadecimal."""
    signals: bytes | None = None
    """Figures about the picture: one row of SIGNAL_DTYPE."""
    error: tuple[ErrorCode, str] | None = None
    read_seconds: float = 0.0
    decode_seconds: float = 0.0


class Batch(NamedTuple):
    """Consecutive images of the listing. Row i of `pixels` belongs to `refs[i]` and `outcomes[i]`.

    A failed image keeps its row, filled with zeros, so that rows never shift. An image that is still encoded keeps its
    row, too; its content is undefined.
    """

    refs: Sequence[ImageRef]
    pixels: Pixels
    """uint8 [batch, height, width, 3]; valid until the next batch is requested."""
    outcomes: Sequence[Outcome]
    encoded: Mapping[int, Encoded] = MappingProxyType({})
    """Row to the JPEG that a GPU will decode."""

    @property
    def failed(self) -> int:
        """Number of images without pixels."""
        return sum(outcome.error is not None for outcome in self.outcomes)


class BatchLoader:
    """Iterate over `images` as batches, in order, decoding ahead with threads.

    images: a None among them ends the batch early.
    batch_size: images per batch; the last batch may be shorter.
    num_workers: decoding threads; by default one per usable core, and more if reading takes longer than decoding
        (network mounts, object stores).
    prefetch_factor: batches prepared ahead, shared by all workers (torch's DataLoader counts per worker). Memory is
        (prefetch_factor + held + 1) batches of pixels, whatever the number of images.
    timeout: seconds that an image may be waited for, and CPU seconds that it may take to decode, before it fails as
        `timeout` and its thread is replaced. CPU seconds, so that no image fails because others keep the cores busy.
    held: number of earlier batches that stay valid when the next one is requested.
    on_wait: called every `poll_seconds` while waiting for a batch; may raise.
    load: turns one image into pixels; by default `load_image`.
    load_isolated: the same with limits that it keeps by itself, used while MAX_ABANDONED decoders still run.
    start_small: begin with one thread, for a `load` that keeps most images encoded.
    cores: that the threads can use; by default `usable_cores()`.
    max_hanging: images that hang at once before the storage counts as unavailable.
    poll_seconds: time between two checks for images that take too long.
    """

    def __init__(
        self,
        images: Iterable[ImageRef | None],
        spec: PreprocessSpec,
        batch_size: int = 32,
        num_workers: int | None = None,
        prefetch_factor: int = 2,
        timeout: float = 60.0,
        *,
        held: int = 0,
        on_wait: Callable[[], None] | None = None,
        load: "Load | None" = None,
        load_isolated: "Load | None" = None,
        start_small: bool = False,
        cores: int | None = None,
        max_hanging: int = MAX_HANGING,
        poll_seconds: float = _POLL_SECONDS,
    ) -> None:
        self.images = images
        self.spec = spec
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.prefetch_factor = prefetch_factor
        self.timeout = timeout
        self.held = held
        self.on_wait = on_wait
        self.load = load or load_image
        self.load_isolated = load_isolated or self.load
        self.start_small = start_small
        self.cores = cores
        self.max_hanging = max_hanging
        self.poll_seconds = poll_seconds

    def __iter__(self) -> Generator[Batch]:
        """Batches in order. Raises what the iterable of images raises, and InputError if the storage hangs."""
        images = iter(self.images)
        tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        cores = self.cores or usable_cores()
        count = self.num_workers or (1 if self.start_small else cores)
        workers = _Workers(tasks, self.spec, count, self.load, self.load_isolated, self.max_hanging)
        buffers = self.prefetch_factor + self.held + 1
        free = [np.zeros((self.batch_size, *self.spec.shape), np.uint8) for _ in range(buffers)]
        pending: deque[_PendingBatch] = deque()
        held: deque[Pixels] = deque()
        exhausted = False
        try:
            while pending or not exhausted:
                while free and not exhausted:
                    refs = next_refs(images, self.batch_size)
                    exhausted = not refs
                    if refs:
                        task = _PendingBatch(refs, free.pop(), self.timeout)
                        pending.append(task)
                        for index in range(len(refs)):
                            tasks.put((task, index))
                if pending:
                    task = pending.popleft()
                    batch = task.wait(workers.replace, self.on_wait, self.poll_seconds)
                    if self.num_workers is None:
                        workers.grow(_enough_workers(batch.outcomes, cores))
                    yield batch
                    held.append(task.buffer)
                    if len(held) > self.held:
                        free.append(held.popleft())
        finally:
            workers.stop()


def _enough_workers(outcomes: Sequence[Outcome], cores: int) -> int:
    """Threads that keep all cores decoding while others wait for their images, going by a batch just loaded."""
    decoded = [outcome for outcome in outcomes if outcome.error is None and outcome.decode_seconds > 0]
    if not decoded:
        return cores
    decode = max(_GIL_SECONDS, median(outcome.decode_seconds for outcome in decoded))
    read = median(outcome.read_seconds for outcome in decoded)
    waits = read / decode if read > _MIN_WAIT_SECONDS else 0.0
    return min(MAX_WORKERS, round(min(cores, decode / _GIL_SECONDS) * (1 + waits)))


def next_refs(images: Iterator[ImageRef | None], count: int) -> list[ImageRef]:
    """The next batch of at most `count` images; a None ends it. Empty only at the end of `images`."""
    refs: list[ImageRef] = []
    while len(refs) < count:
        ref = next(images, _END)
        if isinstance(ref, ImageRef):
            refs.append(ref)
        elif refs or ref is _END:
            break
    return refs


class _Attempt:
    """One image that a thread is working on: whether it is being read or decoded, and for how long."""

    def __init__(self) -> None:
        self.decoding = False
        self.returned = False
        """Whether its thread has returned, after the timeout."""
        self._isolated = False
        self._clock = _thread_cpu_clock()
        self._begin = self._active = time.monotonic()
        self._cpu = self._seen_cpu = 0.0

    def begin_decoding(self, *, isolated: bool) -> None:
        """The image is read. isolated: its decoder has its own limits."""
        self._begin = self._active = time.monotonic()
        self._cpu = self._seen_cpu = self._cpu_seconds()
        self._isolated = isolated
        self.decoding = True

    def is_over(self, timeout: float) -> bool:
        """Whether the image was waited for, or decoded, for too long. To be asked at every poll."""
        if self._isolated:
            return False
        now = time.monotonic()
        if not self.decoding or self._clock is None:
            return now - self._begin > timeout
        cpu = self._cpu_seconds()
        if cpu - self._seen_cpu >= _STALLED_CPU_SECONDS:
            self._seen_cpu, self._active = cpu, now
        return cpu - self._cpu > timeout or now - self._active > timeout

    def _cpu_seconds(self) -> float:
        try:
            return time.clock_gettime(self._clock) if self._clock is not None else 0.0
        except OSError:  # the thread has ended
            return self._seen_cpu


def _thread_cpu_clock() -> int | None:
    """The clock of the calling thread's CPU time, for other threads to read; None on macOS, which has none."""
    if not hasattr(time, "pthread_getcpuclockid"):
        return None
    return time.pthread_getcpuclockid(threading.get_ident())


_thread: Final = threading.local()
_abandoned: Final[set[_Attempt]] = set()
"""Decoders that were given up and still run in this process, whichever loader started them."""


def abandoned_decoders() -> int:
    """Number of decoders that were given up and still run. One that ends while Python shuts down may crash Python."""
    return len(_abandoned)


@atexit.register
def _wait_for_abandoned() -> None:
    end = time.monotonic() + _EXIT_SECONDS
    while _abandoned and time.monotonic() < end:
        time.sleep(0.01)


def begin_decoding(*, isolated: bool = False) -> None:
    """Tell the loader, if the calling thread is one of its workers, that an image is read and its decoder begins.

    isolated: the decoder runs in another process, with its own limits.
    """
    attempt: _Attempt | None = getattr(_thread, "attempt", None)
    if attempt is not None:
        attempt.begin_decoding(isolated=isolated)


class _PendingBatch:
    """A batch in progress. Workers hand in each image once; after a timeout, a late one is dropped."""

    def __init__(self, refs: list[ImageRef], buffer: Pixels, timeout: float) -> None:
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

    def start(self, index: int) -> _Attempt:
        self._attempts[index] = attempt = _Attempt()
        return attempt

    def finish(self, index: int, outcome: Outcome, picture: Pixels | Encoded | None) -> bool:
        """Hand in an image. False if it had been given up: the buffer may belong to another batch now."""
        with self._lock:
            if self._outcomes[index] is not None:
                return False
            if isinstance(picture, Encoded):
                self._encoded[index] = picture
            else:
                self.buffer[index] = 0 if picture is None else picture
            self._outcomes[index] = outcome
            self._missing -= 1
            if self._missing == 0:
                self._done.set()
            return True

    def break_off(self, bug: BaseException) -> None:
        self._bug = bug
        self._done.set()

    def wait(
        self, on_abandoned: Callable[[_Attempt], None], on_wait: Callable[[], None] | None, poll_seconds: float
    ) -> Batch:
        while not self._done.wait(poll_seconds):
            if on_wait:
                on_wait()
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


Loaded = tuple[Outcome, Pixels | Encoded | None]
"""An image's outcome, and its picture unless it failed: uint8 [spec.height, spec.width, 3], or what a GPU decodes."""
Load = Callable[[ImageRef, PreprocessSpec], Loaded]
Decode = Callable[[bytes, PreprocessSpec], Loaded]
_Task = tuple[_PendingBatch, int]


class _Workers:
    """Daemon threads, so that one that hangs in a decoder or on a dead mount cannot keep the process alive."""

    def __init__(
        self,
        tasks: "queue.SimpleQueue[_Task | None]",
        spec: PreprocessSpec,
        count: int,
        load: Load,
        load_isolated: Load,
        max_hanging: int,
    ) -> None:
        self._tasks = tasks
        self._spec = spec
        self._load = load
        self._load_isolated = load_isolated
        self._max_hanging = max_hanging
        self._stopping = threading.Event()
        self._count = 0
        self._hanging: set[_Attempt] = set()
        """Attempts that were given up while reading and have not returned."""
        self._lock = threading.Lock()
        for _ in range(count):
            self.add()

    def add(self) -> None:
        self._count += 1
        threading.Thread(target=self._work, name=f"decode-{self._count}", daemon=True).start()

    def grow(self, count: int) -> None:
        """Start threads until there are at least `count`."""
        while self._count < count:
            self.add()

    def replace(self, attempt: _Attempt) -> None:
        """Start another thread in place of one whose image was given up. Raises InputError if the storage hangs."""
        with self._lock:
            if not attempt.returned:
                (_abandoned if attempt.decoding else self._hanging).add(attempt)
        if len(self._hanging) >= self._max_hanging:
            raise InputError(
                f"{len(self._hanging)} images hang at once, each past its timeout: their storage does not answer; "
                f"finished parts are kept, run the same command again when it does"
            )
        self.add()

    def stop(self) -> None:
        self._stopping.set()
        for _ in range(self._count):
            self._tasks.put(None)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            batch, index = task
            if self._stopping.is_set():
                continue
            _thread.attempt = attempt = batch.start(index)
            load = self._load if len(_abandoned) < MAX_ABANDONED else self._load_isolated
            try:
                in_time = batch.finish(index, *load(batch.refs[index], self._spec))
            except BaseException as bug:  # raised again in the thread that waits for the batch
                batch.break_off(bug)
            else:
                if not in_time:  # another thread took over when this image was given up
                    with self._lock:
                        attempt.returned = True
                        _abandoned.discard(attempt)
                        self._hanging.discard(attempt)
                    return


def decode_image(data: bytes, spec: PreprocessSpec, *, signals: bool = False) -> tuple[Outcome, Pixels | None]:
    """Decode and fit one image's content: its outcome, and uint8 [spec.height, spec.width, 3] unless it failed.

    signals: also measure the picture.
    """
    begin = time.perf_counter()
    try:
        decoded = decode(data, spec)
        pixels = fit(decoded.pixels, spec)
        measured = np.array([measure(decoded.pixels)], SIGNAL_DTYPE).tobytes() if signals else None
    except ImageError as error:
        return Outcome(error=(error.code, str(error)), decode_seconds=time.perf_counter() - begin), None
    seconds = time.perf_counter() - begin
    return Outcome(decoded.width, decoded.height, signals=measured, decode_seconds=seconds), pixels


def keep_jpegs_encoded(data: bytes, spec: PreprocessSpec, *, checked: bool, signals: bool = False) -> Loaded:
    """As `decode_image`, but for JPEGs that a GPU may decode, `checked` or not (see `keep_encoded`): no signals."""
    begin = time.perf_counter()
    jpeg = keep_encoded(data, spec, checked=checked)
    if jpeg is None:
        return decode_image(data, spec, signals=signals)
    width, height = jpeg.upright_size
    return Outcome(width, height, decode_seconds=time.perf_counter() - begin), jpeg


def load_image(ref: ImageRef, spec: PreprocessSpec, decoding: Decode = decode_image) -> Loaded:
    """Read one image, decode and fit it."""
    begin = time.perf_counter()
    try:
        file = read_image(ref)
    except ImageError as error:
        return Outcome(error=(error.code, str(error)), read_seconds=time.perf_counter() - begin), None
    read_seconds = time.perf_counter() - begin
    begin_decoding()
    outcome, picture = decoding(file.data, spec)
    return outcome._replace(**file.facts(), read_seconds=read_seconds), picture


def load_measured(ref: ImageRef, spec: PreprocessSpec) -> Loaded:
    """`load_image` that also measures the picture."""
    return load_image(ref, spec, partial(decode_image, signals=True))
