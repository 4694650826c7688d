"""Made-up predictions and labels of any size, written block by block: `python -m benchmarks.evaluation_rows --help`.

The model is 80% accurate, its probabilities are calibrated, names look like those of a photo archive.
"""

import argparse
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batchland.models.card import class_names
from batchland.predictions.schema import (
    FIRST_COLUMNS,
    METADATA_KEY,
    PREDICTIONS,
    TOP_K_TYPE,
    Counts,
    ModelInfo,
    PredictionsInfo,
)

BLOCK = 1 << 17


def write(
    predictions: Path,
    labels: Path,
    rows: int,
    classes: int,
    *,
    top_k: int = 5,
    failed_every: int = 1000,
    own: bool = False,
    seed: int = 0,
) -> None:
    """Write `predictions` (a Parquet file) and `labels` (Parquet, in another order of blocks).

    own: the labels have the columns `camera`, with 40 values, and `site`, with 25. seed: of the answers; labels and
    names are the same for all.
    """
    names = class_names([f"{index:05d}.class_{index:05d}" for index in range(classes)])
    failed = len(range(0, rows, failed_every))
    info = PredictionsInfo(
        run_id="made-up",
        model=ModelInfo(name="made-up", architecture="made-up", sha256="ab" * 32, file="models/made-up.onnx"),
        classes=names,
        images="/photos",
        device="cpu",
        provider="CPUExecutionProvider",
        batch_size=32,
        top_k=top_k,
        counts=Counts(listed=rows, ok=rows - failed, failed=failed, failed_by_code={"truncated": failed}),
        versions={},
    )
    schema = pa.schema([PREDICTIONS.field(name) for name in FIRST_COLUMNS]).with_metadata(
        {METADATA_KEY: info.model_dump_json().encode()}
    )
    label_texts, folders = pa.array([name.label for name in names]), pa.array([name.folder for name in names])
    columns = [(name, pa.string()) for name in ("image", "label", *(("camera", "site") if own else ()))]
    label_schema = pa.schema(columns)
    with (
        pq.ParquetWriter(predictions, schema, compression="zstd") as out,
        pq.ParquetWriter(labels, label_schema, compression="zstd") as truths,
    ):
        for start in range(0, rows, BLOCK):
            block = _block(start, min(BLOCK, rows - start), classes, top_k, failed_every, label_texts, seed)
            out.write_table(pa.table(block[0], schema=schema))
        for start in reversed(range(0, rows, BLOCK)):
            size = min(BLOCK, rows - start)
            truth, order = _truth(start, size, classes), np.random.default_rng(start + 2).permutation(size)
            table = [_names(start, size).take(pa.array(order)), folders.take(pa.array(truth[order]))]
            if own:
                rng = np.random.default_rng(start + 3)
                table += [
                    pa.array([f"{name}-{number}" for number in range(values)]).take(
                        pa.array(rng.integers(0, values, size))
                    )
                    for name, values in (("camera", 40), ("site", 25))
                ]
            truths.write_table(pa.table(table, label_schema))


def _names(start: int, size: int) -> pa.Array:
    return pa.array([f"{row // 10_000:05d}/IMG_{row:09d}.jpg" for row in range(start, start + size)])


def _truth(start: int, size: int, classes: int) -> np.ndarray:
    return np.random.default_rng(start).integers(0, classes, size)


def _block(
    start: int, size: int, classes: int, top_k: int, failed_every: int, labels: pa.Array, seed: int
) -> tuple[dict[str, pa.Array], np.ndarray]:
    rng, truth = np.random.default_rng((start + 1, seed) if seed else start + 1), _truth(start, size, classes)
    first = rng.beta(4, 1, size) * (1 - 1 / classes) + 1 / classes
    chosen = (truth[:, None] + rng.integers(1, max(classes // top_k, 2), (size, top_k)).cumsum(axis=1)) % classes
    right = rng.random(size) < first
    place = np.where(right, 0, rng.integers(1, top_k + 1, size))
    hit = np.flatnonzero(place < top_k)
    chosen[hit, place[hit]] = truth[hit]
    rest = ((1 - first)[:, None] * 0.5 ** np.arange(1, top_k)).clip(max=first[:, None] * 0.99)
    probability = np.c_[first, rest].astype(np.float32)
    ok = (np.arange(start, start + size) % failed_every) != 0
    flat = pa.array(chosen[ok].ravel().astype(np.int32))
    entries = pa.StructArray.from_arrays(
        [labels.take(flat), flat, pa.array(probability[ok].ravel())], fields=list(TOP_K_TYPE.value_type)
    )
    ends = pa.array(np.r_[0, np.cumsum(ok * top_k)].astype(np.int32))
    index = pa.array(chosen[:, 0].astype(np.int32), mask=~ok)
    side = rng.integers(300, 4000, (2, size)).astype(np.int32)
    return {
        "image": _names(start, size),
        "status": pa.array(np.where(ok, "ok", "failed")),
        "error_code": pa.array(np.full(size, "truncated"), mask=ok),
        "error_message": pa.array(np.full(size, "made up"), mask=ok),
        "label": labels.take(index),
        "class_index": index,
        "probability": pa.array(probability[:, 0], mask=~ok),
        "margin": pa.array(probability[:, 0] - probability[:, 1], mask=~ok),
        "top_k": pa.ListArray.from_arrays(ends, entries, type=TOP_K_TYPE, mask=pa.array(~ok)),
        "width": pa.array(side[0], mask=~ok),
        "height": pa.array(side[1], mask=~ok),
        "file_size": pa.array(rng.integers(20_000, 4_000_000, size)),
        "modified_at": pa.array([datetime(2026, 11, 23, tzinfo=UTC)] * size, pa.timestamp("us", tz="UTC")),
    }, truth


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--classes", type=int, default=50)
    parser.add_argument("--own", action="store_true", help="labels with the columns `camera` and `site`")
    parser.add_argument("--seed", type=int, default=0, help="of the answers")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    predictions, labels = given.folder / "preds.parquet", given.folder / "labels.parquet"
    write(predictions, labels, given.rows, given.classes, own=given.own, seed=given.seed)


if __name__ == "__main__":
    main()
