"""Turn a batch and its probabilities into Arrow rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from batchland.images.loader import Batch
from batchland.models.card import ModelCard
from batchland.models.contract import Probabilities, are_probabilities
from batchland.predictions.schema import PREDICTIONS, SHARD_PREDICTIONS, TOP_K_TYPE


def to_rows(batch: Batch, probabilities: Probabilities | None, card: ModelCard, top_k: int) -> pa.RecordBatch:
    """One row per image of the batch, in its order, of schema PREDICTIONS; of SHARD_PREDICTIONS if they have positions.

    probabilities: float32 [batch, classes], row i for image i; rows of failed images are not looked at, and None will
    do where all have failed. A row without probabilities becomes a failed one (`model_output`). top_k is capped by
    the number of classes.
    """
    errors = [outcome.error for outcome in batch.outcomes]
    if probabilities is None:
        probabilities = np.zeros((len(errors), len(card.classes)), np.float32)
    errors = [
        error or (None if good else ("model_output", "the model's outputs are not probabilities that sum to 1"))
        for error, good in zip(errors, are_probabilities(probabilities), strict=True)
    ]
    ok = np.array([error is None for error in errors], dtype=bool)
    indices = best_first(np.where(ok[:, None], probabilities, 0), min(top_k, len(card.classes)))
    chosen = np.take_along_axis(probabilities, indices, axis=1)
    margin = chosen[:, 0] - chosen[:, 1] if chosen.shape[1] > 1 else chosen[:, 0]
    labels = _strings(card.labels)
    first = _numbers(indices[:, 0], pa.int32(), ok)
    columns = [
        _strings([ref.name for ref in batch.refs]),
        _strings(["ok" if error is None else "failed" for error in errors]),
        _strings([error and error[0] for error in errors]),
        _strings([error and error[1] for error in errors]),
        labels.take(first),
        first,
        _numbers(chosen[:, 0], pa.float32(), ok),
        _numbers(margin, pa.float32(), ok),
        _top_k_lists(indices, chosen, labels, ok),
        _facts([outcome.width for outcome in batch.outcomes], pa.int32()),
        _facts([outcome.height for outcome in batch.outcomes], pa.int32()),
        _facts([outcome.file_size for outcome in batch.outcomes], pa.int64()),
        _facts([outcome.modified_us for outcome in batch.outcomes], pa.timestamp("us", tz="UTC")),
    ]
    positions = [ref.position for ref in batch.refs]
    if None in positions:
        return pa.RecordBatch.from_arrays(columns, schema=PREDICTIONS)
    return pa.RecordBatch.from_arrays([*columns, _facts(positions, pa.int64())], schema=SHARD_PREDICTIONS)


def best_first(probabilities: Probabilities, k: int) -> npt.NDArray[np.intp]:
    """Class indices of the k largest values of each row, [batch, k], best first; ties by class index."""
    return np.argsort(-probabilities, axis=1, kind="stable")[:, :k]


def _top_k_lists(
    indices: npt.NDArray[np.intp], chosen: Probabilities, labels: pa.Array, ok: npt.NDArray[np.bool_]
) -> pa.ListArray:
    flat = _numbers(indices[ok].ravel(), pa.int32())
    entries = pa.StructArray.from_arrays(
        [labels.take(flat), flat, _numbers(chosen[ok].ravel(), pa.float32())], fields=list(TOP_K_TYPE.value_type)
    )
    ends = np.concatenate([[0], np.cumsum(ok * indices.shape[1])]).astype(np.int32)
    return pa.ListArray.from_buffers(
        TOP_K_TYPE, len(ok), [_validity(ok), pa.py_buffer(ends)], null_count=int((~ok).sum()), children=[entries]
    )


# Arrays are put together from buffers, because the first `pyarrow.array` of a process imports pandas: half a second.


def _numbers(values: npt.NDArray[Any], kind: pa.DataType, valid: npt.NDArray[np.bool_] | None = None) -> pa.Array:
    stored = np.ascontiguousarray(values, f"{'f' if pa.types.is_floating(kind) else 'i'}{kind.bit_width // 8}")
    return pa.Array.from_buffers(kind, len(stored), [None if valid is None else _validity(valid), pa.py_buffer(stored)])


def _facts(values: Sequence[int | None], kind: pa.DataType) -> pa.Array:
    valid = np.array([value is not None for value in values], dtype=bool)
    return _numbers(np.array([value or 0 for value in values], np.int64), kind, valid)


def _strings(values: Sequence[str | None]) -> pa.Array:
    valid = np.array([value is not None for value in values], dtype=bool)
    encoded = [(value or "").encode() for value in values]
    ends = np.concatenate([[0], np.cumsum([len(text) for text in encoded])]).astype(np.int32)
    buffers = [_validity(valid), pa.py_buffer(ends), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.string(), len(values), buffers)


def _validity(valid: npt.NDArray[np.bool_]) -> pa.Buffer | None:
    return None if valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))
