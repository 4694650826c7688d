"""Made-up predictions and labels of any size, written block by block: `python -m benchmarks.evaluation_rows --help`.

The model is 80% accurate, its probabilities are calibrated, names look like those of a photo archive. Names differ, but
the other columns of every DRAWN blocks are the same.
"""

import argparse
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchland.models.card import ClassName, class_names
from batchland.predictions.schema import (
    FIRST_COLUMNS,
    LOG_PROBABILITIES_TYPE,
    METADATA_KEY,
    PREDICTIONS,
    TOP_K_TYPE,
    Counts,
    ModelInfo,
    PredictionsInfo,
)

BLOCK = 1 << 17
DRAWN = 8
"""Blocks of answers that are drawn."""
MAX_DRAWN = 1 << 28
"""Probabilities of all classes that are drawn; with many classes, fewer blocks are drawn."""


def write(
    predictions: Path,
    labels: Path,
    rows: int,
    classes: int,
    *,
    top_k: int = 5,
    failed_every: int = 1000,
    own: bool = False,
    every_class: bool = False,
    seed: int = 0,
) -> None:
    """Write `predictions` (a Parquet file) and `labels` (Parquet, in another order of blocks).

    every_class: with the column `log_probabilities`. own: the labels have the columns `camera`, with 40 values, and
    `site`, with 25. seed: of the answers; labels and names are the same for all.
    """
    names = class_names([f"{index:05d}.class_{index:05d}" for index in range(classes)])
    failed = sum(len(range(0, min(BLOCK, rows - start), failed_every)) for start in range(0, rows, BLOCK))
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
    kept = [*FIRST_COLUMNS, *(["log_probabilities"] if every_class else [])]
    schema = pa.schema([PREDICTIONS.field(name) for name in kept]).with_metadata(
        {METADATA_KEY: info.model_dump_json().encode()}
    )
    columns = [(name, pa.string()) for name in ("image", "label", *(("camera", "site") if own else ()))]
    label_schema = pa.schema(columns)
    blocks = min(DRAWN, max(MAX_DRAWN // (classes * BLOCK), 1)) if every_class else DRAWN
    drawn = [
        _draw(number, names, top_k, failed_every, seed, own=own, every_class=every_class) for number in range(blocks)
    ]
    texts = ["status", "error_code", "error_message", "label", "top_k.list.element.label"]
    starts = [*enumerate(range(0, rows, BLOCK))]
    with (
        pq.ParquetWriter(predictions, schema, compression="zstd", use_dictionary=texts) as out,
        pq.ParquetWriter(labels, label_schema, compression="zstd", use_dictionary=label_schema.names[1:]) as truths,
    ):
        for number, start in starts:
            block = pa.table({"image": _names(start), **drawn[number % blocks].answers}, schema=schema)
            out.write_table(block[: rows - start], BLOCK)
        for number, start in reversed(starts):
            block, size = drawn[number % blocks], min(BLOCK, rows - start)
            order = block.order.filter(pc.less(block.order, size))
            table = pa.table([_names(start), *block.labels], schema=label_schema)
            truths.write_table(table.take(order), BLOCK)


def _names(start: int) -> pa.Array:
    rows = pa.array(np.arange(start, start + BLOCK))
    folder, number = (
        pc.utf8_lpad(each.cast(pa.string()), width, "0") for each, width in ((pc.divide(rows, 10_000), 5), (rows, 9))
    )
    return pc.binary_join_element_wise(folder, "/IMG_", number, ".jpg", "")


class _Drawn(NamedTuple):
    """All columns of a block, except the names."""

    answers: dict[str, pa.Array]
    labels: list[pa.Array]
    order: pa.Array
    """Of the rows in the table of labels."""


def _draw(
    number: int,
    names: Sequence[ClassName],
    top_k: int,
    failed_every: int,
    seed: int,
    *,
    own: bool,
    every_class: bool,
) -> _Drawn:
    rng, classes = np.random.default_rng(number), len(names)
    truth = rng.integers(0, classes, BLOCK)
    labels = [pa.array([name.folder for name in names]).take(pa.array(truth))]
    if own:
        labels += [
            pa.array([f"{name}-{value}" for value in range(values)]).take(pa.array(rng.integers(0, values, BLOCK)))
            for name, values in (("camera", 40), ("site", 25))
        ]
    order = pa.array(rng.permutation(BLOCK))
    rng = np.random.default_rng((number, seed))
    first = rng.beta(4, 1, BLOCK) * (1 - 1 / classes) + 1 / classes
    chosen = (truth[:, None] + rng.integers(1, max(classes // top_k, 2), (BLOCK, top_k)).cumsum(axis=1)) % classes
    right = rng.random(BLOCK) < first
    place = np.where(right, 0, rng.integers(1, top_k + 1, BLOCK))
    hit = np.flatnonzero(place < top_k)
    chosen[hit, place[hit]] = truth[hit]
    rest = ((1 - first)[:, None] * 0.5 ** np.arange(1, top_k)).clip(max=first[:, None] * 0.99)
    probability = np.c_[first, rest].astype(np.float32)
    ok = np.arange(BLOCK) % failed_every != 0
    texts, flat = pa.array([name.label for name in names]), pa.array(chosen[ok].ravel().astype(np.int32))
    entries = pa.StructArray.from_arrays(
        [texts.take(flat), flat, pa.array(probability[ok].ravel())], fields=list(TOP_K_TYPE.value_type)
    )
    ends = pa.array(np.r_[0, np.cumsum(ok * top_k)].astype(np.int32))
    index = pa.array(chosen[:, 0].astype(np.int32), mask=~ok)
    side = rng.integers(300, 4000, (2, BLOCK)).astype(np.int32)
    answers = {
        "status": pa.array(np.where(ok, "ok", "failed")),
        "error_code": pa.array(np.full(BLOCK, "truncated"), mask=ok),
        "error_message": pa.array(np.full(BLOCK, "made up"), mask=ok),
        "label": texts.take(index),
        "class_index": index,
        "probability": pa.array(probability[:, 0], mask=~ok),
        "margin": pa.array(probability[:, 0] - probability[:, 1], mask=~ok),
        "top_k": pa.ListArray.from_arrays(ends, entries, type=TOP_K_TYPE, mask=pa.array(~ok)),
        "width": pa.array(side[0], mask=~ok),
        "height": pa.array(side[1], mask=~ok),
        "file_size": pa.array(rng.integers(20_000, 4_000_000, BLOCK)),
        "modified_at": pa.repeat(pa.scalar(datetime(2026, 11, 23, tzinfo=UTC), pa.timestamp("us", tz="UTC")), BLOCK),
    }
    if every_class:
        answers["log_probabilities"] = _log_probabilities(rng, chosen, probability, ok, classes)
    return _Drawn(answers, labels, order)


def _log_probabilities(
    rng: np.random.Generator, chosen: np.ndarray, probability: np.ndarray, ok: np.ndarray, classes: int
) -> pa.Array:
    """Of all classes; those that are not chosen share the rest."""
    values = rng.standard_exponential((len(ok), classes), np.float32)
    np.put_along_axis(values, chosen, 0, axis=1)
    values *= ((1 - probability.sum(axis=1)) / values.sum(axis=1)).clip(min=1e-9)[:, None]
    np.put_along_axis(values, chosen, probability, axis=1)
    logs = np.log(values.clip(min=1e-30)).astype(np.float16)
    ends = pa.array(np.r_[0, np.cumsum(ok * classes)].astype(np.int32))
    return pa.ListArray.from_arrays(ends, pa.array(logs[ok].ravel()), type=LOG_PROBABILITIES_TYPE, mask=pa.array(~ok))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--classes", type=int, default=50)
    parser.add_argument("--every-class", action="store_true", help="predictions with the column `log_probabilities`")
    parser.add_argument("--own", action="store_true", help="labels with the columns `camera` and `site`")
    parser.add_argument("--seed", type=int, default=0, help="of the answers")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    predictions, labels = given.folder / "preds.parquet", given.folder / "labels.parquet"
    write(predictions, labels, given.rows, given.classes, own=given.own, every_class=given.every_class, seed=given.seed)


if __name__ == "__main__":
    main()
