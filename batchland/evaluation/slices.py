"""Accuracy over parts of the images: by size, shape, file size, format, folder, brightness, and own columns."""

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise, starmap
from pathlib import Path
from typing import Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from batchland.errors import ImageError, UsageError
from batchland.evaluation.counts import Sample, counted
from batchland.evaluation.intervals import Floats, Ints, fisher_exact, holm, rate
from batchland.evaluation.outcomes import Outcomes
from batchland.evaluation.schema import OUTCOMES, Slice
from batchland.images.preprocess import PreprocessSpec, preprocess
from batchland.system.cores import usable_cores
from batchland.system.names import file_name
from batchland.system.text import one_line

MAX_VALUES: Final = 12
"""Largest number of values of one dimension that are all shown. Of more, the weak and the largest ones are shown."""
MAX_WEAK: Final = 200
"""Largest number of weak values of one dimension that are shown if it has more than MAX_VALUES."""
MIN_IMAGES: Final = 20
"""Least number of images of a folder or format that is tested if it is not one of the MAX_VALUES largest."""
LEVEL: Final = 0.05
"""A value is weak if its adjusted p-value is below this."""
MEGAPIXELS: Final = (0.1, 0.5, 2.0, 8.0)
KILOBYTES: Final = (20, 100, 500, 2000)
BRIGHTNESS: Final = (64, 96, 128, 160, 192)
"""Mean luma of a picture, 0 to 255."""
MAX_GROUPS: Final = 10_000
"""Largest number of values of a column to slice by, and of folders and formats that are tested."""
MAX_FOLDERS: Final = 1_000_000
"""Largest number of folders, by class, that are counted; with more, there are no slices by folder."""
_SHOWN: Final = 50
"""Largest number of characters of a value in a message."""
_log: Final = logging.getLogger("batchland")
_SHAPES: Final = ("portrait", "square", "landscape")
_ALIKE: Final = {"jpeg": "jpg", "jpe": "jpg", "jfif": "jpg", "tif": "tiff"}
"""Extensions of the same format."""
_BRIGHTNESS_SPEC: Final = PreprocessSpec(height=32, width=32, jpeg_scale="auto")


Flags = npt.NDArray[np.bool_]


class Part(NamedTuple):
    """Images with one value of a dimension."""

    value: str
    images: int
    right: int


class Described(NamedTuple):
    """The data that slices are made from, for some images; the fields are those of Outcomes."""

    images: pa.Array
    facts: pa.RecordBatch
    own: pa.RecordBatch
    truth: Ints

    @classmethod
    def scored(cls, outcomes: Outcomes) -> Self:
        """Of the scored images of a block."""
        ok = pa.array(outcomes.ok)
        images, facts, own = (values.filter(ok) for values in (outcomes.images, outcomes.facts, outcomes.own))
        return cls(images, facts, own, outcomes.truth[outcomes.ok])

    @classmethod
    def of(cls, outcomes: pa.Table) -> Self:
        """From rows of outcomes.parquet, or of mistakes.parquet."""
        (rows,) = outcomes.combine_chunks().to_batches() or [pa.RecordBatch.from_pylist([], outcomes.schema)]
        own = rows.drop_columns([name for name in OUTCOMES.names if name in rows.schema.names])
        return cls(rows["image"], rows, own, rows["true_index"].to_numpy().astype(np.int64))


Images = Outcomes | Described


