"""Read a plan: its images in order, or a range of them, without listing the source again."""

import hashlib
from collections.abc import Iterator
from functools import cached_property, lru_cache
from itertools import accumulate, repeat
from pathlib import Path
from typing import NamedTuple, cast

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from batchland.errors import ErrorCode, UsageError
from batchland.images.sources.open import open_source
from batchland.images.sources.refs import ImageRef
from batchland.images.sources.source import Source
from batchland.predictions.stored_folder import StoredFolder
from batchland.scoring.plan.schema import PLAN_NAME, PLANNED, Plan
from batchland.system.arrow import plain_values
from batchland.system.files import read_error

_REMEDY = "restore it, or plan again"


class StoredPlan:
    """The plan in the folder or URL `location`.

    Raises UsageError if there is none or it is damaged, InputError if it cannot be read.
    """

    def __init__(self, location: Path | str) -> None:
        self._folder = StoredFolder(location)
        self.location = location
        self.name = self._folder.name
        content = self._read(PLAN_NAME)
        self.sha256 = hashlib.sha256(content).hexdigest()
        try:
            self.plan = Plan.model_validate_json(content)
        except ValidationError as error:
            raise UsageError(
                f"{self.name}/{PLAN_NAME}: not a plan that this version of batchland can read; plan again"
            ) from error
        self._starts = [0, *accumulate(file.rows for file in self.plan.lists)]

    @cached_property
    def own(self) -> pa.Schema:
        """Further columns of the list that was planned."""
        name = self.plan.lists[0].path
        try:
            with self._folder.opened(name) as file:
                schema = pq.read_schema(file)
        except (OSError, pa.ArrowException) as error:
            raise read_error(error, f"{self.name}/{name}", _REMEDY) from error
        return pa.schema(list(schema)[len(PLANNED) :])

    def refs(self, source: Source, first: int, stop: int) -> Iterator[ImageRef]:
        """The images from number `first` to before `stop`, counted from 0, as the source gives them."""
        for number, file in enumerate(self.plan.lists):
            begin = self._starts[number]
            if begin < stop and first < begin + file.rows:
                for rows in self._rows(file.path, file.rows, max(first - begin, 0), min(stop - begin, file.rows)):
                    yield from _refs(source, rows)

    def _rows(self, name: str, expected: int, first: int, stop: int) -> Iterator[pa.RecordBatch]:
        """Some rows of a list. Other row groups are not read."""
        try:
            with self._folder.opened(name) as file, pq.ParquetFile(file, page_checksum_verification=True) as parquet:
                columns = pa.schema(list(parquet.schema_arrow)[: len(PLANNED)])  # further ones may follow
                if parquet.metadata.num_rows != expected or not columns.equals(PLANNED):
                    raise pa.ArrowInvalid("it is not the list that the plan has written")
                begin = 0
                for group in range(parquet.metadata.num_row_groups):
                    count = parquet.metadata.row_group(group).num_rows
                    if begin < stop and first < begin + count:
                        table = parquet.read_row_group(group, use_threads=False)
                        low, high = max(first - begin, 0), min(stop - begin, count)
                        yield from table.slice(low, high - low).to_batches()
                    begin += count
        except (OSError, pa.ArrowException) as error:
            raise read_error(error, f"{self.name}/{name}", _REMEDY) from error

    def _read(self, name: str) -> bytes:
        try:
            return self._folder.read(name)
        except FileNotFoundError as error:
            raise UsageError(f"{self.name}: holds no complete plan; make one with `batchland plan`") from error
        except NotADirectoryError as error:
            raise UsageError(f"{self.name}: is a file; give the folder of the plan") from error
        except OSError as error:
            raise self._folder.first_error(error) or read_error(error, f"{self.name}/{name}", _REMEDY) from error


def _refs(source: Source, rows: pa.RecordBatch) -> Iterator[ImageRef]:
    names, keys, codes, messages, *own = map(plain_values, rows.columns)
    values = zip(*own, strict=True) if own else repeat(())
    for name, key, code, message, each in zip(names, keys, codes, messages, values, strict=False):
        if code is not None:
            yield ImageRef(name, b"", (cast("ErrorCode", code), message or ""))
        else:
            ref = source.planned(name, key or b"")
            yield ref._replace(own=each) if each else ref


class PlannedImages(NamedTuple):
    """A plan and the source that it lists: enough for another process to open both. Picklable."""

    plan: Path | str
    """Its location."""
    sha256: str
    """sha256 of plan.json."""
    images: str
    """The source, with the options that its URL has."""
    private_hosts: bool


@lru_cache(4)
def open_planned(planned: PlannedImages) -> tuple[StoredPlan, Source]:
    """The plan, and its source, which is not listed again. Opened once per process.

    Raises UsageError if the plan was replaced, or is one of another source.
    """
    stored = StoredPlan(planned.plan)
    if stored.sha256 != planned.sha256:
        raise UsageError(f"{stored.name}: was replaced by another plan during the run; run the command again")
    plan = stored.plan
    source = open_source(
        planned.images,
        image_list=plan.image_list,
        all_files=plan.options.all_files,
        follow_links=plan.options.follow_links,
        private_hosts=planned.private_hosts,
    )
    if source.name != plan.images:
        raise UsageError(f"{stored.name}: is a plan of {plan.images}, not of {source.name}")
    return stored, source


class PlannedRange:
    """A range of a plan's images, sent to a worker as its part. Can be iterated several times, and pickled."""

    def __init__(self, planned: PlannedImages, first: int, stop: int) -> None:
        self._planned = planned
        self._first = first
        self._stop = stop

    def __iter__(self) -> Iterator[ImageRef]:
        plan, source = open_planned(self._planned)
        return plan.refs(source, self._first, self._stop)

    def __len__(self) -> int:
        return self._stop - self._first
