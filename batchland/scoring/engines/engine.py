"""The interface of engines, and code that they share. All engines give the same rows."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import NamedTuple, Protocol, Self

import pyarrow as pa

from batchland.errors import ModelError
from batchland.images.batch import Batch, measured
from batchland.images.encoded_jpegs import JpegRows
from batchland.images.loader import decode_image
from batchland.images.preprocess import Pixels
from batchland.images.sources.refs import ImageRef
from batchland.models.session import OpenModel, Session
from batchland.predictions.parts import Entry, PartSpec, PartSummary
from batchland.predictions.rows import to_rows
from batchland.predictions.schema import WrittenFile
from batchland.scoring.options import ScoreSettings


class Scored(NamedTuple):
    """The rows of one batch, and the seconds spent on them, summed over workers."""

    rows: pa.RecordBatch
    """A batch of `predictions_schema`."""
    read_seconds: float
    decode_seconds: float
    infer_seconds: float
    decoded_on_gpu: int = 0
    """Number of images."""

    @property
    def failed(self) -> int:
        """Number of failed rows."""
        return self.rows.num_rows - self.rows.column("error_code").null_count


class Engine(Protocol):
    """Context that turns images into rows."""

    @property
    def model(self) -> OpenModel:
        """The model, and where it runs. Known within the context."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...

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
        """


class Part(NamedTuple):
    """A part of a listing, for another process to score."""

    number: int
    """Index of the part."""
    entries: Iterable[Entry]
    """The entries in order. They can be iterated more than once, and pickled."""
    isolated: bool = False
    """Decode its images in subprocesses, because a process died while it had this part."""
    losses: int = 0
    """Workers that were lost while they had it."""


class ScoredPart(NamedTuple):
    """A part that another process has scored and written, and the seconds spent since the one before it."""

    summary: PartSummary
    read_seconds: float
    decode_seconds: float
    infer_seconds: float
    decoded_on_gpu: int
    """Number of images."""


class PartEngine(ABC):
    """Context whose workers score whole parts and write them."""

    model: OpenModel
    """The model, and where it runs. Known within the context."""

    @abstractmethod
    def __enter__(self) -> Self: ...

    @abstractmethod
    def __exit__(self, *exc: object) -> None: ...

    @abstractmethod
    def score_parts(
        self, parts: Iterable[tuple[int, Iterable[Entry]]], location: Path | str, spec: PartSpec
    ) -> Generator[ScoredPart | None, None, None]:
        """Parts that are scored and written to the output at `location`, in any order; a None about twice a second.

        A bounded number of parts is taken ahead.
        """

    @property
    @abstractmethod
    def unfinished(self) -> tuple[int, int]:
        """Images scored in parts that are not finished, and failed ones among them, about a second ago."""

    @abstractmethod
    def stop(self) -> tuple[list[ScoredPart], int]:
        """Let the workers write the rows scored so far, and stop.

        Returns the parts finished since `score_parts` gave the last one, and the number of images in unfinished parts.
        """

    @abstractmethod
    def write_files(self, schema: pa.Schema, parts: list[PartSummary]) -> list[WrittenFile]:
        """Write the files of a folder of parts, in order. schema: with the output's metadata."""


def require_probabilities(scored: Scored, model: Path) -> None:
    """Raise ModelError if no row of the first batch of a run has probabilities."""
    codes = set(scored.rows.column("error_code").to_pylist())
    if "model_output" in codes and None not in codes:
        raise ModelError(
            f"{model}: its outputs for the first batch are not probabilities that sum to 1, not for one image; export "
            f"or adopt the model again"
        )


def score_batch(batch: Batch, session: Session, options: ScoreSettings) -> Scored:
    """Rows of a batch. The model is not called if all images have failed."""
    outcomes = list(batch.outcomes)
    decoded_on_cpu = []

    def decode_on_cpu(row: int) -> Pixels | None:
        """Decode on the CPU a JPEG that the GPU cannot decode."""
        outcome, pixels = decode_image(batch.encoded[row].data, session.card.preprocess, signals=options.signals)
        facts = outcomes[row]
        outcomes[row] = outcome._replace(
            file_size=facts.file_size,
            modified_us=facts.modified_us,
            sha256=facts.sha256,
            read_seconds=facts.read_seconds,
        )
        decoded_on_cpu.append(row)
        return pixels

    begin = time.perf_counter()
    probabilities = features = distance = None
    if batch.failed < len(batch.refs):
        probabilities, features, distance = session.answer(batch.pixels, JpegRows(batch.encoded, decode_on_cpu))
    infer_seconds = time.perf_counter() - begin
    return Scored(
        to_rows(
            batch._replace(outcomes=measured(outcomes)),
            probabilities,
            session.card,
            options.top_k,
            options.probabilities,
            features,
            distance,
            keep_features=options.features,
        ),
        sum(outcome.read_seconds for outcome in outcomes),
        sum(outcome.decode_seconds for outcome in outcomes),
        infer_seconds,
        len(batch.encoded.keys() - decoded_on_cpu),
    )