class SliceTally:
    """Counts images and right answers by part, block by block."""

    def __init__(self, *, by: tuple[str, ...], image_root: Path, brightness_sample: int, seed: int) -> None:
        """by: own columns to slice by, too. Brightness is measured on a random sample of images below image_root."""
        found: tuple[_Dimension, ...] = (
            _Dimension("image size", *_ranges(_megapixels, MEGAPIXELS, "megapixels")),
            _Dimension("shape", _shapes, _SHAPES),
            _Dimension("file size", *_ranges(_kilobytes, KILOBYTES, "kB")),
            _Dimension("format", _formats),
            _SourceFolders(),
            _Brightness(image_root, brightness_sample, seed),
        )
        taken = {dimension.name for dimension in found}
        own = (_OwnColumn(column, f"column {column}" if column in taken else column) for column in by)
        self._dimensions = (*found, *own)
        self._merged: dict[str, tuple[set[str], str]] = {}

    def add(self, outcomes: Outcomes) -> None:
        """Add a block."""
        ok = outcomes.ok
        if ok.any():
            scored = outcomes if ok.all() else Described.scored(outcomes)
            for dimension in self._dimensions:
                dimension.add(scored, outcomes.right[ok])

    def values(self, images: Images) -> dict[str, list[str | None]]:
        """Dimension -> the slice of each image, of own columns always the value. Call `slices` first."""
        found = {dimension.name: dimension.values(images) for dimension in self._dimensions}
        for name, (shown, others) in self._merged.items():
            found[name] = [value if value is None or value in shown else others for value in found[name]]
        return found

    def slices(self, confidence: float) -> tuple[Slice, ...]:
        """Accuracy by part. Dimensions with the same value for all images are left out; a warning names own columns.

        All values of own columns are tested. Of folders and formats, at most the MAX_GROUPS largest are tested; those
        with fewer than MIN_IMAGES images only if they are among the MAX_VALUES largest.
        """
        groups: list[tuple[_Dimension, list[Part], list[Part]]] = []
        for dimension in self._dimensions:
            parts = dimension.parts()
            column = dimension.column if isinstance(dimension, _OwnColumn) else None
            if len(parts) > 1:
                tested = [
                    part
                    for place, part in enumerate(parts)
                    if column or place < MAX_VALUES or part.images >= MIN_IMAGES
                ]
                groups.append((dimension, parts, tested[:MAX_GROUPS]))
            elif column and parts:
                value = f"the value {one_line(parts[0].value, _SHOWN)!r}" if parts[0].value else "no value"
                _log.warning("column %r has %s for all images, so there are no slices by it", column, value)
        totals = [(sum(part.right for part in parts), sum(part.images for part in parts)) for _, parts, _ in groups]
        counts = [
            (part.right, part.images, *total)
            for total, (_, _, tested) in zip(totals, groups, strict=True)
            for part in tested
        ]
        p_values = {count: fisher_exact(*count) for count in set(counts)}
        adjusted = iter(holm([p_values[count] for count in counts]).tolist())
        found: list[Slice] = []
        for (right, images), (dimension, parts, tested) in zip(totals, groups, strict=True):
            judged = [(part, next(adjusted)) for part in tested]
            if len(parts) > MAX_VALUES:
                judged = _shown(judged, right, images)
            found += [_slice(dimension.name, part, images, right, confidence, p_value) for part, p_value in judged]
            if others := len(parts) - len(judged):
                rest = Part(
                    f"others ({others})",
                    images - sum(part.images for part, _ in judged),
                    right - sum(part.right for part, _ in judged),
                )
                found.append(_slice(dimension.name, rest, images, right, confidence, None))
                if not isinstance(dimension, _OwnColumn):
                    self._merged[dimension.name] = {part.value for part, _ in judged}, rest.value
        return tuple(found)


def _shown(judged: list[tuple[Part, float]], right: int, images: int) -> list[tuple[Part, float]]:
    """The weak parts, the smallest p-value first, then the largest others. judged: the largest first."""
    weak = sorted(
        (each for each in judged if each[1] < LEVEL and each[0].right * images < right * each[0].images),
        key=lambda each: (each[1], each[0].right / each[0].images, each[0].value),
    )[:MAX_WEAK]
    known = {part.value for part, _ in weak}
    return [*weak, *(each for each in judged[: MAX_VALUES - 1] if each[0].value not in known)]


def _slice(dimension: str, part: Part, images: int, right: int, confidence: float, p_value: float | None) -> Slice:
    """images, right: of the whole dimension."""
    accuracy = rate(part.right, part.images, confidence)
    return Slice(
        dimension=dimension,
        value=part.value,
        images=part.images,
        accuracy=accuracy,
        difference=accuracy.value - (right - part.right) / (images - part.images),
        p_value=p_value,
    )


class _Dimension:
    """Counts images and right answers by a value of each image."""

    def __init__(self, name: str, values: Callable[[Images], pa.Array], order: Sequence[str] = ()) -> None:
        """values: of some images as text, may be encoded as a dictionary; null without one.

        order: of the values. By default, those of the most images come first, ties by name.
        """
        self.name, self._values = name, values
        self._order = {value: place for place, value in enumerate(order)}
        self._counts: dict[str, list[int]] = {}

    def add(self, images: Images, right: Flags) -> None:
        """Add scored images. right: whether the first choice is right."""
        self._count(self._values(images), right)

    def _count(self, values: pa.Array, right: Flags) -> None:
        known = values.is_valid()
        encoded = values.filter(known).dictionary_encode()
        texts, number = encoded.dictionary.to_pylist(), encoded.indices.to_numpy()
        hit = right[known.to_numpy(zero_copy_only=False)]
        wrong, hits = np.bincount(2 * number + hit, minlength=2 * len(texts)).reshape(-1, 2).T
        for text, *counts in zip(texts, (wrong + hits).tolist(), hits.tolist(), strict=True):
            self._counts[text] = [sum(pair) for pair in zip(self._counts.get(text, (0, 0)), counts, strict=True)]

    def parts(self) -> list[Part]:
        """Those with an image, in order."""
        parts = (Part(value, *counts) for value, counts in self._counts.items() if counts[0])
        return sorted(parts, key=lambda part: (self._order.get(part.value, 0), -part.images, part.value))

    def values(self, images: Images) -> list[str | None]:
        """The value of each image's part; None without one. Call `parts` first."""
        return self._values(images).to_pylist()


