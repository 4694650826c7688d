"""Find near-duplicates within and between predictions: of data sets, nights, or train and test."""

import logging
from collections.abc import Sequence
from typing import Annotated, Final, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from pydantic import Field

from batchland.embeddings.copies import Copies, copy_limit, equal_files, find_copies, groups, joined
from batchland.embeddings.lists import has_lists
from batchland.embeddings.pictures import Pictures, read_pictures
from batchland.embeddings.signatures import signatures
from batchland.errors import UsageError
from batchland.images.signals import BLANK_CONTRAST, THUMBNAIL_SIDE
from batchland.predictions.storage import Location
from batchland.system.arrow import column
from batchland.system.documents import Count, Document
from batchland.system.options import Options
from batchland.system.text import images

DUPLICATES: Final = pa.schema(
    [
        column("group", pa.int32(), "Number of the group, from 1.", nullable=False),
        column("predictions", pa.string(), "The predictions with the image, as given.", nullable=False),
        column("image", pa.string(), "Path below the scored root, `/` separated.", nullable=False),
        column("label", pa.string(), "Label of the class with the highest probability."),
        column("probability", pa.float32(), "Probability of that class, 0 to 1."),
        column("sha256", pa.string(), "sha256 of the file; equal values mean equal files."),
        column("distance", pa.float32(), "Distance to the nearest other image of the group, 0 for equal pictures."),
        column("mirrored", pa.bool_(), "Whether that image is a mirror image.", nullable=False),
    ]
)
"""One row per image that has a copy; groups in the order of their first image."""


APPROXIMATE_FROM: Final = 200_000
"""Number of pictures. With fewer, an exact search takes minutes (benchmarks/results/indexes.md)."""
_log: Final = logging.getLogger("batchland")


class DuplicateOptions(Options):
    """Options of the search for copies."""

    mirrored: bool = False
    """Also find copies that are mirrored left to right."""
    across: bool = False
    """Only groups with images from more than one of the predictions files."""
    distance: Annotated[float, Field(gt=0, le=2)] | None = None
    """Largest distance of two copies. Smaller values miss cropped copies; larger ones report other photos as copies.
    Default: 0.63, or 0.68 with features that distinguish the images."""


class DuplicateImage(Document):
    """An image that has a copy."""

    predictions: str
    image: str
    label: str | None
    """Label of the class with the highest probability."""
    probability: float | None
    """Probability of that class, 0 to 1."""
    sha256: str | None
    distance: float
    """Distance to the nearest other image of the group; 0 for equal pictures."""
    mirrored: bool
    """Whether that image is a mirror image."""


class DuplicateGroup(Document):
    """Images that are copies of each other."""

    images: tuple[DuplicateImage, ...]
    identical: bool
    """Whether all are the same file."""
    across: bool
    """Whether they are in more than one of the predictions."""
    labels: Count
    """Number of different first choices."""


class Duplicates(Document):
    """Printed by `batchland duplicates --json`."""

    schema_version: Literal[1] = 1
    kind: Literal["batchland.duplicates"] = "batchland.duplicates"
    predictions: tuple[str, ...]
    images: Count
    """Number of scored images that were compared."""
    blank: Count
    """Number of scored images of one colour, which were not compared."""
    without_signals: Count
    """Number of scored images that were only compared by sha256, because their predictions have no difference hash."""
    used_features: bool
    """Whether features were compared, too."""
    distance: float
    """Largest distance of two copies."""
    approximate: bool
    """Whether an index was used, which may miss some copies."""
    groups: tuple[DuplicateGroup, ...]


class FoundDuplicates(NamedTuple):
    """Result of `find_duplicates`."""

    result: Duplicates
    table: pa.Table
    """The same groups as a table, DUPLICATES."""
    roots: dict[str, str]
    """The scored folder of each of the predictions."""


