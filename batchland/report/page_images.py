"""The images that can be browsed on a page: their answers as compressed data, and some of their pictures.

A page cannot contain every image of a large test set. Mistakes come first: the four most confident ones of each cell of
the confusion matrix, then the next four, and so on, large cells first; then right answers, the least confident ones of
each class first.
"""

import base64
import json
import zlib
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from batchland.errors import BatchlandError
from batchland.evaluation.slices import Described
from batchland.predictions.reader import StoredPredictions
from batchland.report.gallery import GALLERIES_TENTHS
from batchland.report.options import ReportOptions
from batchland.report.pictures import Thumbnails
from batchland.system.paths import resolved

if TYPE_CHECKING:
    from batchland.evaluation.evaluate import Evaluation

MAX_ROWS: Final = 20_000
"""Largest number of images on a page."""
MAX_BYTES: Final = 450_000
"""Limit of their data on the page, as base64. With longer names, there are fewer images."""
MISTAKES_SHARE: Final = 0.6
"""Share of mistakes, if neither all mistakes nor all right answers fit."""
CHOICES: Final = 3
"""First choices that are shown for each image."""
PER_TURN: Final = 4
"""Images of a cell that are taken before the next cell has its turn."""
_COLUMNS: Final = (
    "image", "true_index", "predicted_index", "probability", "true_probability", "width", "height", "file_size",
)  # fmt: skip

Ints = npt.NDArray[np.int64]


class PageImages(NamedTuple):
    """The images of a page."""

    data: str
    """JSON, compressed by zlib, as base64; see `_encoded`."""
    rows: dict[str, int]
    """Row of each image in the data, by its name."""
    total: int
    """Scored images with a label."""
    pictures: dict[int, str]
    """Data URI by row in the data, for images that no gallery shows."""
    root: str
    """Path of the image folder, for opening the files; empty if it is not a folder of this machine."""

    @property
    def all_there(self) -> bool:
        """Whether the page contains every scored image."""
        return len(self.rows) == self.total


def page_images(evaluation: "Evaluation", first: Sequence[str]) -> PageImages:
    """Choose the images. first: images that must be among them, those of the galleries."""
    mistakes = evaluation.mistakes
    right = _right_answers(evaluation)
    summary = evaluation.summary
    wanted = _chosen(mistakes, right, first)
    choices = _top_choices(summary.predictions, summary.run_id, wanted["image"])
    labels = [name.label for name in summary.classes]
    while True:
        data = _encoded(wanted, choices, labels, _slices(evaluation, wanted))
        if len(data) <= MAX_BYTES or wanted.num_rows <= len(first):
            break
        wanted = wanted[: max(len(first), int(wanted.num_rows * 0.9 * MAX_BYTES / len(data)))]
    root = evaluation.image_root
    return PageImages(
        data,
        {image: row for row, image in enumerate(wanted["image"].to_pylist())},
        summary.account.scored,
        {},
        str(resolved(root)) if root.is_dir() else "",
    )


