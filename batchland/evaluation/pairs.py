"""Join two evaluations by image name, and by content where names differ.

Classes are matched by label, so the two models may order them differently.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from batchland.errors import UsageError
from batchland.evaluation.intervals import Floats, Ints
from batchland.evaluation.schema import PairAccount

if TYPE_CHECKING:
    from batchland.evaluation.evaluate import Evaluation
    from batchland.evaluation.saved import Report


class Side(NamedTuple):
    """One model's answers for the paired images."""

    predicted: Ints
    """First choice, as an index into Pairs.classes."""
    probability: Floats
    """Probability of the first choice."""
    true_rank: Ints
    """Rank of the true class among the choices kept, from 1; 0 beyond them."""
    true_probability: Floats
    """NaN beyond the choices kept."""
    kept: int
    """Choices kept per image."""


@dataclass(frozen=True)
class Pairs:
    """The images that both scored, with the same label in both, in A's order; all arrays of that length."""

    images: pa.Array
    file_size: pa.Array
    truth: Ints
    """True class, as an index into `classes`."""
    a: Side
    b: Side
    classes: tuple[str, ...]
    """Labels of A's classes, then those that only B has."""


def pair(a: "Report | Evaluation", b: "Report | Evaluation") -> tuple[Pairs, PairAccount]:
    """Match the images of two evaluations, and count those that do not match.

    Raises UsageError if there is no image that both scored.
    """
    names_a, names_b = ([name.label for name in each.summary.classes] for each in (a, b))
    classes = tuple(dict.fromkeys((*names_a, *names_b)))
    left, right = a.outcomes, b.outcomes
    row_b, by_content = _partners(left, right)
    common = pa.array(row_b >= 0)
    left, right = left.filter(common), right.take(pa.array(row_b[row_b >= 0]))
    alike = pc.equal(left["true_label"], right["true_label"]).to_numpy()
    ok_a, ok_b = (pc.equal(each["status"], "ok").to_numpy() for each in (left, right))
    paired = alike & ok_a & ok_b
    shared = len(alike)
    account = PairAccount(
        images_a=a.outcomes.num_rows,
        images_b=b.outcomes.num_rows,
        paired=_count(paired),
        by_content=by_content,
        only_a=a.outcomes.num_rows - shared,
        only_b=b.outcomes.num_rows - shared,
        relabelled=_count(~alike),
        failed_a=_count(alike & ~ok_a & ok_b),
        failed_b=_count(alike & ok_a & ~ok_b),
        failed_both=_count(alike & ~ok_a & ~ok_b),
        classes=len(classes),
        classes_only_a=tuple(name for name in names_a if name not in names_b),
        classes_only_b=tuple(name for name in names_b if name not in names_a),
    )
    if not account.paired:
        raise UsageError(
            f"{a.summary.predictions} and {b.summary.predictions}: no image was scored with the same label in both "
            f"({account.images_a} and {account.images_b} images, {shared} of them in both); compare runs over the same "
            f"images"
        )
    mask = pa.array(paired)
    left, right = left.filter(mask).combine_chunks(), right.filter(mask).combine_chunks()
    index = pa.array(classes)
    found = Pairs(
        images=left["image"].combine_chunks(),
        file_size=left["file_size"].combine_chunks(),
        truth=_class_index(left["true_label"], index),
        a=_side(left, index, a.summary.top_k),
        b=_side(right, index, b.summary.top_k),
        classes=classes,
    )
    return found, account


def _partners(a: pa.Table, b: pa.Table) -> tuple[Ints, int]:
    """For each row of A the row of B, -1 without one, and how many were found by content.

    Images with the same path are partners; among the others, images with the same sha256. If several files have the
    same content, the first ones of both sides are partners.
    """
    row: Ints = pc.fill_null(_index_in(a["image"], b["image"]), -1).to_numpy().astype(np.int64)
    if not all("sha256" in table.column_names for table in (a, b)):
        return row, 0
    alone_a = np.flatnonzero(row < 0)
    alone_b = np.setdiff1d(np.arange(b.num_rows), row)
    content_a, content_b = a["sha256"].take(pa.array(alone_a)), b["sha256"].take(pa.array(alone_b))
    found = pc.fill_null(_index_in(content_a, content_b), -1).to_numpy()
    first = np.unique(found, return_index=True)[1]
    first = first[found[first] >= 0]
    row[alone_a[first]] = alone_b[found[first]]
    return row, len(first)


def _index_in(values: pa.ChunkedArray, others: pa.ChunkedArray) -> pa.Array:
    return pc.index_in(values.combine_chunks(), value_set=others.combine_chunks(), skip_nulls=True)


def _side(table: pa.Table, classes: pa.Array, kept: int) -> Side:
    return Side(
        predicted=_class_index(table["predicted_label"], classes),
        probability=table["probability"].to_numpy().astype(np.float64),
        true_rank=pc.fill_null(table["true_rank"], 0).to_numpy().astype(np.int64),
        true_probability=pc.fill_null(table["true_probability"], float("nan")).to_numpy().astype(np.float64),
        kept=kept,
    )


def _class_index(labels: pa.ChunkedArray, classes: pa.Array) -> Ints:
    found: Ints = pc.index_in(labels, value_set=classes).to_numpy().astype(np.int64)
    return found


def _count(flags: npt.NDArray[np.bool_]) -> int:
    return int(np.count_nonzero(flags))
