"""Read the true classes of images, block by block, from class folders or a table.

labels = read_labels(Path("labels.csv"), image_root="/photos")
for block in labels.blocks():
    print(block.images, block.names)
"""

import csv
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final, Literal, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from batchland.errors import UsageError
from batchland.evaluation.schema import MISTAKES, OUTCOMES
from batchland.images.sources.folder import IMAGE_EXTENSIONS, list_images
from batchland.images.sources.list_content import problem_with
from batchland.models.class_match import enumerate_names
from batchland.system.arrow import parquet_batches, plain_columns
from batchland.system.csv_files import first_fault, read_header
from batchland.system.text import first_line

_log: Final = logging.getLogger("batchland")
LabelKind = Literal["folder", "csv", "parquet"]

_BLOCK_ROWS: Final = 131_072
_BEGINNING_BYTES: Final = 64 * 1024
_CSV_BLOCK_BYTES: Final = 16 * 1024**2


class LabelBlock(NamedTuple):
    """Some labelled images; all arrays of the same length."""

    images: pa.Array
    """Names below the root, `/` separated."""
    names: pa.Array
    """Class names, plain or encoded as a dictionary."""
    doubtful: pa.Array
    """Whether the file has no extension of images; such a file counts only if it was predicted."""
    own: list[pa.Array]
    """The table's other columns."""


class Labels(ABC):
    """Labels to be read once. An image may occur in several rows."""

    kind: LabelKind
    own: pa.Schema = pa.schema([])
    """Columns of a table besides image and label."""
    folders: tuple[str, ...] = ()
    """All class folders, including empty ones."""
    loose_images = 0
    """Images outside the class folders; known after the last block."""
    blank_labels = 0
    """Rows of a table with an empty label; known after the last block."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.reviewed: dict[int, bool] = {}
        """Numbers of the rows of `blocks` with the decision `wrong` or `keep`, and whether that changed the label.

        Known after the last block."""

    @abstractmethod
    def blocks(self) -> Iterator[LabelBlock]:
        """The labels. Raises UsageError."""


def read_labels(source: Path, image_root: str) -> Labels:
    """Open a folder of class folders, or a CSV or Parquet file with the columns `image` and `label`.

    image_root: removed from absolute image paths in a table. Raises UsageError.
    """
    if source.is_dir():
        return _Folders(source)
    if not source.exists():
        raise UsageError(f"{source}: does not exist; give a folder of class folders, or a CSV or Parquet file")
    if not source.is_file():
        raise UsageError(f"{source}: is not a regular file; give a folder of class folders, or a CSV or Parquet file")
    if source.suffix.lower() in (".parquet", ".pq"):
        return _Parquet(source, image_root)
    return _Csv(source, image_root)


class _Folders(Labels):
    """Class folders."""

    kind: LabelKind = "folder"

    def __init__(self, root: Path) -> None:
        super().__init__(str(root))
        entries = (entry for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith("."))
        self.folders = tuple(sorted(entry.name for entry in entries))
        if not self.folders:
            raise UsageError(f"{root}: holds no class folders; give a folder with one folder per class, or a table")
        self._root = root

    def blocks(self) -> Iterator[LabelBlock]:
        listed = self._images()
        while rows := list(islice(listed, _BLOCK_ROWS)):
            names, folders, doubtful = (list(column) for column in zip(*rows, strict=True))
            yield LabelBlock(pa.array(names, pa.string()), pa.array(folders, pa.string()), pa.array(doubtful), [])

    def _images(self) -> Iterator[tuple[str, str, bool]]:
        for ref in list_images(self._root, all_files=True, follow_links=True):
            if ref.error:
                raise UsageError(f"{self._root / ref.name}: {ref.error[1]}; labels must be readable as a whole")
            folder, _, rest = ref.name.partition("/")
            is_image = os.path.splitext(ref.name)[1].lower() in IMAGE_EXTENSIONS  # noqa: PTH122
            if rest:
                yield ref.name, folder, not is_image
            elif is_image:
                self.loose_images += 1


class _Table(Labels):
    """A table with the columns `image` and `label`, and others."""

    def __init__(self, source: Path, image_root: str) -> None:
        super().__init__(str(source))
        self._path, self._prefix = source, image_root.rstrip("/") + "/"
        self.own = self._own_columns()

    def blocks(self) -> Iterator[LabelBlock]:
        for batch in self._batches(["image", "label", *self.own.names]):
            yield self._block(batch)

    @abstractmethod
    def _own_columns(self) -> pa.Schema:
        """The columns besides `image` and `label`."""

    @abstractmethod
    def _batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """The table's rows with these columns."""

    def _without_name(self) -> UsageError:
        return UsageError(f"{self.source}: some rows have no image name; every row needs one")

    def _block(self, batch: pa.RecordBatch) -> LabelBlock:
        try:
            images, names = batch["image"].cast(pa.string()), _encoded(batch["label"])
        except pa.ArrowException as error:
            raise UsageError(f"{self.source}: images and labels must be text ({first_line(error)})") from error
        if images.null_count or (len(images) and pc.any(pc.equal(images, "")).as_py()):
            raise self._without_name()
        below = pc.starts_with(images, self._prefix)
        if pc.any(below).as_py():
            images = pc.if_else(below, pc.utf8_slice_codeunits(images, len(self._prefix)), images)
        if pc.any(pc.starts_with(images, "./")).as_py():
            images = pc.replace_substring_regex(images, r"^(\./)+", "")
        own = [batch[name] for name in self.own.names]
        is_blank = pc.equal(pc.utf8_trim_whitespace(names.dictionary), "")
        blank = pc.fill_null(is_blank.take(names.indices), fill_value=True)
        if blank.true_count:
            self.blank_labels += blank.true_count
            filled = pc.invert(blank)
            images, names, *own = (column.filter(filled) for column in (images, names, *own))
        return LabelBlock(images, names, pa.repeat(pa.scalar(value=False), len(images)), own)


