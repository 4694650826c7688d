"""Compare an exported file with the trained model: batch by batch, and in top-1 accuracy over a whole set."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from batchland.errors import ModelError
from batchland.images.preprocess import Pixels
from batchland.training.options import Precision

TOLERANCES: Final[dict[Precision, float]] = {"fp32": 1e-3, "fp16": 0.02, "int8": 0.3}
"""Largest difference of a probability that rounding explains; a file that differs more is wrong.

fp32: epsilon (1.2e-7) times 100 layers, logits up to 30 and the steepest slope of softmax (1/4) gives 1e-4; ten times
that covers sums of thousands of terms, which every CPU adds in its own order.
"""
BATCHES: Final = (1, 32, 13)
"""Batch sizes to compare: one image, a full batch, a partial one."""

Probabilities = npt.NDArray[np.float32]
Predict = Callable[[Pixels], Probabilities]
"""Pixels to probabilities, float32 [batch, classes]."""


@dataclass(frozen=True)
class Agreement:
    """The trained model and the file on one batch of real images."""

    batch: int
    same_top1: int
    """Number of images, of `batch`, with the same first class."""
    largest_difference: float
    """Largest absolute difference of a probability."""


def compare_batches(trained: Predict, file: Predict, pixels: Pixels) -> tuple[Agreement, ...]:
    """Run both on one batch of each size in BATCHES; images repeat where there are too few."""
    results = []
    start = 0
    for size in BATCHES:
        batch = pixels[np.arange(start, start + size) % len(pixels)]
        start += size
        results.append(compare_answers(trained(batch), file(batch)))
    return tuple(results)


def compare_answers(trained: Probabilities, file: Probabilities) -> Agreement:
    """Compare two answers for the same images, [images, classes] each."""
    same = int((trained.argmax(1) == file.argmax(1)).sum())
    return Agreement(len(trained), same, float(np.abs(trained - file).max()))


def require_agreement(out: Path, precision: Precision, batches: tuple[Agreement, ...]) -> None:
    """Raise ModelError if a probability differs by more than the tolerance of the precision.

    Within the tolerance, the first class can differ only where two classes are equally likely.
    """
    tolerance = TOLERANCES[precision]
    for each in batches:
        if not each.largest_difference <= tolerance:  # `not <=`, so that nan does not pass
            message = (
                f"{out}: not written, the {precision} file disagrees with PyTorch on a batch of {each.batch} "
                f"validation images: {each.batch - each.same_top1} with another first class, largest difference "
                f"{each.largest_difference:.2g} (allowed {tolerance:g})"
            )
            if precision == "fp32":
                raise ModelError(message, advice="report_disagreement")
            raise ModelError(message, advice="fp32")


def require_accuracy(out: Path, precision: Precision, fp32: float, file: float, max_drop: float) -> None:
    """Raise ModelError if the file's top-1, 0 to 1, is more than `max_drop` percentage points below that of fp32."""
    drop = 100 * (fp32 - file)
    if not drop <= max_drop + 1e-9:
        raise ModelError(
            f"{out}: not written, {precision} loses {drop:.2f} points of top-1 on the validation images ({file:.2%} "
            f"after {fp32:.2%}), more than the {max_drop:g} allowed",
            advice="export_drop",
        )