def find_duplicates(predictions: Sequence[Location], options: DuplicateOptions | None = None) -> FoundDuplicates:
    """Groups of copies in one or more predictions.

    Images with the same sha256 are always copies at distance 0; images without signals are only compared by it. From
    APPROXIMATE_FROM images on, faiss is used if it is installed (the extra `index`), and some copies may be missed.

    Raises UsageError if predictions cannot be read, are of an earlier version, or have no scored image.
    """
    options = options or DuplicateOptions()
    if options.across and len(predictions) == 1:
        raise UsageError(f"{predictions[0]}: across compares several predictions; give two or more")
    pictures = read_pictures(predictions)
    contrast = pictures.facts["contrast"].to_numpy()  # NaN where there are no signals
    is_blank = contrast < BLANK_CONTRAST
    pictures, is_measured = pictures.filter(~is_blank), ~np.isnan(contrast[~is_blank])
    measured, (rows,) = pictures.filter(is_measured), np.nonzero(is_measured)
    approximate = len(measured) >= APPROXIMATE_FROM and has_lists()
    if len(measured) >= APPROXIMATE_FROM and not approximate:
        _log.warning("%s are compared exactly; pip install 'batchland[index]' takes less time", images(len(measured)))
    vectors = picture_signatures(measured)
    limit = copy_limit(vectors, measured.features) if options.distance is None else options.distance
    copies = find_copies(
        vectors,
        measured.features,
        also_mirrored=options.mirrored,
        limit=limit,
        approximate=approximate,
    )
    copies = copies._replace(left=rows[copies.left], right=rows[copies.right])
    copies = joined(copies, equal_files(pictures.facts["sha256"].to_numpy()))
    found = groups(len(pictures), copies)
    if options.across:
        of = pictures.facts["source"].to_numpy()
        found = [rows for rows in found if len(set(of[rows].tolist())) > 1]
    table = _table(pictures, copies, found)
    result = Duplicates(
        predictions=pictures.sources,
        images=len(pictures),
        blank=int(is_blank.sum()),
        without_signals=len(pictures) - len(measured),
        used_features=measured.features is not None,
        distance=limit,
        approximate=approximate,
        groups=_groups(table),
    )
    return FoundDuplicates(result, table, dict(zip(pictures.sources, pictures.roots, strict=True)))


def picture_signatures(pictures: Pictures) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Signatures of pictures that have signals."""
    cells = b"".join(pictures.facts["thumbnail"].to_pylist())
    thumbnails = np.frombuffer(cells, np.uint8).reshape(len(pictures), THUMBNAIL_SIDE * THUMBNAIL_SIDE * 3)
    return signatures(pictures.facts["difference_hash"].to_numpy().astype(np.uint64), thumbnails)


def _table(pictures: Pictures, copies: Copies, found: Sequence[np.ndarray[tuple[int], np.dtype[np.int64]]]) -> pa.Table:
    distance = np.full(len(pictures), np.inf, np.float32)
    is_mirrored = np.zeros(len(pictures), bool)
    for one in (copies.left, copies.right):
        np.minimum.at(distance, one, copies.distance)
    for one in (copies.left, copies.right):
        nearest = copies.distance <= distance[one]
        is_mirrored[one[nearest]] = copies.is_mirrored[nearest]
    rows = np.concatenate([np.zeros(0, np.int64), *found])
    facts = pictures.facts.take(pa.array(rows))
    number = np.repeat(np.arange(1, len(found) + 1), [len(each) for each in found])
    columns = {
        "group": pa.array(number.astype(np.int32)),
        "predictions": pa.array(pictures.sources, pa.string()).take(facts["source"].combine_chunks()),
        **{name: facts[name] for name in ("image", "label", "probability", "sha256")},
        "distance": pa.array(distance[rows]),
        "mirrored": pa.array(is_mirrored[rows]),
    }
    return pa.table([columns[field.name] for field in DUPLICATES], schema=DUPLICATES)


def _groups(table: pa.Table) -> tuple[DuplicateGroup, ...]:
    by_group: dict[int, list[DuplicateImage]] = {}
    for row in table.to_pylist():
        by_group.setdefault(row.pop("group"), []).append(DuplicateImage(**row))
    return tuple(
        DuplicateGroup(
            images=tuple(images),
            identical=len({image.sha256 for image in images}) == 1 and images[0].sha256 is not None,
            across=len({image.predictions for image in images}) > 1,
            labels=len({image.label for image in images}),
        )
        for images in by_group.values()
    )
