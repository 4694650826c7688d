"""Files of all formats, depths, layouts and byte orders give the pixels that independent writers and readers give."""

from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
import pytest
from picture_files import WRITERS, PictureFile

from batchland.errors import ImageError
from batchland.images.preprocess import PreprocessSpec, decode

UNUSUAL = (" (1, 3)", " (1, 4)", " (2, 4)", " (3, 1)", " (4, 2)", ", chroma (1, 2)", ", chroma (2, 1)")
REFUSED = (
    "lossless jpeg 1",
    "lossless jpeg 3",
    *(f"jpeg by hand{factors}" for factors in UNUSUAL),
    *(f"png 0 16 {interlace} {filtering} True" for interlace in (0, 1) for filtering in (0, 1, 2)),
)
"""Files of kinds that are not read. All others must be decoded, and give the expected pixels."""
MAX_DIFFERENCE = 12
"""Largest difference of one value, in units of a file's tolerance: rounding of lossy decoders."""


@cache
def written(writer: Callable[[], Iterator[PictureFile]]) -> tuple[PictureFile, ...]:
    return tuple(writer())


def difference(file: PictureFile) -> str | None:
    """How decoding a file differs from what is expected; None if it does not."""
    try:
        decoded = decode(file.data, PreprocessSpec())
    except ImageError as error:
        return f"{file.name}: {error.code}: {error}"
    if decoded.pixels.shape != file.pixels.shape:
        return f"{file.name}: shape {decoded.pixels.shape}, not {file.pixels.shape}"
    differences = np.abs(decoded.pixels.astype(int) - file.pixels)
    if differences.mean() > file.tolerance or differences.max() > MAX_DIFFERENCE * file.tolerance:
        return f"{file.name}: differs by {differences.mean():.2f} on average, {differences.max()} at most"
    return None


@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.__name__)
def test_pixels_are_those_of_independent_writers_and_readers(writer):
    wrong = {file.name: message for file in written(writer) if (message := difference(file))}
    refused = {name for name, message in wrong.items() if "unsupported_format" in message}
    assert {name: message for name, message in wrong.items() if name not in refused} == {}
    assert refused == {file.name for file in written(writer) if file.name in REFUSED}


def test_the_set_is_large_and_its_names_are_unique():
    names = [file.name for writer in WRITERS for file in written(writer)]
    assert len(names) >= 1000
    assert len(set(names)) == len(names)
