"""Options of downloading, unpacking and splitting a data set."""

import math
import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, field_validator

from batchland.system.options import Options


def _sha256(text: str) -> str:
    if not re.fullmatch("[0-9a-fA-F]{64}", text):
        raise ValueError("should be 64 hexadecimal digits")
    return text


class UnpackLimits(Options):
    """Limits for unpacking an archive. Photo data sets stay below them; zip bombs exceed them."""

    max_bytes: Annotated[int, Field(gt=0)] = 64 << 30
    """Largest archive to accept, packed and unpacked, in bytes."""
    max_files: Annotated[int, Field(gt=0)] = 1_000_000
    """Files and folders."""
    max_ratio: Annotated[float, Field(gt=0)] = 100.0
    """Unpacked bytes per byte of the archive, checked from 64 MiB on. Photos stay near 1; bombs reach thousands."""


class DownloadOptions(Options):
    """Limits and the expected hash of a downloaded archive."""

    sha256: Annotated[str, AfterValidator(_sha256)] | None = None
    """Expected SHA-256 of the archive, 64 hexadecimal digits; each download prints it. Default: any."""
    limits: UnpackLimits = UnpackLimits()


class SplitOptions(Options):
    """How to split a data set."""

    parts: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")], Annotated[float, Field(gt=0, lt=1)]] = Field(
        default={"train": 0.8, "val": 0.2}
    )
    """Two or three folders and their shares, which add up to 1; the first ones are rounded down, class by class."""
    seed: int = 1337
    """Seed of the random split."""
    links: bool = False
    """Make symbolic links to the photos instead of copies."""
    corrections: Path | None = None
    """CSV file of corrected labels, as a report's page saves it: those photos go to the folder of that label."""
    near_copies: bool = True
    """Put photos of a class that are nearly the same (resized, compressed, cropped, stamped) into the same part."""
    model: Path | None = None
    """A model with features: compare these, too, to find more cropped near-copies."""
    group_prefix: re.Pattern[str] | None = None
    """Regular expression for the start of file names. Photos of a class with the same match go to the same part:
    `[^-]+` keeps scene7-1.jpg and scene7-2.jpg together."""

    @field_validator("parts")
    @classmethod
    def _sums_to_one(cls, parts: dict[str, float]) -> dict[str, float]:
        if len(parts) not in (2, 3) or not math.isclose(sum(parts.values()), 1, abs_tol=1e-6):
            raise ValueError("should be two or three parts with shares that add up to 1")
        return parts
