"""Read the true classes of images, from class folders or a table, and match them to a model's classes by name."""

import os
import unicodedata
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from batchland.errors import UsageError
from batchland.images.sources.folder import IMAGE_EXTENSIONS, list_images
from batchland.models.card import ClassName, class_names
from batchland.system.text import counted, first_few, near_miss

LabelKind = Literal["folder", "csv", "parquet"]


@dataclass(frozen=True)
class Labels:
    """Image names (below the root, `/` separated), each once, and their class names."""

    source: str
    kind: LabelKind
    images: pa.Array
    names: pa.Array
    empty_folders: tuple[str, ...] = ()
    loose_images: int = 0
    """Images outside the class folders."""
    blank_labels: int = 0
    """Rows of a table with an empty label."""


@dataclass(frozen=True)
class ClassMatch:
    """The model's class of each class name in the labels."""

    index: dict[str, int]
    renamed: dict[str, str]
    """Names that match only without their number, and the folder of the matching class."""
    unknown: tuple[str, ...]


def read_labels(source: Path, predicted: pa.ChunkedArray, image_root: str) -> Labels:
    """Read a folder of class folders, or a CSV or Parquet file with the columns `image` and `label`.

    predicted: the predicted image names; in a folder, a file without an image's extension counts only if it was
    predicted. image_root: removed from absolute image paths in a table. Raises UsageError.
    """
    if source.is_dir():
        return _from_folders(source, predicted)
    if not source.exists():
        raise UsageError(f"{source}: does not exist; give a folder of class folders, or a CSV or Parquet file")
    if not source.is_file():
        raise UsageError(f"{source}: is not a regular file; give a folder of class folders, or a CSV or Parquet file")
    kind: LabelKind = "parquet" if source.suffix.lower() in (".parquet", ".pq") else "csv"
    return _from_table(source, kind, _read_parquet(source) if kind == "parquet" else _read_csv(source), image_root)


def match_classes(names: Collection[str], classes: Sequence[ClassName]) -> ClassMatch:
    """Match each name with the model's class folders, then its labels, then its labels without the folder's number.

    Composed and decomposed Unicode characters (NFC, NFD) match each other, unless two classes differ only in that.
    """
    by_folder = _indices([name.folder for name in classes])
    by_label = _indices([name.label for name in classes])
    index: dict[str, int] = {}
    renamed: dict[str, str] = {}
    unknown = []
    for name in sorted(names):
        exact = {found for found in (_find(by_folder, name), _find(by_label, name)) if found is not None}
        if len(exact) > 1:
            raise UsageError(f"class name {name!r} is one class's folder and another's label; use folder names only")
        found = next(iter(exact), _find(by_label, class_names([name])[0].label))
        if found is None:
            unknown.append(name)
            continue
        index[name] = found
        if not exact:
            renamed[name] = classes[found].folder
    return ClassMatch(index, renamed, tuple(unknown))


def composed(*columns: pa.Array) -> tuple[pa.Array, ...]:
    """Columns of names in Unicode's composed form (NFC); unchanged if two names of one column would become equal."""
    forms = tuple(pc.utf8_normalize(names, form="NFC") for names in columns)
    if all(form.equals(names) for form, names in zip(forms, columns, strict=True)):
        return columns
    counts = [[pc.count_distinct(names).as_py() for names in each] for each in (forms, columns)]
    return forms if counts[0] == counts[1] else columns


def _indices(names: Sequence[str]) -> dict[str, int]:
    """Index of each name, and of its composed form where that is no other name's."""
    forms = [unicodedata.normalize("NFC", name) for name in names]
    counts = Counter(forms)
    unique = {form: index for index, form in enumerate(forms) if counts[form] == 1}
    return unique | {name: index for index, name in enumerate(names)}


def _find(indices: dict[str, int], name: str) -> int | None:
    return indices.get(name, indices.get(unicodedata.normalize("NFC", name)))


def unknown_classes_message(source: str, unknown: Sequence[str], classes: Sequence[ClassName]) -> str:
    """One line that lists the unknown names, similar known ones, and the model's classes."""
    known = [name for pair in classes for name in (pair.label, pair.folder)]
    guesses = ((name, near_miss(name, known)) for name in unknown)
    some = first_few([f"{name!r} (did you mean {near!r}?)" if near else repr(name) for name, near in guesses], 10)
    return (
        f"{source}: {counted(len(unknown), 'class name')} that the model does not have: "
        f"{some}; the model's classes are {enumerate_names([name.label for name in classes])}; correct the names"
    )


def enumerate_names(names: Sequence[str], limit: int = 20) -> str:
    """The first `limit` names, quoted, and the number of the others."""
    return first_few([*map(repr, names)], limit)


