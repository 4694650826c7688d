"""The figures of each image that the monitor uses: about the picture, its file and the model's answer."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from batchland.images.signals import SIGNALS, THUMBNAIL_SIDE
from batchland.predictions.reader import StoredPredictions

Floats = npt.NDArray[np.floating[Any]]

PICTURE: Final = tuple(signal.name for signal in SIGNALS if signal.dtype == "float32")
"""Columns of the predictions that are figures about the picture."""
ANSWER: Final = ("probability", "margin", "entropy", "logsumexp", "top_logit")
"""Columns of the predictions that are figures about the model's answer."""
_LAYOUT: Final = ("top_bottom", "left_right", "centre_border", "sky")
_FILE: Final = ("aspect", "pixels", "bytes_per_pixel")
MEASURES: Final = (*PICTURE, *_LAYOUT, *_FILE, *ANSWER)
"""The columns of `Observations.values`.

Layout, from the thumbnail, 0 to 1: tone of the upper half minus the lower, of the left half minus the right, of the
centre minus the border, and (blue minus red) of the upper half minus the lower. File: base 2 logarithms of width by
height, of their product, and of bytes per pixel.
"""
_SIZE: Final = ("file_size", "width", "height")
_OTHER: Final = ("image", "class_index", "difference_hash", "thumbnail")
COLUMNS: Final = (*_OTHER, *_SIZE, *PICTURE, *ANSWER)
"""Columns of the predictions that `observe` reads."""
MAX_IMAGES: Final = 5000
"""Images of a night that the monitor reads, evenly spaced; more would hardly change its figures."""


@dataclass(frozen=True)
class Observations:
    """The scored images of a night, or some of them. Row i of every array is the same image."""

    values: Floats
    """float32 [n, MEASURES]; NaN where a figure is missing."""
    classes: npt.NDArray[np.int32]
    """Index of the first choice, [n]."""
    hashes: npt.NDArray[np.uint64]
    """Difference hash of the picture, [n]; 0 where there is none."""
    thumbnails: npt.NDArray[np.uint8]
    """[n, 4, 4, 3]; zeros where there is none."""
    names: npt.NDArray[np.str_]
    """Names of the images, [n]."""
    known: Floats | None = None
    """The column `known`, [n]: similarity to known photos; None if the model has no known photos."""

    def __len__(self) -> int:
        return len(self.classes)

    def take(self, rows: npt.NDArray[Any]) -> Self:
        """Some of the images, by index or mask."""
        values = [getattr(self, field.name) for field in fields(self)]
        taken: list[Any] = [None if value is None else value[rows] for value in values]
        return type(self)(*taken)

    def filled(self, used: npt.NDArray[Any]) -> Self:
        """The images, with the median of the others where a figure is missing. used: mask or indices of MEASURES."""
        if np.isfinite(self.values[:, used]).all():
            return self
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of measures without a figure, which are not used
            medians = np.nanmedian(self.values, axis=0)
        return replace(self, values=np.where(np.isfinite(self.values), self.values, medians))

    @classmethod
    def joined(cls, parts: Sequence["Observations"]) -> Self:
        """The images of all parts, in order."""
        columns = [[getattr(part, field.name) for part in parts] for field in fields(cls)]
        joined: list[Any] = [
            None if any(each is None for each in column) else np.concatenate(column) for column in columns
        ]
        return cls(*joined)


NOTHING: Final = Observations(
    np.zeros((0, len(MEASURES)), np.float32),
    np.zeros(0, np.int32),
    np.zeros(0, np.uint64),
    np.zeros((0, THUMBNAIL_SIDE, THUMBNAIL_SIDE, 3), np.uint8),
    np.zeros(0, np.str_),
)
"""No image at all."""


def read_night(stored: StoredPredictions) -> pa.Table | None:
    """COLUMNS, and `known` if it is there, of at most MAX_IMAGES scored images; None if an earlier version wrote them.

    Raises UsageError if the partition is damaged, InputError if it cannot be reached.
    """
    names = stored.schema(stored.parts()[0]).names
    if not set(COLUMNS) <= set(names):
        return None
    columns = [*COLUMNS, *(["known"] if "known" in names else [])]
    batches = stored.rows([*columns, "status"])
    found = [batch.filter(pc.equal(batch["status"], "ok")).select(columns) for batch in batches]
    rows = pa.Table.from_batches(found).combine_chunks()
    if len(rows) <= MAX_IMAGES:
        return rows
    return rows.take(pa.array(np.linspace(0, len(rows) - 1, MAX_IMAGES).astype(np.int64)))


def observe(rows: pa.Table) -> Observations:
    """The images of a table with COLUMNS."""
    cells = rows["thumbnail"].combine_chunks()
    missing = np.zeros(len(rows), bool) if not cells.null_count else cells.is_null().to_numpy(zero_copy_only=False)
    side = THUMBNAIL_SIDE
    joined = b"".join(pc.fill_null(cells, bytes(side * side * 3)).to_numpy(zero_copy_only=False))
    thumbnails = np.frombuffer(joined, np.uint8).reshape(-1, side, side, 3)
    figures = [_floats(rows, name) for name in (*PICTURE, *ANSWER)]
    layout = np.where(missing[:, None], np.nan, _layout(thumbnails))
    size, width, height = (_floats(rows, name) for name in _SIZE)
    with np.errstate(divide="ignore"):
        file = np.log2([width / height, width * height, size / (width * height)])
    values = np.column_stack([*figures[: len(PICTURE)], layout, *file, *figures[len(PICTURE) :]])
    return Observations(
        values.astype(np.float32),
        rows["class_index"].to_numpy().astype(np.int32),
        pc.fill_null(rows["difference_hash"], 0).to_numpy().astype(np.uint64),
        thumbnails,
        np.array(rows["image"].to_pylist(), np.str_),
        _floats(rows, "known") if "known" in rows.column_names else None,
    )


def _floats(rows: pa.Table, name: str) -> Floats:
    return rows[name].to_numpy().astype(np.float64)  # null becomes NaN


def _layout(thumbnails: npt.NDArray[np.uint8]) -> Floats:
    wide = thumbnails.astype(np.float32) / 255
    tones = wide.mean(axis=3)
    half = THUMBNAIL_SIDE // 2
    cold = wide[..., 2] - wide[..., 0]
    inner = tones[:, 1:-1, 1:-1]
    border = (tones.sum(axis=(1, 2)) - inner.sum(axis=(1, 2))) / (
        THUMBNAIL_SIDE**2 - inner[0].size if len(inner) else 1
    )
    return np.column_stack(
        [
            tones[:, :half].mean(axis=(1, 2)) - tones[:, half:].mean(axis=(1, 2)),
            tones[:, :, :half].mean(axis=(1, 2)) - tones[:, :, half:].mean(axis=(1, 2)),
            inner.mean(axis=(1, 2)) - border,
            cold[:, :half].mean(axis=(1, 2)) - cold[:, half:].mean(axis=(1, 2)),
        ]
    )