class _OwnColumn(_Dimension):
    """Slices by a column of the image list or of the labels."""

    def __init__(self, column: str, name: str) -> None:
        super().__init__(name, lambda images: own_values(images, column))
        self.column = column

    def add(self, images: Images, right: Flags) -> None:
        super().add(images, right)
        if len(self._counts) > MAX_GROUPS:
            raise UsageError(
                f"column {self.column!r} has more than {MAX_GROUPS} values; slice by columns with fewer values"
            )


class _SourceFolders(_Dimension):
    """Slices by the folders of an image, `a/b`, without the level that names its class; empty without a folder."""

    def __init__(self) -> None:
        super().__init__("source folder", self._without_class)
        self._by_class: dict[tuple[str, int], list[int]] = {}
        self._too_many = False
        self._level = 0

    def add(self, images: Images, right: Flags) -> None:
        if self._too_many:
            return
        encoded = _beside_last("/", images.images, 0).dictionary_encode()
        folders, number = encoded.dictionary.to_pylist(), encoded.indices.to_numpy().astype(np.int64)
        codes = images.truth * len(folders) + number
        found, counts = counted(codes)
        hits = dict(zip(*(each.tolist() for each in counted(codes[right])), strict=True))
        for each, count in zip(found.tolist(), counts.tolist(), strict=True):
            hit = hits.get(each, 0)
            label, folder = divmod(each, len(folders))
            known = self._by_class.setdefault((folders[folder], label), [0, 0])
            known[0], known[1] = known[0] + count, known[1] + hit
        if len(self._by_class) > MAX_FOLDERS:
            self._too_many, self._by_class = True, {}

    def parts(self) -> list[Part]:
        """There may be a million folders, so they stay in Arrow arrays."""
        if not self._by_class:
            return []
        folders = pa.array([folder for folder, _ in self._by_class])
        labels = np.fromiter((label for _, label in self._by_class), np.int64, len(self._by_class))
        counts = np.array(list(self._by_class.values()))
        self._level = _class_level(folders, labels)
        encoded = self._folders_without_class(folders).dictionary_encode()
        number, values = encoded.indices.to_numpy(), encoded.dictionary
        images, right = (np.bincount(number, each).astype(np.int64) for each in counts.T)
        order = pc.sort_indices(
            pa.table({"images": images, "value": values}), [("images", "descending"), ("value", "ascending")]
        )
        rows = zip(values.take(order).to_pylist(), images[order].tolist(), right[order].tolist(), strict=True)
        return list(starmap(Part, rows))

    def _without_class(self, images: Images) -> pa.Array:
        if self._too_many:
            return pa.nulls(len(images.images), pa.string())
        return self._folders_without_class(_beside_last("/", images.images, 0))

    def _folders_without_class(self, folders: pa.Array) -> pa.Array:
        pattern = rf"^((?:[^/]*/){{{self._level - 1}}}[^/]*)/[^/]*" if self._level else "^()[^/]*/?"
        return pc.replace_substring_regex(folders, pattern, r"\1", max_replacements=1)


def _class_level(folders: pa.Array, labels: Ints) -> int:
    """The first level at which each folder holds one class; beyond all levels if there is none."""
    paths = pc.split_pattern(folders, "/")
    depth = np.where(pc.equal(folders, ""), 0, pc.list_value_length(paths))
    starts, deepest = paths.offsets.to_numpy()[:-1], int(depth.max())
    for level in range(deepest):
        deep = depth > level
        names = paths.values.take(pa.array(starts[deep] + level)).dictionary_encode()
        pairs = names.indices.to_numpy() * (labels.max() + 1) + labels[deep]
        if len(counted(pairs)[0]) == len(names.dictionary):
            return level
    return deepest


