"""Made-up predictions files for the tests of evaluating: the same columns and metadata as the scorer's."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batchland.evaluation.calibration import ROUND_THRESHOLDS, bins_of, coverage, reliability, round_group
from batchland.evaluation.counts import ScoreCells, ScoreCounts, Sums
from batchland.evaluation.evaluate import Evaluation, evaluate
from batchland.evaluation.schema import CoveragePoint, ReliabilityBin
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

HOSTILE = (
    "00.<script>window.hacked=1</script>",
    '01."><img src=x onerror=window.hacked=1>',
    "02.</script><script>window.hacked=1</script>",
    "03.{{ 7*7 }}{% raw %}",
    "04.' onmouseover='window.hacked=1",
    "05.&lt;b&gt; &amp;",
    "06.\u202egnp.evil",
    "07.line\nbreak\x07",
    "08.https:\\\\evil.example",
    "09." + "long" * 40,
)


class Row(NamedTuple):
    """One image's row: probabilities of all classes in order, or an error code."""

    image: str
    probabilities: Sequence[float] = ()
    error_code: str | None = None
    width: int = 640
    height: int = 480
    file_size: int = 50_000


def predictions_info(
    classes: tuple[ClassName, ...], rows: int, failed: int, *, top_k: int, images: Path, model: str = "toy"
) -> PredictionsInfo:
    return PredictionsInfo(
        run_id="run-1",
        model=ModelInfo(name=model, architecture="made-up", sha256="ab" * 32, file=f"models/{model}.onnx"),
        classes=classes,
        images=str(images),
        device="cpu",
        provider="CPUExecutionProvider",
        batch_size=32,
        top_k=top_k,
        counts=Counts(
            listed=rows, ok=rows - failed, failed=failed, failed_by_code={"truncated": failed} if failed else {}
        ),
        versions={"batchland": "0.1.0"},
    )


def write_predictions(
    path: Path,
    folders: Sequence[str],
    rows: Sequence[Row],
    *,
    top_k: int = 5,
    images: Path = Path("/photos"),
    **info: str,
) -> Path:
    """A predictions file of a model with these class folders."""
    ok = np.array([row.error_code is None for row in rows], bool)
    probabilities = np.zeros((len(rows), len(folders)), np.float32)
    for i, row in enumerate(rows):
        if row.error_code is None:
            probabilities[i] = row.probabilities
    return write_arrays(
        path,
        class_names(folders),
        [row.image for row in rows],
        probabilities,
        ok=ok,
        error_codes=[row.error_code for row in rows],
        sizes=np.array([(row.width, row.height, row.file_size) for row in rows], np.int64).reshape(-1, 3),
        top_k=top_k,
        images=images,
        **info,
    )


def delivery(
    folder: Path, folders: Sequence[str], contents: dict[str, str | None], answer: Sequence[float], model: str = "toy"
) -> Evaluation:
    """The evaluation of images in class folders, all with one answer. contents: of each image, sha256 or None."""
    predictions = write_predictions(
        folder / "preds.parquet", folders, [Row(name, answer) for name in contents], model=model
    )
    table = pq.read_table(predictions)
    pq.write_table(table.append_column("sha256", pa.array(contents.values(), pa.string())), predictions)
    return evaluate(predictions, write_label_folders(folder / "labels", list(contents)))


