"""How to evaluate and how to compare."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from batchland.system.options import Options


def _each_once(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


class EvaluateOptions(Options):
    """How to evaluate. Classes come from the predictions' metadata, so no option can contradict them."""

    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Confidence level of all intervals."""
    resamples: Annotated[int, Field(ge=200, le=100_000)] = 1000
    """Bootstrap resamples, for intervals of calibration errors: 200 to 100,000."""
    bins: Annotated[int, Field(ge=2, le=100)] = 15
    """Equal-width bins of the reliability curve."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the bootstrap and of the brightness sample."""
    ignore_unknown_classes: bool = False
    """Leave out images of classes that the model does not know, instead of stopping."""
    strip_prefix: str = ""
    """Remove this from the start of the predictions' image names before matching. `*` matches any characters except
    `/`, as in `*.tar/`."""
    images: Path | None = None
    """Folder where the images are now, for thumbnails and brightness. Default: the folder that was scored."""
    brightness_sample: Annotated[int, Field(ge=0, le=10_000_000)] = 2000
    """Number of images to measure the brightness of; 0 for none."""
    by: Annotated[tuple[str, ...], AfterValidator(_each_once)] = ()
    """Also slice by these columns of the image list or of the table of labels, and by any two of them."""
    corrections: Path | None = None
    """CSV file of corrected labels, as saved by the report's page; labels with the decision `wrong` are replaced."""
    promise: tuple[str, ...] = ()
    """Find the probability thresholds that keep a promise for the answers above them, e.g. "error <= 2%"."""


class CompareOptions(Options):
    """How to compare two evaluations."""

    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Confidence level of all intervals."""
    resamples: Annotated[int, Field(ge=200, le=100_000)] = 1000
    """Bootstrap resamples, for intervals of calibration errors: 200 to 100,000."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the bootstrap."""
    images: Path | None = None
    """Folder where the images are now, for thumbnails. Default: the folder that the first evaluation's run scored."""
