"""How images become rows: what every engine promises, and the local one, threads and a session in this process.

Knows nothing of listings, parts or outputs: whatever the engine, scoring.py gives it images and writes its rows.
"""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, Self

import pyarrow as pa

from batchland.images.crash_guard import CrashGuard
from batchland.images.encoded_jpegs import JpegRows
from batchland.images.loader import Batch, BatchLoader, Decode, decode_image, keep_jpegs_encoded
from batchland.images.preprocess import Pixels
from batchland.images.sources.refs import ImageRef
from batchland.models.session import OpenModel, Session, open_session
from batchland.predictions.rows import to_rows
from batchland.system.cores import usable_cores

if TYPE_CHECKING:
    from batchland.scoring.options import ScoreOptions


class Scored(NamedTuple):
    """The rows of one batch, and the seconds that went into them, summed over workers."""

    rows: pa.RecordBatch
    """Of schema PREDICTIONS."""
    read_seconds: float
    decode_seconds: float
    infer_seconds: float
    decoded_on_gpu: int = 0
    """Number of images."""

    @property
    def failed(self) -> int:
        """Number of failed rows."""
        failed: int = self.rows.num_rows - self.rows.column("error_code").null_count
        return failed


class Engine(Protocol):
    """Context that turns images into their rows. The rows do not depend on which engine it is."""

    @property
    def model(self) -> OpenModel:
        """The model, and where it runs. Known within the context."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...

    def score(
        self, images: Iterable[ImageRef | None], folder: Path, on_wait: Callable[[], None]
    ) -> Generator[Scored, None, None]:
        """Batches of `images`, in order, scored; a None among the images ends the batch.

        folder: of the unfinished run, for what one run tells the next. on_wait: is called about twice a second while
        a batch is waited for, and may raise. Images are asked for as they are needed, a bounded number ahead.
        """


MOST_CALLS: Final = 4
"""Calls of the model at once on a CPU: each takes memory for the activations of its batch."""


class LocalEngine:
    """Threads that decode, and one session in this process.

    On a CPU several batches are in the model at once, each with few threads of onnxruntime: a call with many threads
    makes each of them wait for the others at every layer, and decoding threads come in between.

    Raises ModelError or DeviceError if the model cannot be opened.
    """

    def __init__(self, model: Path, options: "ScoreOptions") -> None:
        cores = usable_cores()
        threads = options.intra_op_threads or ceil(cores / MOST_CALLS)
        self.model = open_session(
            model,
            options.device,
            intra_op_threads=threads,
            batch_size=options.batch_size,
            decode=options.decode,
        )
        on_cpu = self.model.device == "cpu"
        self._calls = min(MOST_CALLS, ceil(cores / threads)) if on_cpu else self.model.calls_at_once
        self._options = options

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.model.close()

    def score(
        self, images: Iterable[ImageRef | None], folder: Path, on_wait: Callable[[], None]
    ) -> Generator[Scored, None, None]:
        """As `Engine.score`. Raises ModelError if onnxruntime fails, InputError if the storage seems to be gone."""
        decoding: Decode = decode_image
        if self.model.decoder:
            decoding = partial(keep_jpegs_encoded, checked=not self.model.decoder_is_strict)
        with CrashGuard(folder, self._options.timeout, decoding) as suspects:
            loader = BatchLoader(
                images,
                self.model.card.preprocess,
                self._options.batch_size,
                self._options.num_workers,
                self._options.prefetch_factor,
                self._options.timeout,
                held=self._calls,
                on_wait=on_wait,
                load=suspects.load,
                start_small=self.model.decoder is not None,
            )
            with closing(iter(loader)) as batches:
                yield from self._scored(batches, suspects)

    def _scored(self, batches: Iterable[Batch], suspects: CrashGuard) -> Iterator[Scored]:
        def score(batch: Batch) -> Scored:
            with suspects.noted(batch.refs[row] for row in batch.encoded):
                return score_batch(batch, self.model, self._options.top_k)

        under_way: deque[Future[Scored]] = deque()
        pool = ThreadPoolExecutor(self._calls, "infer")
        try:
            for batch in batches:
                under_way.append(pool.submit(score, batch))
                if len(under_way) > self._calls:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def score_batch(batch: Batch, session: Session, top_k: int) -> Scored:
    """Rows of a batch, timed; a batch without a single picture is not shown to the model."""
    outcomes = list(batch.outcomes)
    decoded_here = []

    def decode_on_cpu(row: int) -> Pixels | None:
        outcome, pixels = decode_image(batch.encoded[row].data, session.card.preprocess)
        facts = outcomes[row]
        outcomes[row] = outcome._replace(
            file_size=facts.file_size, modified_us=facts.modified_us, read_seconds=facts.read_seconds
        )
        decoded_here.append(row)
        return pixels

    begin = time.perf_counter()
    probabilities = None
    if batch.failed < len(batch.refs):
        probabilities = session.predict(batch.pixels, JpegRows(batch.encoded, decode_on_cpu))
    infer_seconds = time.perf_counter() - begin
    return Scored(
        to_rows(batch._replace(outcomes=outcomes), probabilities, session.card, top_k),
        sum(outcome.read_seconds for outcome in outcomes),
        sum(outcome.decode_seconds for outcome in outcomes),
        infer_seconds,
        len(batch.encoded.keys() - decoded_here),
    )
