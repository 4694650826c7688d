"""Turn a batch and its probabilities into Arrow rows. Knows nothing of files."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from batchland.loader import Batch
from batchland.model_card import ModelCard
from batchland.schemas import PREDICTIONS, TOP_K_TYPE
from batchland.session import Probabilities


def to_rows(batch: Batch, probabilities: Probabilities | None, card: ModelCard, top_k: int) -> pa.RecordBatch:
    """One row per image of the batch, in its order, of schema PREDICTIONS.

    probabilities: float32 [batch, classes], row i for image i; rows of failed images are not looked at, and None will
    do where all have failed. A row that is not finite becomes a failed one (`model_output`). top_k is capped by the
    number of classes.
    """
    errors = [outcome.error for outcome in batch.outcomes]
    if probabilities is None:
        probabilities = np.zeros((len(errors), len(card.classes)), np.float32)
    finite = np.isfinite(probabilities).all(axis=1)
    errors = [
        error or (None if good else ("model_output", "the model's probabilities are not finite numbers"))
        for error, good in zip(errors, finite.tolist(), strict=True)
    ]
    ok = np.array([error is None for error in errors], dtype=bool)
    indices = best_first(np.where(ok[:, None], probabilities, 0), min(top_k, len(card.classes)))
    chosen = np.take_along_axis(probabilities, indices, axis=1)
    labels = pa.array(card.labels)
    first = pa.array(indices[:, 0].astype(np.int32), mask=~ok)
    columns = {
        "image": pa.array([ref.name for ref in batch.refs]),
        "status": pa.array(["ok" if error is None else "failed" for error in errors]),
        "error_code": pa.array([error and error[0] for error in errors], pa.string()),
        "error_message": pa.array([error and error[1] for error in errors], pa.string()),
        "label": labels.take(first),
        "class_index": first,
        "probability": pa.array(chosen[:, 0], mask=~ok),
        "margin": pa.array(chosen[:, 0] - chosen[:, 1] if chosen.shape[1] > 1 else chosen[:, 0], mask=~ok),
        "top_k": _top_k_lists(indices, chosen, labels, ok),
        "width": pa.array([outcome.width for outcome in batch.outcomes], pa.int32()),
        "height": pa.array([outcome.height for outcome in batch.outcomes], pa.int32()),
        "file_size": pa.array([outcome.file_size for outcome in batch.outcomes], pa.int64()),
        "modified_at": pa.array([outcome.modified_at for outcome in batch.outcomes], pa.timestamp("us", tz="UTC")),
    }
    return pa.RecordBatch.from_pydict(columns, schema=PREDICTIONS)


def best_first(probabilities: Probabilities, k: int) -> npt.NDArray[np.intp]:
    """Class indices of the k largest values of each row, [batch, k], best first; ties by class index."""
    return np.argsort(-probabilities, axis=1, kind="stable")[:, :k]


def _top_k_lists(
    indices: npt.NDArray[np.intp], chosen: Probabilities, labels: pa.Array, ok: npt.NDArray[np.bool_]
) -> pa.ListArray:
    flat = pa.array(indices[ok].ravel().astype(np.int32))
    entries = pa.StructArray.from_arrays(
        [labels.take(flat), flat, pa.array(chosen[ok].ravel())], fields=list(TOP_K_TYPE.value_type)
    )
    ends = np.concatenate([[0], np.cumsum(ok * indices.shape[1])]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(ends), entries, type=TOP_K_TYPE, mask=pa.array(~ok))
