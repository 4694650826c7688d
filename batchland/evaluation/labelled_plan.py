"""Estimate the accuracy from a plan of `batchland label-plan` with its column `label` filled in."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchland.errors import UsageError
from batchland.evaluation.intervals import rate
from batchland.evaluation.label_plan import LABEL_PLAN, MIN_BUDGET, allot, estimated_accuracy, first_probabilities
from batchland.evaluation.outcomes import Predictions, read_predictions
from batchland.evaluation.schema import Figure
from batchland.models.class_match import class_texts, match_classes, unknown_classes_message
from batchland.system.csv_files import plain_text, read_columns
from batchland.system.text import near_miss

_ENOUGH_LABELS: Final = 30
"""Labels from which the widths of two intervals are compared."""


class LabelledAccuracy(NamedTuple):
    """The accuracy over all scored images, and the part of the plan that it is based on."""

    accuracy: Figure
    rows: int
    """Rows of the plan."""
    unlabelled: int
    """Rows of the plan without a label."""
    foreign: tuple[str, ...]
    """Labels of none of the model's classes: their images count as wrong."""
    unplanned: int
    """Scored images that no row of the plan represents, because rows were removed from it."""
    half_width: float
    """Half of the width of the accuracy's interval."""
    expected: float | None
    """`half_width` that a plan with this number of labels expects; None with fewer than MIN_BUDGET labels."""
    paid: bool | None
    """Whether as many labels of images chosen at random would give a wider interval; None for too few labels to say."""


class PlanRow(NamedTuple):
    """One row of a plan."""

    number: int
    """Row of the file; the header is row 1."""
    image: str
    label: str
    """Empty if it is not filled in."""
    predicted: str
    stratum: int
    weight: float


def labelled_accuracy(predictions: str | Path, plan: Path) -> LabelledAccuracy:
    """Accuracy over all scored images, from a plan with labels. Classes are named as for `evaluate`.

    An image with a label of none of the classes counts as wrong. Raises UsageError if the file is no plan of these
    predictions, has no labels, or a label that seems to be a misspelt class.
    """
    run = read_predictions(predictions)
    rows = read_plan(plan)
    filled = [row for row in rows if row.label]
    if not filled:
        raise UsageError(f"{plan}: no row has a label; fill in the column `label`")
    match = match_classes({row.label for row in filled}, run.info.classes)
    for row in filled:
        if row.label in match.unknown and near_miss(row.label, class_texts(run.info.classes)):
            raise UsageError(unknown_classes_message(f"{plan}: row {row.number}", [row.label], run.info.classes))
    scored, answers = _answers(plan, rows, run)
    sizes = _images_of_strata(plan, rows)
    accuracy = estimated_accuracy(
        np.array([row.stratum for row in filled]),
        np.array([match.index.get(row.label) == answers[row.image] for row in filled]),
        np.array([sizes[number] for number in sorted(sizes)]),
    )
    represented = sum(row.weight for row in rows)
    if represented > 1.01 * scored + 1:
        raise UsageError(
            f"{plan}: its rows represent {round(represented)} images, more than the {scored} scored ones of "
            f"{run.source}; keep the weights that the plan was written with"
        )
    unplanned = max(0, round(scored - represented))
    chance = rate(round(accuracy.value * len(filled)), len(filled), 0.95)
    paid = _width(accuracy) < _width(chance) if len(filled) >= _ENOUGH_LABELS else None
    half_width, expected = _width(accuracy) / 2, None
    if MIN_BUDGET <= len(filled) <= scored:
        expected = allot(first_probabilities(run), len(filled))[2].half_width
    unlabelled = len(rows) - len(filled)
    return LabelledAccuracy(accuracy, len(rows), unlabelled, match.unknown, unplanned, half_width, expected, paid)


def _width(figure: Figure) -> float:
    assert figure.low is not None
    assert figure.high is not None
    return figure.high - figure.low


def _images_of_strata(plan: Path, rows: Sequence[PlanRow]) -> dict[int, float]:
    """Numbers of images that the rows of each stratum represent, including rows without a label.

    Raises UsageError for a stratum without any label, because its accuracy would be unknown.
    """
    sizes: dict[int, float] = {}
    for row in rows:
        sizes[row.stratum] = sizes.get(row.stratum, 0.0) + row.weight
    labelled = {row.stratum for row in rows if row.label}
    for number, size in sorted(sizes.items()):
        if number not in labelled:
            raise UsageError(
                f"{plan}: no row of stratum {number} has a label, and they represent {round(size)} images; label some"
            )
    return sizes


def read_plan(path: Path) -> list[PlanRow]:
    """The rows of a plan. Raises UsageError if the file is no plan, or names an image twice."""
    columns = read_columns(path, LABEL_PLAN.names, "a plan of `batchland label-plan`")
    rows = list(_rows(path, columns))
    first: dict[str, int] = {}
    for row in rows:
        if first.setdefault(row.image, row.number) != row.number:
            raise UsageError(f"{path}: row {row.number}: {row.image!r} is in row {first[row.image]} already; keep one")
    return rows


def _rows(path: Path, columns: Sequence[Sequence[str]]) -> Iterator[PlanRow]:
    """columns: of LABEL_PLAN, as text."""
    for number, (image, label, predicted, _, stratum, weight) in enumerate(zip(*columns, strict=True), 2):
        where = f"{path}: row {number}"
        if not (stratum.isdecimal() and len(stratum) < 10):
            raise UsageError(f"{where}: has the stratum {stratum!r}; keep the numbers that the plan was written with")
        try:
            value = float(weight)
        except ValueError:
            value = math.nan
        if not 1 <= value < 2**53:
            raise UsageError(f"{where}: has the weight {weight!r}; keep the numbers that the plan was written with")
        image, label, predicted = map(plain_text, (image, label.strip(), predicted))
        yield PlanRow(number, image, label, predicted, int(stratum), value)


def _answers(plan: Path, rows: Sequence[PlanRow], run: Predictions) -> tuple[int, dict[str, int]]:
    """Number of scored images, and index of the predicted class of each image of a plan.

    Raises UsageError for an image that was not scored, or that had another prediction when the plan was made.
    """
    wanted = pa.array([row.image for row in rows], pa.string())
    answers: dict[str, int] = {}
    labels: dict[str, str] = {}
    scored = 0
    for batch in run.scored(["image", "label", "class_index"]):
        scored += len(batch)
        found = batch.filter(pc.is_in(batch["image"], value_set=wanted))
        images = found["image"].to_pylist()
        answers |= zip(images, found["class_index"].to_pylist(), strict=True)
        labels |= zip(images, found["label"].to_pylist(), strict=True)
    for row in rows:
        where, remedy = f"{plan}: row {row.number}", "give the predictions that the plan was made from"
        if row.image not in answers:
            raise UsageError(f"{where}: {row.image!r} is not among the scored images of {run.source}; {remedy}")
        if row.predicted != labels[row.image]:
            raise UsageError(
                f"{where}: {row.image!r} is predicted as {labels[row.image]!r} in {run.source}, and as "
                f"{row.predicted!r} in the plan; {remedy}"
            )
    return scored, answers
