"""Choose images to label, so that the accuracy can be estimated from few labels.

Images are divided into strata by the probability of their first choice. Labels are allotted to the strata by size and
expected variance of right and wrong answers (Neyman allocation), so strata of confident answers need few labels; a part
is allotted by size alone, in case the probabilities are wrong. Because each stratum is sampled at random and weighted,
the estimate is unbiased even if the probabilities are wrong.
"""

from bisect import bisect_left
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from batchland.errors import UsageError
from batchland.evaluation.intervals import Floats, Ints, wilson
from batchland.evaluation.outcomes import Predictions, read_predictions
from batchland.evaluation.schema import Figure
from batchland.system.arrow import column
from batchland.system.documents import Count, Document
from batchland.system.options import Options
from batchland.system.text import counted

STRATA: Final = 8
MIN_BUDGET: Final = 40
"""Images."""
BY_SIZE: Final = 0.25
"""Share of the labels that is allotted by size alone."""
MIN_LABELS: Final = 4
"""Least number of labels of a stratum."""
PAYS_FROM: Final = 1.3
"""A plan is worth it if a random choice needs at least this many times its labels for the same interval."""
_MIN_VARIANCE: Final = 1e-4
"""Least variance that is expected of answers: probabilities of exactly 1 may be wrong."""
LABEL_PLAN: Final = pa.schema(
    [
        column("image", pa.string(), "Path below the scored root, as in the predictions.", nullable=False),
        column("label", pa.string(), "Empty; fill in the true class.", nullable=False),
        column("predicted", pa.string(), "The first choice.", nullable=False),
        column("probability", pa.float32(), "Probability of the first choice.", nullable=False),
        column("stratum", pa.int32(), "Group of images with similar probabilities, from 0.", nullable=False),
        column("weight", pa.float64(), "Number of images that this image represents.", nullable=False),
    ]
)
"""The CSV file of `batchland label-plan`: one row per image to label, in random order."""


class LabelPlanOptions(Options):
    """How to choose images for labelling."""

    budget: int = Field(default=200, ge=MIN_BUDGET, le=1_000_000)
    """Images to choose."""
    seed: int = Field(default=0, ge=0)
    """Seed of the choice."""


class LabelPlan(Document):
    """The expected precision of a plan, if the model's probabilities are right."""

    images: Count
    """Scored images to choose from."""
    chosen: Count
    half_width: float
    """Expected half of the width of the accuracy's 95% interval."""
    random_labels: Count
    """Number of images chosen at random that would give the same interval."""
    pays: bool
    """Whether the plan needs clearly fewer labels than a random choice."""


class Planned(NamedTuple):
    """A plan and its table."""

    plan: LabelPlan
    table: pa.Table
    """The plan, with the schema LABEL_PLAN."""


def plan_labels(predictions: str | Path, options: LabelPlanOptions | None = None) -> Planned:
    """Choose images of a predictions file to label. Raises UsageError if there are too few scored images."""
    options = options or LabelPlanOptions()
    run = read_predictions(predictions)
    probability = first_probabilities(run)
    if len(probability) < 2 * options.budget:
        raise UsageError(
            f"{run.source}: has {counted(len(probability), 'scored image')}, less than twice the {options.budget} to "
            f"label; label all of them"
        )
    stratum, labels, plan = allot(probability, options.budget)
    rng = np.random.default_rng(options.seed)
    chosen = np.concatenate(
        [rng.choice(np.flatnonzero(stratum == i), count, replace=False) for i, count in enumerate(labels.tolist())]
    )
    rng.shuffle(chosen)
    weights = np.bincount(stratum) / labels
    rows = _rows(run, np.sort(chosen))
    order = np.searchsorted(np.sort(chosen), chosen)
    table = pa.table(
        [
            rows["image"].take(pa.array(order)),
            pa.repeat(pa.scalar(""), len(chosen)),
            rows["label"].take(pa.array(order)),
            pa.array(probability[chosen]),
            pa.array(stratum[chosen].astype(np.int32)),
            pa.array(weights[stratum[chosen]]),
        ],
        schema=LABEL_PLAN,
    )
    return Planned(plan, table)


def first_probabilities(run: Predictions) -> npt.NDArray[np.float32]:
    """Probability of the first choice of each scored image, in order."""
    blocks = (batch["probability"].to_numpy() for batch in run.scored(["probability"]))
    return np.concatenate([np.zeros(0, np.float32), *blocks])


