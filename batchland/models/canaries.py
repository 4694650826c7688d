"""Canaries: generated image files with the probabilities that a model gave for them when it was made.

Those of `toy.onnx` are in `toy.canaries.parquet`. A night scores them first, and ends if the model, the decoder, the
preprocessing or the device has changed.
"""

import io
import os
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from pydantic import Field, ValidationError

from batchland.errors import ModelError
from batchland.images.preprocess import preprocess
from batchland.models.contract import Probabilities
from batchland.models.probe_pictures import probe_pictures
from batchland.models.session import Session
from batchland.system.arrow import column
from batchland.system.documents import Document
from batchland.system.files import write_file
from batchland.system.text import first_line

METADATA_KEY: Final = b"batchland"
TOLERANCE: Final = 0.05
"""Largest difference of a probability: other devices and decoders differ by less, wrong pixels by more."""
TOLERANCE_INT8: Final = 0.2
"""The products of int8 models differ more between processors."""
_WIDE_RANGE: Final = 0.2
"""A model whose probabilities differ less than this between pictures gets a smaller tolerance, in proportion."""
_MIN_TOLERANCE: Final = 1e-4
_SIDES: Final = (64, 97, 150, 233, 320)
"""Sides of the generated pictures, in pixels."""
_FORMATS: Final[tuple[dict[str, Any], ...]] = (
    {"format": "JPEG", "quality": 92, "subsampling": "4:4:4"},
    {"format": "JPEG", "quality": 80, "subsampling": "4:2:0"},
    {"format": "JPEG", "quality": 85, "progressive": True},
    {"format": "PNG"},
    {"format": "JPEG", "quality": 88, "exif": {0x0112: 6}},
    {"format": "WEBP", "quality": 90},
)
"""For Pillow, used in turn. The fifth is stored on its side, with an EXIF orientation."""
COUNT: Final = 24

CANARIES: Final = pa.schema(
    [
        column("name", pa.string(), "File name of the image.", nullable=False),
        column("data", pa.binary(), "Content of the image file.", nullable=False),
        column(
            "probabilities", pa.list_(pa.float32()), "Probability of each class, in the model's order.", nullable=False
        ),
    ]
)
"""`NAME.canaries.parquet` beside `NAME.onnx`: one row per image file."""


class CanaryInfo(Document):
    """The metadata of a file of canaries."""

    schema_version: int = Field(default=1, ge=1, le=1)
    model_sha256: str
    """sha256 of the ONNX file that gave the probabilities."""
    tolerance: float
    """Largest accepted difference of a probability."""


class Canaries(NamedTuple):
    """The canaries of a model."""

    info: CanaryInfo
    files: dict[str, bytes]
    """Image files by name, in order."""
    probabilities: Probabilities
    """float32 [files, classes]."""


def canaries_path(model: Path) -> Path:
    """The file of a model's canaries."""
    return model.with_suffix(".canaries.parquet")


def write_canaries(session: Session) -> Path:
    """Draw image files, score them, and write them beside the model. Raises ModelError, OutputError."""
    files = drawn_files()
    pixels = np.stack([preprocess(data, session.card.preprocess) for data in files.values()])
    probabilities = np.concatenate([session.predict(pixels[start : start + 1]) for start in range(len(pixels))])
    table = pa.table([list(files), list(files.values()), list(probabilities)], schema=CANARIES)
    int8 = session.card.int8 is not None
    limit = TOLERANCE_INT8 if int8 else TOLERANCE
    tolerance = limit * min(1.0, float(np.ptp(probabilities, axis=0).max()) / _WIDE_RANGE)
    info = CanaryInfo(model_sha256=session.sha256, tolerance=max(_MIN_TOLERANCE, tolerance))
    table = table.replace_schema_metadata({METADATA_KEY: info.model_dump_json()})
    path = canaries_path(session.path)
    write_file(path, lambda file: pq.write_table(table, file))
    return path


def read_canaries(model: Path) -> Canaries | None:
    """The canaries beside a model; None if it has none. Raises ModelError if they cannot be read."""
    path = canaries_path(model)
    if not os.path.lexists(path):
        return None
    try:
        with pq.ParquetFile(path) as file:
            table = file.read()
        info = CanaryInfo.model_validate_json(table.schema.metadata[METADATA_KEY])
        files = dict(zip(table["name"].to_pylist(), table["data"].to_pylist(), strict=True))
        probabilities = np.array(table["probabilities"].to_pylist(), np.float32)
        if not probabilities.size:
            raise ValueError("it has no probabilities")
        return Canaries(info, files, probabilities)
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError, ValidationError) as error:
        problem = first_line(error)
        raise ModelError(
            f"{path}: not canaries that this version of batchland can read ({problem}); make the model again"
        ) from error


def own_canaries(model: Path, sha256: str) -> Canaries | None:
    """As `read_canaries`. sha256: of the model file. Raises ModelError, too, if they are of another model file."""
    canaries = read_canaries(model)
    if canaries and canaries.info.model_sha256 != sha256:
        raise ModelError(
            f"{model}: is another model than the one of {canaries_path(model)} (sha256 {sha256[:12]}, not "
            f"{canaries.info.model_sha256[:12]}); restore the model of these canaries, or the canaries of this model"
        )
    return canaries


@cache
def drawn_files() -> dict[str, bytes]:
    """Small image files of several formats and shapes, by name."""
    shapes = [(side, _SIDES[(3 * index + 2) % len(_SIDES)], 3) for index, side in enumerate(_SIDES)]
    drawn = [probe_pictures(shape, 2 * COUNT) for shape in shapes]
    files = {}
    for number in range(COUNT):
        # Mostly patches of colour, which have even indices; noise takes much space.
        picture = drawn[number % len(shapes)][2 * number + (number % 6 == 1)]
        options = dict(_FORMATS[number % len(_FORMATS)])
        if tags := options.pop("exif", None):
            exif = Image.Exif()
            exif.update(tags)
            options["exif"] = exif.tobytes()
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, **options)
        files[f"{number:02}.{options['format'].lower()}"] = buffer.getvalue()
    return files
