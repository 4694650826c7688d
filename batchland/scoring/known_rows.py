"""Rows of earlier predictions by the content of their image, for files that are delivered again.

A row is known if it was made by the same model with the same options and package versions: then it is, apart from the
file's name and time, the row that a run would compute for the same content.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from batchland.errors import UsageError
from batchland.models.session import OpenModel
from batchland.predictions.layout import differences
from batchland.predictions.reader import StoredPredictions
from batchland.predictions.rows import numbers
from batchland.predictions.schema import predictions_schema
from batchland.predictions.storage import output_location
from batchland.scoring.manifest import row_fingerprint, stored_row_fingerprint
from batchland.scoring.options import ScoreOptions
from batchland.system.files import open_new

_HASH_BYTES: Final = 32
_log = logging.getLogger("batchland")


def reusable_predictions(options: ScoreOptions, model: OpenModel) -> list[StoredPredictions]:
    """Those predictions of `options.reuse` with the rows that this run would compute; a warning names the others.

    Raises UsageError if there is nothing at a location, or a file without predictions.
    """
    wanted = row_fingerprint(options, model)
    columns = predictions_schema(model.card, features=options.features).names
    usable = []
    for location in options.reuse:
        stored = StoredPredictions(output_location(location))
        if stored.kind is None:
            raise UsageError(f"{stored.name}: there are no predictions to reuse")
        if stored.kind == "file":
            stored.info()
        if problem := _problem(stored, model, wanted, columns):
            _log.warning("%s: no row is reused from it: %s", stored.name, problem)
        else:
            usable.append(stored)
    return usable


def _problem(stored: StoredPredictions, model: OpenModel, wanted: dict[str, Any], columns: Sequence[str]) -> str | None:
    try:
        manifest = stored.manifest()
        if manifest is None:
            return "it has no manifest, so it is not complete"
        if names := sorted(differences(wanted, stored_row_fingerprint(manifest))):
            of_same = "model" in names and manifest.model.features_sha256 == model.features_sha256
            which = ", which has the same features but other classes, thresholds or known photos" if of_same else ""
            return f"it differs in {', '.join(names)}{which}"
        for file in manifest.files:
            if stored.sha256(file.path) != file.sha256:
                return f"{file.path} does not have the sha256 of its manifest"
            if not set(columns) <= set(stored.schema(file.path).names):
                return "it has not all columns"
    except UsageError as error:
        return str(error)
    return None


class KnownRows:
    """The good rows of predictions, in a memory-mapped file; only the hashes are held in memory, 40 bytes a row.

    path: where that file is written. schema: of the rows.
    """

    def __init__(self, predictions: Sequence[StoredPredictions], path: Path, schema: pa.Schema) -> None:
        digests: list[bytes] = []
        ends = [0]
        path.unlink(missing_ok=True)
        with open_new(path) as file, pa.ipc.new_file(file, schema) as writer:
            for rows in _good_rows(predictions, schema):
                writer.write_batch(rows)
                digests += map(bytes.fromhex, rows.column("sha256").to_pylist())
                ends.append(len(digests))
        self._rows = pa.ipc.open_file(pa.memory_map(str(path)))
        self._ends = np.array(ends)
        hashes = np.frombuffer(b"".join(digests), f"S{_HASH_BYTES}")
        self._order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._order]

    def __len__(self) -> int:
        return len(self._hashes)

    def find(self, sha256: str) -> int | None:
        """Number of a row of an image with this content; None if there is none."""
        wanted = np.frombuffer(bytes.fromhex(sha256), f"S{_HASH_BYTES}")[0]
        position = int(np.searchsorted(self._hashes, wanted))
        return int(self._order[position]) if position < len(self._hashes) and self._hashes[position] == wanted else None

    def take(self, found: Sequence[int]) -> pa.RecordBatch:
        """Rows by their numbers, in that order."""
        wanted = np.array(found)
        blocks = np.searchsorted(self._ends, wanted, "right") - 1
        parts, positions = [], []
        for block in np.unique(blocks):
            position = np.flatnonzero(blocks == block)
            inside = numbers(wanted[position] - self._ends[block], pa.int64())
            parts.append(self._rows.get_batch(int(block)).take(inside))
            positions.append(position)
        rows = pa.Table.from_batches(parts).combine_chunks().to_batches()[0]
        return rows.take(numbers(np.argsort(np.concatenate(positions)), pa.int64()))


def _good_rows(predictions: Sequence[StoredPredictions], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for stored in predictions:
        for part in stored.parts():
            for rows in stored.batches(part, schema.names):
                found = zip(rows.column("sha256").to_pylist(), rows.column("error_code").to_pylist(), strict=True)
                good = np.array([digest is not None and code is None for digest, code in found])
                if good.any():
                    kept = rows.take(numbers(np.flatnonzero(good), pa.int64()))
                    yield pa.RecordBatch.from_arrays(kept.columns, schema=schema)
