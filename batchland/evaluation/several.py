"""Compare several evaluations of the same images at once: accuracies, and all pairs with corrected p-values.

comparison = compare_several([read_report("a/"), read_report("b/"), read_report("c/")])
"""

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from batchland.errors import UsageError
from batchland.evaluation.intervals import holm, mcnemar_exact, paired_difference, rate
from batchland.evaluation.join import Join
from batchland.evaluation.report_names import different_names, report_folder
from batchland.evaluation.schema import Figure
from batchland.system.documents import Count, Document

if TYPE_CHECKING:
    from batchland.evaluation.evaluate import Evaluation
    from batchland.evaluation.saved import Report


_LEVEL: Final = 0.05
"""Adjusted p-values below it are more than chance."""


class ComparedModel(Document):
    """One of the evaluations."""

    name: str
    source: str
    """Path of the predictions."""
    report: str | None
    """Its folder; None if it was not read from one."""
    right: Count
    accuracy: Figure
    """Over the common images. Wilson."""
    maybe_best: bool
    """Whether it is the best one, or not worse than that by more than chance."""


class ComparedPair(Document):
    """Two of the evaluations, the one with the higher accuracy first. The difference may be chance."""

    higher: str
    lower: str
    only_higher: Count
    """Images that only the first one has right."""
    only_lower: Count
    difference: float
    low: float
    high: float
    """Interval of the difference (Bonett and Price, paired)."""
    p_adjusted: float
    """Exact McNemar test, adjusted by Holm for all pairs."""


class SeveralCompared(Document):
    """`summary.json` of a comparison of several evaluations. Written last."""

    schema_version: Literal[1] = 1
    kind: Literal["batchland.several"] = "batchland.several"
    images: Count
    """Scored by all, with the same label in all."""
    left_out: Count
    """Images that are in some, but not compared."""
    by_content: Count
    """Images with different paths, joined by the sha256 of their files."""
    models: tuple[ComparedModel, ...]
    """The models, highest accuracy first."""
    pairs: tuple[ComparedPair, ...]
    confidence: float


def compare_several(reports: "Sequence[Report | Evaluation]", confidence: float = 0.95) -> SeveralCompared:
    """Compare over the images that all scored: with the same path, or else the same content.

    The memory used is a byte for each image and report. Two reports with the same answers and probabilities for all
    images have an interval of exactly 0. Raises UsageError if there is no image that all scored with the same label.
    """
    names = different_names(reports)
    join = Join(reports)
    blocks = [np.zeros((0, len(reports)), bool)]
    same = np.ones((len(reports), len(reports)), bool)
    for block in join.blocks():
        compared = block.ok.all(axis=1) & (block.truth == block.truth[:, :1]).all(axis=1)
        blocks.append((block.predicted == block.truth)[compared])
        for answers in (block.predicted[compared], block.probability[compared]):
            same &= (answers[:, :, None] == answers[:, None, :]).all(axis=0)
    right = np.concatenate(blocks).T
    images = right.shape[1]
    if not images:
        raise UsageError(f"{', '.join(names)}: no image was scored with the same label in all; compare the same images")
    order = np.argsort(-right.sum(axis=1), kind="stable")
    pairs = list(combinations(order.tolist(), 2))
    counts = [(int((right[a] & ~right[b]).sum()), int((right[b] & ~right[a]).sum())) for a, b in pairs]
    adjusted = holm([mcnemar_exact(*each) for each in counts])
    bounds = paired_difference([b for _, b in counts], [a for a, _ in counts], images, confidence)
    low, high = (np.where([same[pair] for pair in pairs], 0.0, ends) for ends in bounds)
    found = tuple(
        ComparedPair(
            higher=names[a],
            lower=names[b],
            only_higher=counts[i][0],
            only_lower=counts[i][1],
            difference=(counts[i][0] - counts[i][1]) / images,
            low=float(low[i]),
            high=float(high[i]),
            p_adjusted=float(adjusted[i]),
        )
        for i, (a, b) in enumerate(pairs)
    )
    best = names[order[0]]
    worse = {pair.lower for pair in found if pair.higher == best and pair.p_adjusted < _LEVEL}
    models = tuple(
        ComparedModel(
            name=names[i],
            source=reports[i].summary.predictions,
            report=report_folder(reports[i]),
            right=int(right[i].sum()),
            accuracy=rate(int(right[i].sum()), images, confidence),
            maybe_best=names[i] not in worse,
        )
        for i in order
    )
    return SeveralCompared(
        images=images,
        left_out=join.joined - images + join.left_out,
        by_content=join.by_content,
        models=models,
        pairs=found,
        confidence=confidence,
    )
