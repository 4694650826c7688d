"""Make Arrow rows from a batch and its probabilities."""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from batchland.errors import ErrorCode
from batchland.images.batch import Batch
from batchland.images.signals import SIGNAL_DTYPE, SIGNALS
from batchland.images.sources.refs import ImageRef
from batchland.models.card import ModelCard
from batchland.models.contract import Features, Probabilities, are_probabilities
from batchland.models.decisions import KnownPhotos, decide, prediction_sets
from batchland.predictions.answers import Answers
from batchland.predictions.schema import (
    LOG_PROBABILITIES_TYPE,
    PREDICTION_SET_TYPE,
    SIGNAL_TYPES,
    TOP_K_TYPE,
    complete_columns,
    full_schema,
    predictions_schema,
)

MAX_KEPT: Final = 1024
"""Largest number of classes for which `auto` keeps all probabilities: about 1.5 kB per image, compressed."""
Keep = Literal["auto", "all", "top"]
_SORT_ALL_BELOW: Final = 8
"""If there are fewer classes than this number times k, sorting all of them is faster than selecting the best k
first."""
_NO_SIGNALS: Final = bytes(SIGNAL_DTYPE.itemsize)


def to_rows(
    batch: Batch,
    probabilities: Probabilities | None,
    card: ModelCard,
    top_k: int,
    keep: Keep = "auto",
    features: Features | None = None,
    distance: npt.NDArray[np.float32] | None = None,
    *,
    keep_features: bool = False,
) -> pa.RecordBatch:
    """One row per image of the batch, in its order, of `predictions_schema`.

    probabilities: float32 [batch, classes], row i for image i. Rows of failed images are ignored; None is allowed if
    all images have failed. If a row does not hold probabilities, the image fails (`model_output`). top_k: at most the
    number of classes is used. keep: which probabilities are kept; `auto` keeps all if there are at most MAX_KEPT
    classes. features: float32 [batch, features]. distance: distance from known photos, float32 [batch, 1].
    """
    errors = [outcome.error for outcome in batch.outcomes]
    if probabilities is None:
        probabilities = np.zeros((len(errors), len(card.classes)), np.float32)
    errors = [
        error or (None if good else ("model_output", "the model's outputs are not probabilities that sum to 1"))
        for error, good in zip(errors, are_probabilities(probabilities), strict=True)
    ]
    ok = np.array([error is None for error in errors], dtype=bool)
    # The margin needs two, whatever top_k is.
    indices = best_first(np.where(ok[:, None], probabilities, 0), min(max(top_k, 2), len(card.classes)))
    best = np.take_along_axis(probabilities, indices, axis=1)
    margin = best[:, 0] - best[:, 1] if best.shape[1] > 1 else best[:, 0]
    indices, chosen = indices[:, :top_k], best[:, :top_k]
    keeps_all = keep == "all" or (keep == "auto" and len(card.classes) <= MAX_KEPT)
    answers = Answers.of(probabilities[ok])
    labels = _encoded(card.labels)
    first = numbers(indices[:, 0], pa.int32(), ok)
    columns = [
        _strings([ref.name for ref in batch.refs]),
        _strings(["ok" if error is None else "failed" for error in errors]),
        _strings([error and error[0] for error in errors]),
        _strings([error and error[1] for error in errors]),
        _labels([labels[index] if good else None for index, good in zip(indices[:, 0].tolist(), ok, strict=True)]),
        first,
        numbers(chosen[:, 0], pa.float32(), ok),
        numbers(margin, pa.float32(), ok),
        _top_k_lists(indices, chosen, labels, ok),
        _facts([outcome.width for outcome in batch.outcomes], pa.int32()),
        _facts([outcome.height for outcome in batch.outcomes], pa.int32()),
        _facts([outcome.file_size for outcome in batch.outcomes], pa.int64()),
        _facts([outcome.modified_us for outcome in batch.outcomes], pa.timestamp("us", tz="UTC")),
        _strings([outcome.sha256 for outcome in batch.outcomes]),
        numbers(_spread(answers.entropy, ok), pa.float32(), ok),
        numbers(_spread(answers.logsumexp, ok), pa.float32(), ok),
        numbers(_spread(answers.top_logit, ok), pa.float32(), ok),
        _lists(answers.log_probabilities, ok if keeps_all else np.zeros_like(ok)),
        _decisions(card, probabilities, ok),
        _prediction_sets(card, labels, probabilities, ok),
        *_signals([outcome.signals for outcome in batch.outcomes]),
    ]
    positions = [ref.position for ref in batch.refs]
    schema = predictions_schema(card, features=keep_features, positions=None not in positions)
    if card.known:
        columns.append(_known(card.known, distance, ok))
    if keep_features:
        columns.append(_vectors(features, schema.field("features").type, ok))
    if None not in positions:
        columns.append(_facts(positions, pa.int64()))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def rows_for(rows: pa.RecordBatch, refs: Sequence[ImageRef], modified_us: Sequence[int | None]) -> pa.RecordBatch:
    """Copies of rows for other files with the same content: with the names, times and positions of those files."""
    of_files = {
        "image": _strings([ref.name for ref in refs]),
        "modified_at": _facts(modified_us, pa.timestamp("us", tz="UTC")),
    }
    positions = [ref.position for ref in refs]
    if None not in positions:
        of_files["position"] = _facts(positions, pa.int64())
    schema = full_schema(rows.schema, positions=None not in positions)
    columns = [of_files[name] if name in of_files else rows.column(name) for name in schema.names]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def failed_row(ref: ImageRef, code: ErrorCode, message: str, like: pa.Schema) -> pa.RecordBatch:
    """The row of an image that was not read. like: the schema of other rows of the run."""
    schema = full_schema(like, positions=ref.position is not None)
    facts = {"image": ref.name, "status": "failed", "error_code": code, "error_message": message}
    known = pa.RecordBatch.from_arrays([_strings([value]) for value in facts.values()], names=list(facts))
    if ref.position is not None:
        known = known.append_column("position", _facts([ref.position], pa.int64()))
    return complete_columns(known, schema)


