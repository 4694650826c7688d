"""Accuracy over parts of the images: by size, shape, file size, format, folder, brightness."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from batchland.errors import ImageError
from batchland.evaluation.intervals import Floats, Ints, holm, wilson
from batchland.evaluation.outcomes import Outcomes
from batchland.evaluation.schema import Figure, Slice
from batchland.images.preprocess import PreprocessSpec, preprocess
from batchland.system.cores import usable_cores
from batchland.system.names import file_name

MAX_VALUES: Final = 12
"""Most values of one dimension; the smallest ones are merged into `others`."""
MEGAPIXELS: Final = (0.1, 0.5, 2.0, 8.0)
KILOBYTES: Final = (20, 100, 500, 2000)
BRIGHTNESS: Final = (64, 96, 128, 160, 192)
"""Mean luma of a picture, 0 to 255."""
_BRIGHTNESS_SPEC: Final = PreprocessSpec(height=32, width=32, jpeg_scale="auto")


class _Parts(NamedTuple):
    """One dimension: per image the index of its value (-1 without one), and the names of the values."""

    dimension: str
    value: npt.NDArray[np.int64]
    names: tuple[str, ...]


def slices(
    outcomes: Outcomes,
    *,
    confidence: float,
    image_root: Path,
    brightness_sample: int,
    seed: int,
) -> tuple[Slice, ...]:
    """Accuracy by part. Dimensions with the same value for all images are left out.

    Brightness is measured on a random sample of at most `brightness_sample` images that still exist below `image_root`.
    """
    ok = outcomes.ok
    if not ok.any():
        return ()
    right = (outcomes.truth == outcomes.predicted)[ok]
    images = outcomes.images.filter(pa.array(ok))
    facts = outcomes.facts.filter(pa.array(ok))
    width, height, file_size = (_numbers(facts[name]) for name in ("width", "height", "file_size"))
    dimensions = (
        _ranges("image size", width * height / 1e6, MEGAPIXELS, "megapixels"),
        _shape(width, height),
        _ranges("file size", file_size / 1000, KILOBYTES, "kB"),
        _named("format", _extensions(images)),
        _named("source folder", _source_folders(images, outcomes.truth[ok])),
        _brightness(images, image_root, brightness_sample, seed),
    )
    rows = [
        (part.dimension, name, part.value == number, part.value >= 0)
        for part in dimensions
        for number, name in enumerate(part.names)
        if (part.value == number).any() and (part.value == number).sum() != (part.value >= 0).sum()
    ]
    adjusted = holm([_p_value(right, member, known) for _, _, member, known in rows])
    return tuple(
        _slice(dimension, name, right, member, known, confidence, float(p_value))
        for (dimension, name, member, known), p_value in zip(rows, adjusted, strict=True)
    )


def _slice(
    dimension: str,
    name: str,
    right: npt.NDArray[np.bool_],
    member: npt.NDArray[np.bool_],
    known: npt.NDArray[np.bool_],
    confidence: float,
    p_value: float,
) -> Slice:
    hits, images = int(right[member].sum()), int(member.sum())
    low, high = wilson(hits, images, confidence)
    return Slice(
        dimension=dimension,
        value=name,
        images=images,
        accuracy=Figure(value=hits / images, low=float(low), high=float(high)),
        difference=float(right[member].mean() - right[known & ~member].mean()),
        p_value=p_value,
    )


def _p_value(right: npt.NDArray[np.bool_], member: npt.NDArray[np.bool_], known: npt.NDArray[np.bool_]) -> float:
    from scipy.stats import fisher_exact

    inside, outside = right[member], right[known & ~member]
    table = [[inside.sum(), (~inside).sum()], [outside.sum(), (~outside).sum()]]
    return float(fisher_exact(table).pvalue)


def _ranges(dimension: str, values: Floats, edges: tuple[float, ...], unit: str) -> _Parts:
    value = np.where(np.isnan(values), -1, np.digitize(values, edges))
    names = (
        f"under {edges[0]:g} {unit}",
        *(f"{low:g} to {high:g} {unit}" for low, high in pairwise(edges)),
        f"{edges[-1]:g} {unit} and more",
    )
    return _Parts(dimension, value, names)


def _shape(width: Floats, height: Floats) -> _Parts:
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.digitize(width / height, (0.95, 1.05))
    return _Parts("shape", np.where(np.isnan(width), -1, value), ("portrait", "square", "landscape"))


def _named(dimension: str, values: pa.Array) -> _Parts:
    """Values by falling number of images, ties by name; those beyond MAX_VALUES merged into `others`."""
    encoded = values.dictionary_encode()
    names = encoded.dictionary.to_pylist()
    value = encoded.indices.to_numpy(zero_copy_only=False)
    counts = np.bincount(value, minlength=len(names))
    order = sorted(range(len(names)), key=lambda i: (-counts[i], names[i]))
    rank = np.empty(len(names), np.int64)
    rank[order] = np.arange(len(names))
    if len(names) <= MAX_VALUES:
        return _Parts(dimension, rank[value], tuple(names[i] for i in order))
    kept = MAX_VALUES - 1
    others = f"others ({len(names) - kept})"
    return _Parts(dimension, np.minimum(rank[value], kept), (*(names[i] for i in order[:kept]), others))


def _extensions(images: pa.Array) -> pa.Array:
    """The file name extension of each image; jpeg, jpe and jfif count as `jpg`, tif as `tiff`."""
    found = pc.utf8_lower(pc.struct_field(pc.extract_regex(images, r"\.(?P<extension>[^./]+)$"), "extension"))
    found = pc.replace_substring_regex(pc.fill_null(found, "none"), "^(jpeg|jpe|jfif)$", "jpg")
    return pc.replace_substring_regex(found, "^tif$", "tiff")


def _source_folders(images: pa.Array, truth: Ints) -> pa.Array:
    """The folders of each image, `a/b`, without the level that names its class; empty without a folder."""
    folders = [name.split("/")[:-1] for name in images.to_pylist()]
    for level in range(max(map(len, folders))):
        seen = {(path[level], label) for path, label in zip(folders, truth, strict=True) if len(path) > level}
        if len(seen) == len({folder for folder, _ in seen}):  # one class a folder
            folders = [path[:level] + path[level + 1 :] for path in folders]
            break
    return pa.array(["/".join(path) for path in folders])


def _brightness(images: pa.Array, root: Path, sample: int, seed: int) -> _Parts:
    count = min(sample, len(images))
    chosen = np.sort(np.random.default_rng(seed).choice(len(images), count, replace=False))
    values = np.full(len(images), np.nan)
    if count and root.is_dir():
        measure: Callable[[str], float] = lambda name: _mean_luma(root / os.fsdecode(file_name(name)))  # noqa: E731
        with ThreadPoolExecutor(usable_cores()) as pool:
            values[chosen] = list(pool.map(measure, images.take(pa.array(chosen)).to_pylist()))
    return _ranges("brightness", values, BRIGHTNESS, "of 255")


def _mean_luma(path: Path) -> float:
    """0 to 255; NaN where the image is gone or cannot be read any more."""
    try:
        pixels = preprocess(path.read_bytes(), _BRIGHTNESS_SPEC)
    except (OSError, ImageError):
        return float("nan")
    return float(pixels.reshape(-1, 3).mean(axis=0) @ (0.299, 0.587, 0.114))


def _numbers(column: pa.ChunkedArray) -> Floats:
    values: Floats = pc.fill_null(column.cast(pa.float64()), float("nan")).to_numpy()
    return values
