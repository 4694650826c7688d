"""Predictions and labels put together, block by block: the columns that all figures are computed from."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from batchland.errors import UsageError
from batchland.evaluation.intervals import Floats, Ints
from batchland.evaluation.matching import MATCHES
from batchland.evaluation.schema import OUTCOMES
from batchland.models.card import ClassName
from batchland.models.contract import TOLERANCE
from batchland.predictions.reader import StoredPredictions, predictions_info
from batchland.predictions.schema import FIRST_COLUMNS, PredictionsInfo, own_schema
from batchland.system.arrow import is_plain

_COLUMNS: Final = (
    "image", "status", "error_code", "class_index", "probability", "margin",
    "top_k.list.element.class_index", "top_k.list.element.probability",
    "width", "height", "file_size",
)  # fmt: skip
_AT_ONCE: Final = 2**22
"""Probabilities that are converted at once."""
_FACTS: Final = ("width", "height", "file_size", "decision", "sha256")
LATER: Final = ("log_probabilities", "decision", "sha256", "known")
"""Columns that not all predictions have."""


class Predictions(NamedTuple):
    """A predictions file or folder, to be read block by block."""

    source: str
    stored: StoredPredictions
    info: PredictionsInfo
    own: pa.Schema
    """Further columns, copied from the image list."""
    later: tuple[str, ...]
    """Columns of LATER that exist; predictions of earlier versions do not have them."""

    def names(self) -> Iterator[pa.Array]:
        """The images' names in order."""
        return (batch["image"] for batch in self.stored.rows(["image"]))

    def scored(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Some columns of the scored images, in order."""
        for batch in self.stored.rows([*columns, "status"]):
            yield self._checked(batch).filter(pc.equal(batch["status"], "ok")).select(list(columns))

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The columns needed here."""
        return map(self._checked, self.stored.rows([*_COLUMNS, *self.own.names, *self.later]))

    def _checked(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Raise UsageError if a probability is not from 0 to 1, which batchland never writes."""
        names = batch.schema.names
        found = [batch["probability"].drop_null().to_numpy()] if "probability" in names else []
        if "top_k" in names:
            found.append(pc.struct_field(batch["top_k"].flatten(), "probability").to_numpy(zero_copy_only=False))
        valid = all(((each >= -TOLERANCE) & (each <= 1 + TOLERANCE)).all() for each in found)
        if "log_probabilities" in names:
            logs = batch["log_probabilities"].flatten().to_numpy(zero_copy_only=False)
            valid &= not (logs.view(np.uint16) & 0x7FFF > 0x7C00).any()  # NaN; faster than isnan for float16
        if not valid:
            raise UsageError(f"{self.source}: has probabilities that are not from 0 to 1; score the images again")
        return batch


@dataclass(frozen=True)
class Outcomes:
    """Consecutive images with a label and a predictions row, in the predictions' order; all arrays of that length."""

    rows: Ints
    """Rows of the predictions, from 0."""
    images: pa.Array
    error_codes: pa.Array
    """Null where the image was scored."""
    facts: pa.RecordBatch
    """width, height, file_size, decision, sha256."""
    own: pa.RecordBatch
    """The own columns of predictions and labels."""
    ok: npt.NDArray[np.bool_]
    truth: Ints
    """True class index."""
    predicted: Ints
    """First choice; -1 where failed."""
    probability: npt.NDArray[np.float32]
    """Probability of the first choice. NaN for failed images, as in margin, true_probability and squares."""
    margin: npt.NDArray[np.float32]
    true_rank: Ints
    """Rank of the true class among the choices kept, from 1; 0 beyond them and where failed."""
    true_probability: npt.NDArray[np.float32]
    """NaN where it is not known."""
    squares: Floats
    """Sum of the squared probabilities of all classes; of the choices kept, if the others are not known."""
    complete: npt.NDArray[np.bool_]
    """Whether the probabilities of all classes are known."""
    choices: npt.NDArray[np.float32]
    """Probabilities of the choices kept, best first, [images, kept]; 0 where failed."""
    chosen: Ints
    """Class indices of the choices kept, [images, kept]; 0 where failed."""
    has_all: npt.NDArray[np.bool_]
    """Whether `log_probabilities` has a row for the image."""
    log_probabilities: npt.NDArray[np.float16]
    """Logarithms of the probabilities of all classes, [images with has_all, classes]."""
    known: npt.NDArray[np.float32] | None = None
    """Similarity to known photos, 0 to 1; NaN for failed images. None if the predictions have no such column."""

    @property
    def kept(self) -> int:
        """Choices that every scored image has."""
        return int(self.choices.shape[1])

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """Whether the first choice is the true class; false where failed."""
        return self.predicted == self.truth

    def to_table(self, classes: tuple[ClassName, ...]) -> pa.Table:
        """The rows of `outcomes.parquet`."""
        labels = pa.array([name.label for name in classes], pa.string())
        truth = pa.array(self.truth.astype(np.int32))
        predicted = pa.array(self.predicted.astype(np.int32), mask=~self.ok)
        columns = {
            "image": self.images,
            "status": pc.if_else(pa.array(self.ok), "ok", "failed"),
            "error_code": self.error_codes,
            "true_index": truth,
            "true_label": labels.take(truth),
            "predicted_index": predicted,
            "predicted_label": labels.take(predicted),
            "correct": pa.array(self.right, mask=~self.ok),
            "probability": pa.array(self.probability, mask=~self.ok),
            "margin": pa.array(self.margin, mask=~self.ok),
            "true_rank": pa.array(self.true_rank.astype(np.int32), mask=self.true_rank == 0),
            "true_probability": pa.array(self.true_probability, mask=np.isnan(self.true_probability)),
        } | {name: self.facts[name] for name in _FACTS}
        table = pa.table(columns, schema=OUTCOMES)
        for name, column in zip(self.own.schema.names, self.own.columns, strict=True):
            table = table.append_column(name, column)
        return table


def read_predictions(location: str | os.PathLike[str]) -> Predictions:
    """Open a predictions file, or a folder of parts with its manifest, at a path or URL. Raises UsageError."""
    stored = StoredPredictions(location)
    source = stored.name
    if stored.kind is None:
        raise UsageError(f"{source}: does not exist; give predictions that `batchland score` wrote")
    if stored.kind == "folder" and stored.manifest() is None:
        unfinished = "holds no _manifest.json, so no finished run of `batchland score`; run it again to finish it"
        raise UsageError(f"{source}: {stored.several() or unfinished}")
    schema = stored.schema(stored.parts()[0])
    if missing := [name for name in FIRST_COLUMNS if name not in schema.names]:
        what = f"no column {missing[0]!r}"
        raise UsageError(f"{source}: not a predictions file ({what}); give predictions that `batchland score` wrote")
    own = [field for field in own_schema(schema) if field.name not in OUTCOMES.names and is_plain(field.type)]
    later = tuple(name for name in LATER if name in schema.names)
    return Predictions(source, stored, predictions_info(schema, source), pa.schema(own), later)


def outcomes(predictions: Predictions, matches: Iterator[pa.RecordBatch], own: pa.Schema) -> Iterator[Outcomes]:
    """Put predictions and matches together. matches: as in Matches; own: the labels' own columns among them."""
    schema = pa.schema([*MATCHES, *own])
    pending = schema.empty_table().combine_chunks()
    start = 0
    for batch in predictions.batches():
        end = start + len(batch)
        while not pending.num_rows or pending["row"][-1].as_py() < end - 1:
            further = next(matches, None)
            if further is None:
                break
            pending = pa.concat_tables([pending, pa.Table.from_batches([further], schema)])
        rows = pending["row"].to_numpy()
        cut = int(np.searchsorted(rows, end))
        if cut:
            taken = pending[:cut].combine_chunks()
            at = rows[:cut] - start
            if cut < len(batch):
                batch = batch.take(pa.array(at))
            yield _outcomes(batch, taken, predictions.own, own, len(predictions.info.classes))
            pending = pending[cut:]
        start = end


def _outcomes(batch: pa.RecordBatch, matches: pa.Table, own: pa.Schema, label_own: pa.Schema, classes: int) -> Outcomes:
    truth = matches["class_index"].to_numpy().astype(np.int64)
    ok = pc.equal(batch["status"], "ok").to_numpy(zero_copy_only=False)
    top_k = batch["top_k"]
    lengths = pc.fill_null(pc.list_value_length(top_k), 0).to_numpy().astype(np.int64)
    flat = top_k.flatten()
    kept = int(lengths[ok].min()) if ok.any() else 0
    index = pc.struct_field(flat, "class_index").to_numpy()
    probability = pc.struct_field(flat, "probability").to_numpy()
    starts = np.cumsum(lengths) - lengths
    longest = int(lengths.max(initial=0))
    # All choices as a matrix: rows that have fewer get index -1 and probability 0 at their ends.
    if longest and (lengths[ok] == longest).all() and len(flat) == ok.sum() * longest:
        rows = np.cumsum(ok) - 1  # those of failed images are replaced below
        chosen = index.reshape(-1, longest).take(rows, axis=0).astype(np.int64)
        choices = probability.reshape(-1, longest).take(rows, axis=0)
        chosen[~ok], choices[~ok] = -1, 0
    else:
        chosen, choices = np.full((len(ok), longest), -1, np.int64), np.zeros((len(ok), longest), np.float32)
        at = np.repeat(np.arange(len(ok)), lengths), np.arange(len(flat)) - np.repeat(starts, lengths)
        chosen[at], choices[at] = index, probability
    hits = chosen == truth[:, None]
    rank, true_probability = np.zeros(len(ok), np.int64), np.full(len(ok), np.nan, np.float32)
    if longest:
        place, row = hits.argmax(axis=1), np.arange(len(ok))
        found = hits[row, place]
        rank[found] = place[found] + 1
        true_probability[found] = choices[row, place][found]
    squares = np.einsum("ij,ij->i", choices, choices, dtype=np.float64)
    has_all, logs = _log_probabilities(batch, classes)
    complete = lengths == classes
    if not complete[has_all].all():
        _add_all_classes(np.flatnonzero(has_all), logs, truth, true_probability, squares)
    return Outcomes(
        rows=matches["row"].to_numpy(),
        images=batch["image"],
        error_codes=batch["error_code"],
        facts=_facts(batch),
        own=_own_columns(batch, matches, own, label_own),
        ok=ok,
        truth=truth,
        predicted=pc.fill_null(batch["class_index"], -1).to_numpy().astype(np.int64),
        probability=_floats(batch["probability"]),
        margin=_floats(batch["margin"]),
        true_rank=rank,
        true_probability=true_probability,
        squares=np.where(ok, squares, np.nan),
        complete=complete | has_all,
        choices=np.ascontiguousarray(choices[:, :kept]),
        chosen=np.ascontiguousarray(chosen[:, :kept]),
        has_all=has_all,
        log_probabilities=logs,
        known=_floats(batch["known"]) if "known" in batch.schema.names else None,
    )


def _log_probabilities(batch: pa.RecordBatch, classes: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float16]]:
    """Which rows have the logarithms of all probabilities, and these, [rows with them, classes]."""
    if "log_probabilities" not in batch.schema.names:
        return np.zeros(len(batch), bool), np.zeros((0, classes), np.float16)
    column = batch["log_probabilities"]
    lengths = np.diff(column.offsets.to_numpy())
    found = column.is_valid().to_numpy(zero_copy_only=False) & (lengths == classes)
    if lengths[~found].any():
        column = column.filter(pa.array(found))
    ends = column.offsets.to_numpy()
    return found, column.values.to_numpy()[ends[0] : ends[-1]].reshape(-1, classes)


def _add_all_classes(
    rows: Ints, logs: npt.NDArray[np.float16], truth: Ints, true_probability: npt.NDArray[np.float32], squares: Floats
) -> None:
    """Complete some rows from the logarithms of all probabilities, [rows, classes]."""
    true = np.exp(logs[np.arange(len(rows)), truth[rows]].astype(np.float32))
    known = true_probability[rows]
    true_probability[rows] = np.where(np.isnan(known), true, known)
    size = max(_AT_ONCE // logs.shape[1], 1)
    for start in range(0, len(rows), size):
        probabilities = np.exp(logs[start : start + size].astype(np.float32))
        squares[rows[start : start + size]] = np.einsum("ij,ij->i", probabilities, probabilities)


def _facts(batch: pa.RecordBatch) -> pa.RecordBatch:
    names = batch.schema.names
    columns = {name: batch[name] if name in names else pa.nulls(len(batch), pa.string()) for name in _FACTS}
    return pa.RecordBatch.from_pydict(columns)


def _own_columns(batch: pa.RecordBatch, matches: pa.Table, own: pa.Schema, label_own: pa.Schema) -> pa.RecordBatch:
    """An empty text, as of an empty cell of a CSV file, becomes null."""
    columns = {name: batch[name] for name in own.names if name not in label_own.names}
    columns |= {name: matches[name].combine_chunks() for name in label_own.names}
    for name, column in columns.items():
        if column.type == pa.string():
            columns[name] = pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)
    return pa.RecordBatch.from_pydict(columns) if columns else batch.select([])


def _floats(column: pa.Array) -> npt.NDArray[np.float32]:
    return pc.fill_null(column, float("nan")).to_numpy()
