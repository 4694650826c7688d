"""Answers by class and confidence, to weigh errors against the cost of human review (templates/costs.js)."""

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from batchland.evaluation.evaluate import Evaluation

STEPS: Final = 100
"""Thresholds on the page are multiples of 1 / STEPS."""
MAX_CLASSES: Final = 200
"""With more classes, there is only one threshold for all of them."""


def cost_data(evaluation: "Evaluation") -> dict[str, Any] | None:
    """Scored images by predicted class and step of confidence; None without a scored image.

    `classes` holds, for each class of the model, triples (step, images, right ones), flat, for steps with images. If
    there are too many classes, it holds one entry for all.
    """
    if not evaluation.summary.account.scored:
        return None
    labels = [name.label for name in evaluation.summary.classes]
    groups = len(labels) if len(labels) <= MAX_CLASSES else 1
    thresholds = (np.arange(STEPS + 1) / STEPS).astype(np.float32)  # like the probabilities
    images, right = np.zeros(groups * (STEPS + 1), np.int64), np.zeros(groups * (STEPS + 1), np.int64)
    for batch in evaluation.outcomes_file.batches(["predicted_index", "correct", "probability"]):
        scored = batch.filter(batch["correct"].is_valid())
        step = np.searchsorted(thresholds, scored["probability"].to_numpy(), side="right") - 1
        group = scored["predicted_index"].to_numpy().astype(np.int64) if groups > 1 else np.zeros_like(step)
        place = group * (STEPS + 1) + step
        hits = scored["correct"].cast(pa.int64()).to_numpy(zero_copy_only=False)
        images += np.bincount(place, minlength=len(images))
        right += np.bincount(place, hits, len(right)).astype(np.int64)
    table = np.stack([images, right], axis=1).reshape(groups, STEPS + 1, 2)
    found = [[int(value) for step in np.flatnonzero(rows[:, 0]) for value in (step, *rows[step])] for rows in table]
    return {"labels": labels if groups > 1 else [], "steps": STEPS, "classes": found}