class _Brightness(_Dimension):
    """Slices by brightness, for a random sample of the images that still exist."""

    def __init__(self, root: Path, sample: int, seed: int) -> None:
        self._names = _range_names(BRIGHTNESS, "of 255")
        super().__init__("brightness", lambda images: self._of(images.images.to_pylist()), self._names)
        self._root, self._sample = root, Sample(sample, seed)
        self._luma: dict[str, float] = {}

    def add(self, images: Images, right: Flags) -> None:
        entering = self._sample.add(len(right))
        names = np.array(images.images.take(pa.array(entering)).to_pylist(), object)
        self._sample.keep(names, right[entering])

    def parts(self) -> list[Part]:
        if self._sample.columns and self._root.is_dir():
            names, right = self._sample.columns
            with ThreadPoolExecutor(usable_cores()) as pool:
                found = pool.map(lambda name: _mean_luma(self._root / os.fsdecode(file_name(name))), names)
                self._luma = dict(zip(names, found, strict=True))
            self._count(self._of(names), right.astype(bool))
        return super().parts()

    def _of(self, names: Iterable[str]) -> pa.Array:
        return _in_ranges(np.array([self._luma.get(name, np.nan) for name in names], float), BRIGHTNESS, self._names)


def check_columns(names: Sequence[str], by: Sequence[str]) -> None:
    """Raise UsageError unless the own columns to slice by are there. names: of the own columns."""
    for name in by:
        if name not in names:
            known = f"the own columns are {', '.join(names)}" if names else "there are no own columns"
            raise UsageError(f"there is no column {name!r} to slice by; {known}")


def own_values(images: Images, name: str) -> pa.Array:
    """An own column as text; empty where it is null. Times of a zone that is not known here are shown as UTC."""
    check_columns(images.own.schema.names, [name])
    column = images.own[name]
    try:
        texts = column if column.type == pa.string() else column.cast(pa.string())
    except pa.ArrowInvalid:
        texts = column.view(pa.timestamp(column.type.unit, "UTC")).cast(pa.string())
    return pc.fill_null(texts, "")


def _beside_last(sign: str, names: pa.Array, side: int) -> pa.Array:
    """The part of each name before (0) or after (-1) its last `sign`; empty without one."""
    parts = pc.split_pattern(names, sign, max_splits=1, reverse=True)
    ends = parts.offsets.to_numpy()
    element = parts.values.take(pa.array(ends[:-1] if side == 0 else ends[1:] - 1))
    return pc.if_else(pc.equal(pc.list_value_length(parts), 2), element, "")


def _ranges(
    measure: Callable[[pa.RecordBatch], Floats], edges: Sequence[float], unit: str
) -> tuple[Callable[[Images], pa.Array], Sequence[str]]:
    """The values of a dimension with these ranges, and their order."""
    names = _range_names(edges, unit)
    return lambda images: _in_ranges(measure(images.facts), edges, names), names


def _range_names(edges: Sequence[float], unit: str) -> tuple[str, ...]:
    return (
        f"under {edges[0]:g} {unit}",
        *(f"{low:g} to {high:g} {unit}" for low, high in pairwise(edges)),
        f"{edges[-1]:g} {unit} and more",
    )


def _in_ranges(values: Floats, edges: Sequence[float], names: Sequence[str]) -> pa.DictionaryArray:
    """The range of each value, by name; null for NaN."""
    number = (values >= np.array(edges)[:, None]).sum(axis=0)
    return pa.DictionaryArray.from_arrays(pa.array(number, mask=np.isnan(values)), pa.array(names))


def _shapes(images: Images) -> pa.Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return _in_ranges(_numbers(images.facts["width"]) / _numbers(images.facts["height"]), (0.95, 1.05), _SHAPES)


def _formats(images: Images) -> pa.Array:
    """File name extensions: jpeg, jpe and jfif count as `jpg`, tif as `tiff`."""
    encoded = _beside_last(".", images.images, -1).dictionary_encode()
    extensions = (text.lower() for text in encoded.dictionary.to_pylist())
    formats = ["none" if not each or "/" in each else _ALIKE.get(each, each) for each in extensions]
    return pa.DictionaryArray.from_arrays(encoded.indices, pa.array(formats, pa.string()))


def _megapixels(facts: pa.RecordBatch) -> Floats:
    return _numbers(facts["width"]) * _numbers(facts["height"]) / 1e6


def _kilobytes(facts: pa.RecordBatch) -> Floats:
    return _numbers(facts["file_size"]) / 1000


def _numbers(column: pa.Array) -> Floats:
    return pc.fill_null(column.cast(pa.float64()), float("nan")).to_numpy()


def _mean_luma(path: Path) -> float:
    """0 to 255; NaN where the image is gone or cannot be read any more."""
    try:
        pixels = preprocess(path.read_bytes(), _BRIGHTNESS_SPEC)
    except (OSError, ImageError):
        return float("nan")
    return float(pixels.reshape(-1, 3).mean(axis=0) @ (0.299, 0.587, 0.114))
