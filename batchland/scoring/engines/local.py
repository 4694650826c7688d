"""The local engine: threads that decode, and one session, in this process."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from math import ceil
from pathlib import Path
from typing import Final, Self

from batchland.errors import UsageError
from batchland.images.batch import Batch, Decode
from batchland.images.crash_guard import CrashGuard
from batchland.images.decoding_processes import (
    IMAGES_BEFORE_START,
    DecodingProcesses,
    automatic_processes,
    can_share_memory,
)
from batchland.images.loader import BatchLoader, decode_image, keep_jpegs_encoded
from batchland.images.sources.refs import ImageRef
from batchland.models.session import ModelContent, open_session
from batchland.scoring.engines.engine import Scored, score_batch
from batchland.scoring.options import MAX_CPU_CALLS, ScoreOptions
from batchland.system.cores import require_memory, usable_cores
from batchland.system.memory import keep_freed_memory

MIN_MEMORY: Final = 256 << 20
"""Bytes that must be free before a session is opened: threads, buffers and a small model."""


class LocalEngine:
    """Decoding threads and one session in this process.

    On a CPU several batches are in the model at once, each with few threads of onnxruntime: in a call with many
    threads, each waits for the others at every layer, and longer while decoding threads use their cores.

    cores: to divide among calls and decoding threads; by default `usable_cores()`. content: of the model, if it does
    not come from that file.

    Raises ModelError or DeviceError if the model cannot be opened.
    """

    def __init__(
        self, model: Path, options: ScoreOptions, *, cores: int | None = None, content: ModelContent | None = None
    ) -> None:
        require_memory(MIN_MEMORY)
        keep_freed_memory()
        self._cores = cores = cores or usable_cores()
        threads = options.threads_per_call(cores)
        self.model = open_session(
            model,
            options.device,
            intra_op_threads=threads,
            batch_size=options.batch_size,
            decode=options.decode,
            content=content,
            keep_copy=True,
            features=options.features,
        )
        on_cpu = self.model.device == "cpu"
        self._calls = min(MAX_CPU_CALLS, ceil(cores / threads)) if on_cpu else self.model.calls_at_once
        self._options = options

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.model.close()

    def score(
        self,
        images: Iterable[ImageRef | None],
        notes_dir: Path,
        on_wait: Callable[[], None],
        *,
        top_k: int | None = None,
    ) -> Generator[Scored, None, None]:
        """Batches of `images`, scored, in order. A None among the images ends the batch.

        notes_dir: a folder of the unfinished run, for notes from one run to the next; os.devnull for none. on_wait: is
        called about twice a second while a batch is waited for, and may raise. A bounded number of images is taken
        ahead. top_k: instead of that of the options.

        Raises ModelError if onnxruntime fails, InputError if the storage does not answer, UsageError if processes
        cannot decode here.
        """
        signals = self._options.signals
        decoding: Decode = partial(decode_image, signals=signals)
        if self.model.decoder:
            decoding = partial(keep_jpegs_encoded, checked=not self.model.decoder_is_strict, signals=signals)
        with CrashGuard(notes_dir, self._options.timeout, decoding, signals=signals) as guard:
            loader = BatchLoader(
                images,
                self.model.card.preprocess,
                self._options.batch_size,
                self._options.num_workers,
                self._options.prefetch_factor,
                self._options.timeout,
                held=self._calls,
                on_wait=on_wait,
                load=guard.load,
                load_isolated=guard.load_isolated,
                later=self._processes(guard),
                start_small=self.model.decoder is not None,
                cores=self._cores,
            )
            with closing(iter(loader)) as batches:
                options = self._options if top_k is None else self._options.model_copy(update={"top_k": top_k})
                yield from self._scored(batches, guard, options)

    def _processes(self, guard: CrashGuard) -> DecodingProcesses | None:
        """Processes that decode instead of threads; None for threads. Raises UsageError if they cannot be used here."""
        options = self._options
        given = options.decode_processes
        if given and not can_share_memory():
            raise UsageError("decode_processes needs Linux; leave it out: the threads of one process decode")
        if given and self.model.decoder is not None:
            raise UsageError("decode_processes and decode cuda exclude each other: a GPU decodes for one process")
        count = automatic_processes(self._cores) if given is None else given
        if not count or self.model.decoder is not None:
            return None
        return DecodingProcesses(
            count,
            guard,
            self.model.card.preprocess,
            options.batch_size,
            timeout=options.timeout,
            num_workers=options.num_workers,
            cores=self._cores,
            prefetch_factor=options.prefetch_factor,
            held=self._calls,
            images_before_start=IMAGES_BEFORE_START if given is None else 0,
        )

    def _scored(self, batches: Iterable[Batch], guard: CrashGuard, options: ScoreOptions) -> Iterator[Scored]:
        def score(batch: Batch) -> Scored:
            with guard.noted(batch.refs[row] for row in batch.encoded):
                return score_batch(batch, self.model, options)

        in_progress: deque[Future[Scored]] = deque()
        pool = ThreadPoolExecutor(self._calls, "infer")
        try:
            for batch in batches:
                only = not in_progress and len(batch.refs) < options.batch_size and self.model.device == "cpu"
                for share in batch.shares(self._calls) if only else (batch,):
                    in_progress.append(pool.submit(score, share))
                    if len(in_progress) > self._calls:
                        yield in_progress.popleft().result()
            while in_progress:
                yield in_progress.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