def _from_folders(root: Path, predicted: pa.ChunkedArray) -> Labels:
    images, names = [], []
    loose = 0
    for ref in list_images(root, all_files=True, follow_links=True):
        if ref.error:
            raise UsageError(f"{root / ref.name}: {ref.error[1]}; labels must be readable as a whole")
        folder, _, rest = ref.name.partition("/")
        if rest:
            images.append(ref.name)
            names.append(folder)
        elif os.path.splitext(ref.name)[1].lower() in IMAGE_EXTENSIONS:  # noqa: PTH122
            loose += 1
    found, folders = pa.array(images, pa.string()), pa.array(names, pa.string())
    wanted = pa.array([os.path.splitext(name)[1].lower() in IMAGE_EXTENSIONS for name in images], pa.bool_())  # noqa: PTH122
    wanted = pc.or_(wanted, pc.is_in(found, value_set=predicted.combine_chunks()))
    found, folders = found.filter(wanted), folders.filter(wanted)
    filled = set(pc.unique(folders).to_pylist())
    subfolders = [entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith(".")]
    if not subfolders:
        raise UsageError(f"{root}: holds no class folders; give a folder with one folder per class, or a table")
    empty = tuple(sorted(name for name in subfolders if name not in filled))
    return Labels(str(root), "folder", found, folders, empty_folders=empty, loose_images=loose)


def _from_table(source: Path, kind: LabelKind, table: pa.Table, image_root: str) -> Labels:
    try:
        images, names = (table[name].combine_chunks().cast(pa.string()) for name in ("image", "label"))
    except pa.ArrowException as error:
        raise UsageError(f"{source}: images and labels must be text ({_first_line(error)})") from error
    if images.null_count or (len(images) and pc.any(pc.equal(images, "")).as_py()):
        raise UsageError(f"{source}: some rows have no image name; every row needs one")
    prefix = image_root.rstrip("/") + "/"
    below = pc.starts_with(images, prefix)
    images = pc.if_else(below, pc.utf8_slice_codeunits(images, len(prefix)), images)
    images = pc.replace_substring_regex(images, r"^(\./)+", "")
    blank = pc.fill_null(pc.equal(pc.utf8_trim_whitespace(names), ""), fill_value=True)
    images, names = images.filter(pc.invert(blank)), names.filter(pc.invert(blank))
    pairs = pa.table({"image": images, "label": names}).group_by(["image", "label"], use_threads=False).aggregate([])
    counts = pairs["image"].value_counts()
    twice = counts.filter(pc.greater(pc.struct_field(counts, 1), 1))
    if len(twice):
        image = twice[0]["values"].as_py()
        given = pairs.filter(pc.equal(pairs["image"], image))["label"].to_pylist()
        raise UsageError(
            f"{source}: {image!r} has {len(given)} different labels: {enumerate_names(given, 5)}; keep one"
        )
    images, names = pairs["image"].combine_chunks(), pairs["label"].combine_chunks()
    return Labels(str(source), kind, images, names, blank_labels=int(pc.sum(blank).as_py() or 0))


def _read_parquet(source: Path) -> pa.Table:
    import pyarrow.parquet as pq

    try:
        found = pq.read_schema(source).names
        _check_columns(source, found)
        return pq.ParquetFile(source).read(["image", "label"])
    except (OSError, pa.ArrowException) as error:
        raise UsageError(f"{source}: cannot be read as Parquet ({_first_line(error)})") from error


def _read_csv(source: Path) -> pa.Table:
    from pyarrow import csv

    try:
        with source.open(encoding="utf-8-sig") as file:
            header = file.readline().strip()
        delimiter = Counter({sign: header.count(sign) for sign in (",", ";", "\t")}).most_common(1)[0][0]
        _check_columns(source, [name.strip('"') for name in header.split(delimiter)])
        return csv.read_csv(
            source,
            parse_options=csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=csv.ConvertOptions(
                include_columns=["image", "label"],
                column_types={"image": pa.string(), "label": pa.string()},
                strings_can_be_null=False,
            ),
        )
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        raise UsageError(f"{source}: cannot be read as CSV ({_first_line(error)})") from error


def _check_columns(source: Path, found: Sequence[str]) -> None:
    repeated = [name for name in ("image", "label") if found.count(name) > 1]
    if repeated:
        raise UsageError(f"{source}: has {found.count(repeated[0])} columns {repeated[0]!r}; keep one")
    missing = [name for name in ("image", "label") if name not in found]
    if missing:
        raise UsageError(
            f"{source}: has no column {' and no column '.join(map(repr, missing))}, it has "
            f"{enumerate_names(list(found))}; labels need the columns 'image' and 'label'"
        )
    if {"status", "probability"} <= set(found):  # predictions compared with themselves would be perfect
        raise UsageError(f"{source}: holds predictions, not true labels; give class folders or a table of labels")


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
