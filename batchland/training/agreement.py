"""Whether an exported file answers as the trained model does: batch by batch, and in top-1 over a whole set."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from batchland.errors import ModelError
from batchland.images.preprocess import Pixels
from batchland.training.options import Precision

TOLERANCES: Final[dict[Precision, float]] = {"fp32": 1e-4, "fp16": 0.02, "int8": 0.3}
"""Largest difference of a probability that counts as agreement; beyond it a file is no rounded twin but a wrong one."""
BATCHES: Final = (1, 32, 13)
"""Sizes that the two must agree at: one image, a full batch, a ragged one."""

Probabilities = npt.NDArray[np.float32]
Scorer = Callable[[Pixels], Probabilities]
"""Pixels to probabilities, float32 [batch, classes]."""


@dataclass(frozen=True)
class Agreement:
    """The trained model and the file on one batch of real images."""

    batch: int
    same_top1: int
    """Images, of `batch`, with the same first class."""
    largest_difference: float
    """Of any probability."""


def compare(trained: Scorer, file: Scorer, pixels: Pixels) -> tuple[Agreement, ...]:
    """Both on the same batches, one for each size in BATCHES; images repeat where there are too few."""
    results = []
    start = 0
    for size in BATCHES:
        batch = pixels[np.arange(start, start + size) % len(pixels)]
        start += size
        results.append(agreement(trained(batch), file(batch)))
    return tuple(results)


def agreement(trained: Probabilities, file: Probabilities) -> Agreement:
    """Both answers for the same images."""
    same = int((trained.argmax(1) == file.argmax(1)).sum())
    return Agreement(len(trained), same, float(np.abs(trained - file).max()))


def require_agreement(out: Path, precision: Precision, batches: tuple[Agreement, ...]) -> None:
    """Raise ModelError unless all batches agree: in fp32 on every first class, always within the tolerance."""
    tolerance = TOLERANCES[precision]
    for each in batches:
        same = each.same_top1 == each.batch or precision != "fp32"
        # `not <=`, so that a difference of nan does not pass
        if not same or not each.largest_difference <= tolerance:
            raise ModelError(
                f"{out}: not written, the {precision} file disagrees with PyTorch on a batch of {each.batch} "
                f"validation images: {each.batch - each.same_top1} with another first class, largest difference "
                f"{each.largest_difference:.2g} (allowed {tolerance:g}); "
                + ("please report this with the versions in use" if precision == "fp32" else "use --precision fp32")
            )


def require_accuracy(out: Path, precision: Precision, fp32: float, file: float, max_drop: float) -> None:
    """Raise ModelError if the file's top-1, 0 to 1, is more than `max_drop` percentage points below that in fp32."""
    drop = 100 * (fp32 - file)
    if not drop <= max_drop + 1e-9:
        raise ModelError(
            f"{out}: not written, {precision} loses {drop:.2f} points of top-1 on the validation images ({file:.2%} "
            f"after {fp32:.2%}), and --max-drop allows {max_drop:g}; use another --precision"
        )
