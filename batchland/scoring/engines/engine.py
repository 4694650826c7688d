"""What the engines share. All engines give the same rows."""

import time
from collections.abc import Iterable
from operator import add
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from batchland.errors import ModelError
from batchland.images.batch import Batch, measured
from batchland.images.encoded_jpegs import JpegRows
from batchland.images.loader import decode_image
from batchland.images.preprocess import Pixels
from batchland.models.session import Session
from batchland.predictions.parts import Entry, PartSummary
from batchland.predictions.rows import to_rows
from batchland.scoring.options import ScoreSettings


class Work(NamedTuple):
    """Seconds spent on images, summed over threads, and the number of images decoded on a GPU."""

    read_seconds: float = 0.0
    decode_seconds: float = 0.0
    infer_seconds: float = 0.0
    decoded_on_gpu: int = 0

    def plus(self, other: "Work") -> "Work":
        """The sum of both."""
        return Work(*map(add, self, other))


class Scored(NamedTuple):
    """The rows of one batch, and the work that they took."""

    rows: pa.RecordBatch
    """A batch of `predictions_schema`."""
    work: Work

    @property
    def failed(self) -> int:
        """Number of failed rows."""
        return self.rows.num_rows - self.rows.column("error_code").null_count


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
    """A part that another process has scored and written, and its work since the one before it."""

    summary: PartSummary
    work: Work


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
        Work(
            sum(outcome.read_seconds for outcome in outcomes),
            sum(outcome.decode_seconds for outcome in outcomes),
            infer_seconds,
            len(batch.encoded.keys() - decoded_on_cpu),
        ),
    )