def _decisions(card: ModelCard, probabilities: Probabilities, ok: npt.NDArray[np.bool_]) -> pa.Array:
    found: list[str | None] = [None] * len(ok)
    if card.decision:
        rows = np.flatnonzero(ok).tolist()
        for row, decision in zip(rows, decide(card.decision, card.labels, probabilities[ok]), strict=True):
            found[row] = decision
    return _strings(found)


def _prediction_sets(
    card: ModelCard, labels: Sequence[bytes], probabilities: Probabilities, ok: npt.NDArray[np.bool_]
) -> pa.ListArray:
    sets = prediction_sets(card.prediction_sets, probabilities[ok]) if card.prediction_sets else []
    valid = ok if card.prediction_sets else np.zeros_like(ok)
    sizes = np.zeros(len(ok), np.int64)
    sizes[valid] = [len(each) for each in sets]
    flat = _labels([labels[index] for each in sets for index in each.tolist()])
    ends = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    kind = PREDICTION_SET_TYPE
    return pa.ListArray.from_buffers(kind, len(ok), [_validity(valid), pa.py_buffer(ends)], children=[flat])


def best_first(probabilities: Probabilities, k: int) -> npt.NDArray[np.intp]:
    """Class indices of the k largest values of each row, [batch, k], best first; ties by class index."""
    classes = probabilities.shape[1]
    if classes < _SORT_ALL_BELOW * k:
        return np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    largest = np.sort(np.argpartition(probabilities, classes - k, axis=1)[:, classes - k :], axis=1)
    values = np.take_along_axis(probabilities, largest, axis=1)
    indices = np.take_along_axis(largest, np.argsort(-values, axis=1, kind="stable"), axis=1)
    tied = (probabilities >= values.min(axis=1, keepdims=True)).sum(axis=1) != k  # also where values are NaN
    indices[tied] = np.argsort(-probabilities[tied], axis=1, kind="stable")[:, :k]
    return indices


@lru_cache(maxsize=4)
def _encoded(labels: tuple[str, ...]) -> tuple[bytes, ...]:
    return tuple(label.encode() for label in labels)


def _top_k_lists(
    indices: npt.NDArray[np.intp], chosen: Probabilities, labels: Sequence[bytes], ok: npt.NDArray[np.bool_]
) -> pa.ListArray:
    flat = indices[ok].ravel()
    entries = pa.StructArray.from_arrays(
        [
            _labels([labels[index] for index in flat.tolist()]),  # `take` would import pyarrow.compute
            numbers(flat, pa.int32()),
            numbers(chosen[ok].ravel(), pa.float32()),
        ],
        fields=list(TOP_K_TYPE.value_type),
    )
    return _list_array(TOP_K_TYPE, entries, indices.shape[1], ok)


def _lists(values: Probabilities, kept: npt.NDArray[np.bool_]) -> pa.ListArray:
    """Lists of half floats: the next row of `values` [n, classes] where `kept`, else null."""
    values = values[: kept.sum()]
    return _list_array(LOG_PROBABILITIES_TYPE, numbers(values.ravel(), pa.float16()), values.shape[1], kept)


