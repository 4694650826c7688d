"""Read and decode images ahead of the model, in order, like a DataLoader with threads and, if wanted, processes."""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any, Final, Protocol, cast

import numpy as np

from batchland.errors import ImageError
from batchland.images.batch import Batch, Decode, Load, Loaded, Outcome
from batchland.images.decoding_threads import MAX_HANGING, POLL_SECONDS, DecodingThreads, begin_decoding
from batchland.images.encoded_jpegs import keep_encoded
from batchland.images.preprocess import Pixels, PreprocessSpec, decode, fit
from batchland.images.signals import sample
from batchland.images.sources.refs import ImageRef, read_image

_END: Final = object()


class Decoders(Protocol):
    """The interface of DecodingThreads and DecodingProcesses, which load batches into buffers."""

    @property
    def buffers(self) -> Sequence[Pixels]:
        """uint8 [batch_size, height, width, 3] each."""

    def start(self, refs: Sequence[ImageRef], buffer: int) -> Any:
        """Load images into a buffer, given by its index."""

    def finish(self, batch: Any, on_wait: Callable[[], None] | None = None) -> Batch:
        """Wait for a batch that `start` returned. Raises what `on_wait` raises."""

    def stop(self) -> None:
        """End the threads or processes."""


class LaterDecoders(Decoders, Protocol):
    """Decoders that take over from the threads of this process."""

    def take_over(self, images: int) -> bool:
        """Whether they load all further batches. images: number of images so far."""


@dataclass(eq=False)
class BatchLoader:
    """Iterate over `images` as batches, in order, decoding ahead with threads.

    images: a None among them ends the batch early.
    batch_size: images per batch; the last batch may be shorter.
    num_workers: decoding threads; by default one per usable core, and more if reading takes longer than decoding
        (network mounts, object stores).
    prefetch_factor: batches prepared ahead, shared by all workers (torch's DataLoader counts per worker). Memory is
        (prefetch_factor + held + 1) batches of pixels, for any number of images.
    timeout: seconds of waiting for an image, or CPU seconds of decoding it, after which it fails as `timeout` and its
        thread is replaced. CPU seconds do not pass while other work keeps the cores busy.
    held: number of earlier batches that stay valid when the next one is requested.
    on_wait: called every `poll_seconds` while waiting for a batch; may raise.
    load: turns one image into pixels; by default `load_image`.
    load_isolated: the same with its own limits, used while MAX_ABANDONED abandoned decoders still run.
    later: decoders that take over from the threads; they end with the loader.
    start_small: begin with one thread, for a `load` that keeps most images encoded.
    cores: that the threads can use; by default `usable_cores()`.
    max_hanging: images that hang at once before the storage counts as unavailable.
    poll_seconds: time between two checks for images that take too long.
    """

    images: Iterable[ImageRef | None]
    spec: PreprocessSpec
    batch_size: int = 32
    num_workers: int | None = None
    prefetch_factor: int = 2
    timeout: float = 60.0
    _: KW_ONLY
    held: int = 0
    on_wait: Callable[[], None] | None = None
    load: Load | None = None
    load_isolated: Load | None = None
    later: LaterDecoders | None = None
    start_small: bool = False
    cores: int | None = None
    max_hanging: int = MAX_HANGING
    poll_seconds: float = POLL_SECONDS

    def __iter__(self) -> Generator[Batch]:
        """Batches in order. Raises what the iterable of images raises, and InputError if the storage hangs."""
        images = iter(self.images)
        threads = None if self._later_takes_over(0) else self._threads()
        decoders: Decoders = threads or cast("Decoders", self.later)
        free = list(range(len(decoders.buffers)))
        pending: deque[tuple[Decoders, int, Any]] = deque()
        held: deque[tuple[Decoders, int]] = deque()
        count, exhausted = 0, False
        try:
            while pending or not exhausted:
                if decoders is threads and self._later_takes_over(count):
                    decoders = cast("Decoders", self.later)
                    free = list(range(len(decoders.buffers)))
                while free and not exhausted:
                    refs = next_refs(images, self.batch_size)
                    count += len(refs)
                    exhausted = not refs
                    if refs:
                        buffer = free.pop()
                        pending.append((decoders, buffer, decoders.start(refs, buffer)))
                if pending:
                    owner, buffer, started = pending.popleft()
                    yield owner.finish(started, self.on_wait)
                    held.append((owner, buffer))
                    if len(held) > self.held:
                        owner, buffer = held.popleft()
                        if owner is decoders:
                            free.append(buffer)
        finally:
            for each in (threads, self.later):
                if each is not None:
                    each.stop()

    def _later_takes_over(self, images: int) -> bool:
        return self.later is not None and self.later.take_over(images)

    def _threads(self) -> DecodingThreads:
        count = self.prefetch_factor + self.held + 1
        return DecodingThreads(
            self.spec,
            [np.zeros((self.batch_size, *self.spec.shape), np.uint8) for _ in range(count)],
            self.load or load_image,
            self.load_isolated,
            num_workers=self.num_workers,
            start_small=self.start_small,
            cores=self.cores,
            timeout=self.timeout,
            max_hanging=self.max_hanging,
            poll_seconds=self.poll_seconds,
        )


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


def decode_image(data: bytes, spec: PreprocessSpec, *, signals: bool = False) -> tuple[Outcome, Pixels | None]:
    """Decode and fit one image's content: its outcome, and uint8 [spec.height, spec.width, 3] unless it failed.

    signals: also take a sample of the picture, for `measured`.
    """
    begin = time.perf_counter()
    try:
        decoded = decode(data, spec, reuse=True)
        pixels = fit(decoded.pixels, spec)
        sampled = sample(decoded.pixels) if signals else None
    except ImageError as error:
        return Outcome(error=(error.code, str(error)), decode_seconds=time.perf_counter() - begin), None
    seconds = time.perf_counter() - begin
    return Outcome(decoded.width, decoded.height, sample=sampled, decode_seconds=seconds), pixels


def keep_jpegs_encoded(data: bytes, spec: PreprocessSpec, *, checked: bool, signals: bool = False) -> Loaded:
    """As `decode_image`, but leaves JPEGs encoded if a GPU may decode them; these have no signals. See
    `keep_encoded`."""
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