class _Parquet(_Table):
    kind: LabelKind = "parquet"

    def _own_columns(self) -> pa.Schema:
        import pyarrow.parquet as pq

        try:
            schema = pq.read_schema(self._path)
        except (OSError, pa.ArrowException) as error:
            raise self._unreadable(error) from error
        _check_columns(self._path, schema.names)
        self._encoded = ["label"] if schema.field("label").type == pa.string() else []
        return _own(self._path, schema)

    def _batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(self._path, read_dictionary=self._encoded) as file:
                for batch in parquet_batches(file, columns, _BLOCK_ROWS):
                    own = [batch[field.name].cast(field.type) for field in self.own]
                    yield pa.record_batch([batch["image"], batch["label"], *own], names=columns)
        except (OSError, pa.ArrowException) as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> UsageError:
        return UsageError(f"{self._path}: cannot be read as Parquet ({first_line(error)})")


class _Csv(_Table):
    """A CSV table. Its further columns are text, because a row may contain any value."""

    kind: LabelKind = "csv"

    def _own_columns(self) -> pa.Schema:
        try:
            with self._path.open("rb") as file:
                beginning = file.read(_BEGINNING_BYTES)
            if problem := problem_with(beginning):
                raise UsageError(f"{self._path}: {problem}; labels are class folders, or a CSV or Parquet file")
            self._header = read_header(self._path)
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise self._unreadable(error) from error
        _check_columns(self._path, self._header.names)
        return _own(self._path, pa.schema([(name, pa.string()) for name in self._header.names]))

    def _batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        from pyarrow import csv as arrow_csv

        if self._header.alone:  # Arrow refuses a header without a line end
            return
        checked = False
        try:
            batches = arrow_csv.open_csv(
                self._path,
                read_options=arrow_csv.ReadOptions(
                    block_size=_CSV_BLOCK_BYTES, column_names=self._header.names, skip_rows=self._header.lines
                ),
                parse_options=arrow_csv.ParseOptions(delimiter=self._header.separator, newlines_in_values=True),
                convert_options=arrow_csv.ConvertOptions(
                    include_columns=columns,
                    column_types=dict.fromkeys(columns, pa.string()),
                    strings_can_be_null=False,
                ),
            )
            for batch in batches:
                # A quote that is not closed makes one value of all further lines, and Arrow does not mind.
                if not checked and any(pc.any(pc.match_substring(column, "\n")).as_py() for column in batch.columns):
                    checked = True
                    if fault := first_fault(self._path):
                        raise UsageError(f"{self._path}: cannot be read as CSV ({fault})")
                yield batch
        except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
            raise self._unreadable(error) from error

    def _without_name(self) -> UsageError:
        fault = first_fault(self._path, filled="image") or "some rows have no image"
        return UsageError(f"{self._path}: {fault}; every row needs the name of an image")

    def _unreadable(self, error: Exception) -> UsageError:
        fault = None if isinstance(error, OSError) else first_fault(self._path)
        return UsageError(f"{self._path}: cannot be read as CSV ({fault or first_line(error)})")


def _own(source: Path, schema: pa.Schema) -> pa.Schema:
    """The columns besides image and label; a warning names those that are left out because of their names."""
    further = pa.schema([field for field in schema if field.name not in ("image", "label")])
    if repeated := dict.fromkeys(name for name in further.names if name and further.names.count(name) > 1):
        _log.warning("%s: left out, because several columns have these names: %s", source, ", ".join(repeated))
    own = plain_columns(further)
    if clash := [name for name in own.names if name in (*OUTCOMES.names, *MISTAKES.names)]:
        _log.warning("%s: left out, because reports have columns of these names: %s", source, ", ".join(clash))
    return pa.schema([field for field in own if field.name not in clash])


def _encoded(texts: pa.Array) -> pa.DictionaryArray:
    kind = pa.dictionary(pa.int32(), pa.string())
    return texts if texts.type == kind else texts.cast(pa.string()).dictionary_encode()


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
    if {"stratum", "weight"} <= set(found):
        raise UsageError(
            f"{source}: is a plan of `batchland label-plan`, and the images of a plan are not a random sample; "
            f"estimate the accuracy with `batchland label-plan`"
        )
    if {"status", "probability"} <= set(found):  # predictions compared with themselves would be perfect
        raise UsageError(f"{source}: holds predictions, not true labels; give class folders or a table of labels")