def _known(rule: KnownPhotos, distance: npt.NDArray[np.float32] | None, ok: npt.NDArray[np.bool_]) -> pa.Array:
    found = np.full(len(ok), np.nan, np.float32) if distance is None else distance[:, 0]
    valid = ok & np.isfinite(found)
    return numbers(rule.share_as_far(np.where(valid, found, 0)), pa.float32(), valid)


def _vectors(features: Features | None, kind: pa.FixedSizeListType, ok: npt.NDArray[np.bool_]) -> pa.Array:
    """Lists of half floats of one length, null where not ok or not finite."""
    if features is None:
        features = np.zeros((len(ok), kind.list_size), np.float32)
    valid = ok & np.isfinite(features).all(axis=1)
    entries = numbers(np.where(valid[:, None], features, 0).ravel(), pa.float16())
    return pa.FixedSizeListArray.from_buffers(kind, len(ok), [_validity(valid)], children=[entries])


def _list_array(kind: pa.DataType, entries: pa.Array, length: int, valid: npt.NDArray[np.bool_]) -> pa.ListArray:
    ends = np.concatenate([[0], np.cumsum(valid * length)]).astype(np.int32)
    buffers = [_validity(valid), pa.py_buffer(ends)]
    return pa.ListArray.from_buffers(kind, len(valid), buffers, null_count=int((~valid).sum()), children=[entries])


def _signals(rows: Sequence[bytes | None]) -> Iterator[pa.Array]:
    """The columns of SIGNALS, null for images without signals."""
    measured = _validity(_present(rows))
    values = np.frombuffer(b"".join([row or _NO_SIGNALS for row in rows]), SIGNAL_DTYPE)
    for signal in SIGNALS:
        kind, stored = SIGNAL_TYPES[signal.dtype], np.ascontiguousarray(values[signal.name])
        yield pa.Array.from_buffers(kind, len(rows), [measured, pa.py_buffer(stored.view(np.uint8))])


def _spread(values: Probabilities, ok: npt.NDArray[np.bool_]) -> Probabilities:
    """The values at the rows that are ok; 0 elsewhere."""
    spread = np.zeros(len(ok), np.float32)
    spread[ok] = values
    return spread


# Arrays are made from buffers, because the first `pyarrow.array` of a process imports pandas, which takes 0.5 s.


def numbers(values: npt.NDArray[Any], kind: pa.DataType, valid: npt.NDArray[np.bool_] | None = None) -> pa.Array:
    """An Arrow array of numbers; null where they are not valid."""
    stored = np.ascontiguousarray(values, f"{'f' if pa.types.is_floating(kind) else 'i'}{kind.bit_width // 8}")
    return pa.Array.from_buffers(kind, len(stored), [_validity(valid), pa.py_buffer(stored)])


def _facts(values: Sequence[int | None], kind: pa.DataType) -> pa.Array:
    return numbers(np.array([value or 0 for value in values], np.int64), kind, _present(values))


def _strings(values: Sequence[str | None]) -> pa.Array:
    """A column of texts."""
    present = _present(values)
    if present is not None and not present.any():
        return pa.nulls(len(values), pa.string())
    texts = [value or "" for value in values]
    joined = "".join(texts)
    if joined.isascii():
        return _text_array(joined.encode(), map(len, texts), present)
    encoded = [text.encode() for text in texts]
    return _text_array(b"".join(encoded), map(len, encoded), present)


def _labels(values: Sequence[bytes | None]) -> pa.Array:
    """A column of texts that are UTF-8 already."""
    texts = [value or b"" for value in values]
    return _text_array(b"".join(texts), map(len, texts), _present(values))


def _text_array(data: bytes, lengths: Iterable[int], present: npt.NDArray[np.bool_] | None) -> pa.Array:
    ends = np.array([0, *lengths], np.int32).cumsum(dtype=np.int32)
    return pa.Array.from_buffers(
        pa.string(), len(ends) - 1, [_validity(present), pa.py_buffer(ends), pa.py_buffer(data)]
    )


def _present(values: Sequence[object]) -> npt.NDArray[np.bool_] | None:
    """Which values are not None; None if all are."""
    return np.array([value is not None for value in values], dtype=bool) if None in values else None


def _validity(valid: npt.NDArray[np.bool_] | None) -> pa.Buffer | None:
    """The buffer that marks valid values; None if all are."""
    return None if valid is None or valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))