def add_pictures(images: PageImages, evaluation: "Evaluation", options: ReportOptions, shown: set[int]) -> PageImages:
    """Add thumbnails of mistakes, in the order of the rows, up to the limit of bytes. shown: rows in galleries."""
    budget = options.picture_bytes * (10 - GALLERIES_TENTHS) // 10
    thumbnails = Thumbnails(evaluation.image_root, options.thumbnail_side * 2 // 3, budget)
    sizes = dict(zip(*(evaluation.mistakes[name].to_pylist() for name in ("image", "file_size")), strict=True))
    found: dict[int, str] = {}
    for image, row in images.rows.items():
        if not thumbnails.left or not images.root:
            break
        if row not in shown and image in sizes and (uri := thumbnails.make(image, sizes[image]).uri):
            found[row] = uri
    return images._replace(pictures=found)


def _right_answers(evaluation: "Evaluation") -> pa.Table:
    """Right answers to choose from: all, or at least MAX_ROWS of them, in memory that does not grow with their
    number."""
    columns = _columns(evaluation)
    schema = pa.schema([evaluation.outcomes_file.schema.field(name) for name in columns])
    kept = schema.empty_table()
    for batch in evaluation.outcomes_file.batches([*columns, "correct"]):
        right = batch.filter(pc.fill_null(batch["correct"], False)).select(columns)
        kept = pa.concat_tables([kept, pa.Table.from_batches([right], schema)])
        if kept.num_rows > 4 * MAX_ROWS:
            kept = kept.take(_rows_in_turns(kept, "ascending")[:MAX_ROWS])
    return kept


def _columns(evaluation: "Evaluation") -> list[str]:
    """Those of outcomes.parquet that the page needs: own ones only if there are slices of them."""
    return [*_COLUMNS, *evaluation.summary.options.get("by", ())]


def _slices(evaluation: "Evaluation", images: pa.Table) -> dict[str, dict[str, list[Any]]]:
    """Dimension -> its values, and the number of each image's value among them, -1 without one."""
    shown = {part.dimension for part in evaluation.summary.slices}
    if pairs := evaluation.summary.pair_slices:
        shown |= {name for pair in pairs.weakest for name in pair.columns}
    found: dict[str, dict[str, list[Any]]] = {}
    for name, values in evaluation.slice_values(Described.of(images.drop_columns("suspected_label_error"))).items():
        if name in shown:
            numbers = {value: number for number, value in enumerate(dict.fromkeys(v for v in values if v is not None))}
            found[name] = {"values": list(numbers), "rows": [-1 if v is None else numbers[v] for v in values]}
    return found


def _chosen(mistakes: pa.Table, right: pa.Table, first: Sequence[str]) -> pa.Table:
    """At most MAX_ROWS rows: those of `first`, then mistakes, then right answers; see the module."""
    wrong_rows = min(mistakes.num_rows, max(int(MAX_ROWS * MISTAKES_SHARE), MAX_ROWS - right.num_rows))
    must = pc.is_in(mistakes["image"], value_set=pa.array(first, pa.string()))
    rest = mistakes.filter(pc.invert(must))
    rest = rest.take(_rows_in_turns(rest, "descending")[: max(wrong_rows - len(first), 0)])
    good = right.take(_rows_in_turns(right, "ascending")[: MAX_ROWS - wrong_rows])
    columns = [*right.column_names, "suspected_label_error"]
    good = good.append_column("suspected_label_error", pa.array(np.zeros(good.num_rows, bool)))
    parts = [mistakes.filter(must), rest, good]
    return pa.concat_tables([part.select(columns) for part in parts], promote_options="permissive").combine_chunks()


def _rows_in_turns(table: pa.Table, confidence: str) -> pa.Array:
    """Row numbers: the first PER_TURN of each cell of the confusion matrix, then the next of each; large cells first.

    confidence: `descending` or `ascending`, the order within a cell.
    """
    truth, predicted = (table[name].to_numpy().astype(np.int64) for name in ("true_index", "predicted_index"))
    cell = truth * (int(predicted.max(initial=0)) + 1) + predicted
    probability = table["probability"].to_numpy()
    order = np.lexsort((-probability if confidence == "descending" else probability, cell))
    _, start, size = np.unique(cell[order], return_index=True, return_counts=True)
    rank = np.arange(len(order)) - np.repeat(start, size)
    return pa.array(order[np.lexsort((rank, cell[order], -np.repeat(size, size), rank // PER_TURN))])


def _top_choices(predictions: str, run_id: str, images: pa.ChunkedArray) -> dict[str, list[tuple[int, int]]]:
    """Image -> its choices after the first as (class index, probability in 1/1000). Empty if the predictions have
    changed."""
    found: dict[str, list[tuple[int, int]]] = {}
    with suppress(BatchlandError, OSError, pa.ArrowException):
        stored = StoredPredictions(predictions)
        if stored.kind is None or stored.info().run_id != run_id:
            return {}
        for batch in stored.rows(["image", "top_k"]):
            rows = batch.filter(pc.is_in(batch["image"], value_set=images.combine_chunks()))
            for image, choices in zip(rows["image"].to_pylist(), rows["top_k"].to_pylist(), strict=True):
                best = (choices or [])[1:CHOICES]
                found[image] = [(each["class_index"], round(1000 * each["probability"])) for each in best]
    return found


def _encoded(
    table: pa.Table,
    choices: dict[str, list[tuple[int, int]]],
    labels: Sequence[str],
    slices: dict[str, dict[str, list[Any]]],
) -> str:
    """The rows as columns: folder and file, true and predicted class, confidence, probability of the true class (-1
    without one, null if it is the confidence), further choices, whether the label is suspected, and slices.

    The probabilities have as many digits as are needed to tell 32-bit numbers apart, so that the page counts what the
    tables count.
    """
    images = table["image"].to_pylist()
    split = [image.rpartition("/") for image in images]
    folders = {folder: number for number, folder in enumerate(dict.fromkeys(folder + sep for folder, sep, _ in split))}
    confidence, true_ones = _digits(table["probability"]), _digits(table["true_probability"])
    data: dict[str, Any] = {
        "labels": list(labels),
        "folders": list(folders),
        "folder": [folders[folder + sep] for folder, sep, _ in split],
        "file": [name for _, _, name in split],
        "truth": table["true_index"].to_pylist(),
        "predicted": table["predicted_index"].to_pylist(),
        "confidence": confidence,
        "true": [None if true == sure else true for true, sure in zip(true_ones, confidence, strict=True)],
        "choices": [[number for choice in choices.get(image, ()) for number in choice] for image in images],
        "suspected": table["suspected_label_error"].cast(pa.int8()).to_pylist(),
        "slices": slices,
    }
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return base64.b64encode(zlib.compress(text.encode("utf-8", "surrogatepass"), 9)).decode()


def _digits(column: pa.ChunkedArray) -> list[float]:
    """32-bit numbers with the fewest decimal digits that give them back; -1 for null."""
    return pc.fill_null(column, -1).to_numpy().astype(str).astype(np.float64).tolist()