def write_arrays(
    path: Path,
    classes: tuple[ClassName, ...],
    names: Sequence[str],
    probabilities: np.ndarray,
    *,
    ok: np.ndarray | None = None,
    error_codes: Sequence[str | None] | None = None,
    sizes: np.ndarray | None = None,
    top_k: int = 5,
    images: Path = Path("/photos"),
    model: str = "toy",
) -> Path:
    """The same from arrays: probabilities float32 [rows, classes]. Has the columns of every version."""
    count = len(names)
    ok = np.ones(count, bool) if ok is None else ok
    codes = error_codes or [None] * count
    sizes = np.tile(np.array([640, 480, 50_000]), (count, 1)) if sizes is None else sizes
    k = min(top_k, len(classes))
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, : max(k, 2)]
    best = np.take_along_axis(probabilities, order, axis=1)
    labels = pa.array([name.label for name in classes])
    flat = pa.array(order[ok, :k].ravel().astype(np.int32))
    entries = pa.StructArray.from_arrays(
        [labels.take(flat), flat, pa.array(best[ok, :k].ravel().astype(np.float32))], fields=list(TOP_K_TYPE.value_type)
    )
    ends = np.concatenate([[0], np.cumsum(ok * k)]).astype(np.int32)
    first = pa.array(order[:, 0].astype(np.int32), mask=~ok)
    table = pa.table(
        {
            "image": list(names),
            "status": ["ok" if good else "failed" for good in ok],
            "error_code": pa.array(codes, pa.string()),
            "error_message": pa.array([code and f"made-up: {code}" for code in codes], pa.string()),
            "label": labels.take(first),
            "class_index": first,
            "probability": pa.array(best[:, 0].astype(np.float32), mask=~ok),
            "margin": pa.array((best[:, 0] - best[:, 1]).astype(np.float32), mask=~ok),
            "top_k": pa.ListArray.from_arrays(pa.array(ends), entries, type=TOP_K_TYPE, mask=pa.array(~ok)),
            "width": pa.array(sizes[:, 0].astype(np.int32), mask=~ok),
            "height": pa.array(sizes[:, 1].astype(np.int32), mask=~ok),
            "file_size": pa.array(sizes[:, 2]),
            "modified_at": pa.array([datetime(2026, 11, 23, tzinfo=UTC)] * count, pa.timestamp("us", tz="UTC")),
        },
        schema=pa.schema([PREDICTIONS.field(name) for name in FIRST_COLUMNS]),
    )
    info = predictions_info(classes, count, int((~ok).sum()), top_k=top_k, images=images, model=model)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata({METADATA_KEY: info.model_dump_json().encode()}), path)
    return path


def add_log_probabilities(path: Path, probabilities: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
    """Add the column, null outside `rows`, a mask. Returns the stored probabilities, [rows, classes]."""
    logs = np.log(np.clip(probabilities, 2.0**-126, 1)).astype(np.float16)
    kept = np.ones(len(logs), bool) if rows is None else rows
    values = [row if has_all else None for row, has_all in zip(logs, kept, strict=True)]
    column = pa.array(values, LOG_PROBABILITIES_TYPE)
    pq.write_table(pq.read_table(path).append_column("log_probabilities", column), path)
    return np.exp(logs.astype(np.float64))


def random_case(classes: int, images: int, *, accuracy: float = 0.75, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(truth, probabilities) of an imperfect, overconfident model with uneven classes and similar neighbours."""
    rng = np.random.default_rng(seed)
    weights = rng.uniform(0.3, 1.5, classes)
    truth = rng.choice(classes, images, p=weights / weights.sum())
    logits = rng.normal(0, 1, (images, classes)).astype(np.float32)
    skill = rng.uniform(0.6, 1.4, classes)[truth] * (2.2 + 2.5 * accuracy)
    logits[np.arange(images), truth] += skill
    logits[np.arange(images), (truth + 1) % classes] += 1.6
    exponentials = np.exp(2.2 * logits)
    return truth, exponentials / exponentials.sum(axis=1, keepdims=True)


def write_label_folders(root: Path, names: Sequence[str], data: bytes = b"") -> Path:
    """Files with these names below `root`."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def sums(group: np.ndarray, probability: np.ndarray, right: np.ndarray, groups: int | None = None) -> Sums:
    """Of answers by group."""
    found = Sums(groups or int(group.max()) + 1)
    found.add(group, probability, right)
    return found


def cells(probability: np.ndarray, right: np.ndarray | None = None) -> ScoreCells:
    """Answers of one class."""
    counts = ScoreCounts()
    right = np.zeros(len(probability), bool) if right is None else right
    counts.add(np.zeros(len(probability), np.int64), probability.astype(np.float32), right)
    return counts.cells


def curve_of(probability: np.ndarray, right: np.ndarray, bins: int) -> tuple[ReliabilityBin, ...]:
    return reliability(sums(bins_of(probability, bins), probability, right, bins), 0.95)


def points_of(probability: np.ndarray, right: np.ndarray) -> tuple[CoveragePoint, ...]:
    by_round = sums(round_group(probability.astype(np.float32)), probability, right, len(ROUND_THRESHOLDS) + 1)
    return coverage(cells(probability, right), by_round, 0.95)