def allot(probability: npt.NDArray[np.float32], budget: int) -> tuple[Ints, Ints, LabelPlan]:
    """Stratum of each image, labels of each stratum, and the expected precision. probability: of the first choices."""
    stratum = _strata(probability)
    sizes = np.bincount(stratum)
    expected = np.bincount(stratum, probability) / sizes
    labels = _allotted(sizes, np.sqrt(_variance(expected, float(probability.mean()))), budget)
    return stratum, labels, _worth(sizes, labels, expected)


def estimated_accuracy(stratum: Ints, right: npt.NDArray[np.bool_], images: Floats, confidence: float = 0.95) -> Figure:
    """Accuracy over all images, from the labelled images of a plan.

    stratum, right: of the labelled images. images: numbers of images that the strata with a label represent, in order.

    The interval is Wilson's with the effective number of labels. For the variance of a stratum, one right and one wrong
    answer are added, because few labels may all be right by chance.
    """
    index = np.unique(stratum, return_inverse=True)[1]
    value, low, high = _accuracy(images, np.bincount(index), np.bincount(index, right), confidence)
    return Figure(value=value, low=low, high=high)


def _accuracy(
    images: Floats | Ints, labels: Ints, hits: Floats | Ints, confidence: float = 0.95
) -> tuple[float, float, float]:
    """Accuracy and its interval. labels, hits: numbers of labelled images of each stratum, and of right ones."""
    sizes = images / images.sum()
    value = float((sizes * hits / labels).sum())
    smoothed = (hits + 1) / (labels + 2)
    variance = float((sizes**2 * smoothed * (1 - smoothed) / labels).sum())
    centre = float((sizes * smoothed).sum())
    effective = max(centre * (1 - centre) / variance, len(labels)) if variance else float(labels.sum())
    low, high = wilson(value * effective, effective, confidence)
    return value, float(low), float(high)


def _rows(run: Predictions, chosen: Ints) -> pa.Table:
    """Image and label of the scored images with these numbers. chosen: in order."""
    found, start = [], 0
    for batch in run.scored(["image", "label"]):
        first, last = np.searchsorted(chosen, [start, start + len(batch)])
        found.append(batch.take(pa.array(chosen[first:last] - start)))
        start += len(batch)
    return pa.Table.from_batches(found).combine_chunks()


def _strata(probability: npt.NDArray[np.float32]) -> Ints:
    """Stratum of each image: bounds that give each stratum the same sum of expected spreads (Dalenius and Hodges)."""
    order = np.argsort(probability, kind="stable")
    spread = np.sqrt(np.maximum(probability[order].astype(np.float64) * (1 - probability[order]), _MIN_VARIANCE))
    shares = np.cumsum(spread) / spread.sum()
    bounds = probability[order][np.searchsorted(shares, np.arange(1, STRATA) / STRATA)]
    found = np.searchsorted(np.unique(bounds), probability, side="left")
    return np.unique(found, return_inverse=True)[1]


def _variance(expected: Floats, mean: float) -> Floats:
    """Expected variance of right and wrong answers in strata, with an allowance for errors of the probabilities."""
    rate = 0.85 * expected + 0.15 * mean
    return np.maximum(rate * (1 - rate), _MIN_VARIANCE)


def _allotted(sizes: Ints, spread: Floats, budget: int) -> Ints:
    """Labels of each stratum; their sum is the budget."""
    share = (1 - BY_SIZE) * sizes * spread / (sizes * spread).sum() + BY_SIZE * sizes / sizes.sum()
    labels: Ints = np.minimum(np.maximum(np.floor(share * budget).astype(np.int64), MIN_LABELS), sizes)
    while (spare := budget - int(labels.sum())) != 0:
        room = labels < sizes if spare > 0 else labels > MIN_LABELS
        wanted = np.where(room, (share * budget - labels) * np.sign(spare), -np.inf)
        labels[int(np.argmax(wanted))] += int(np.sign(spare))
    return labels


def _worth(sizes: Ints, labels: Ints, expected: Floats) -> LabelPlan:
    mean, low, high = _accuracy(sizes, labels, labels * expected)

    def is_narrower(count: int) -> bool:
        """Whether the interval of `count` images chosen at random is at most as wide."""
        ends = wilson(mean * count, count, 0.95)
        return bool(ends.high - ends.low <= high - low)

    random_labels = bisect_left(range(int(sizes.sum())), True, lo=1, key=is_narrower)
    return LabelPlan(
        images=int(sizes.sum()),
        chosen=int(labels.sum()),
        half_width=(high - low) / 2,
        random_labels=random_labels,
        pays=random_labels >= PAYS_FROM * labels.sum(),
    )
