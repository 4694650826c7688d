"""Make a plan: list a source once, and write its images in order as Parquet files of bounded size."""

import errno
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import chain, islice
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from batchland.errors import OutputError, UsageError
from batchland.images.sources.refs import ImageRef
from batchland.images.sources.source import Source
from batchland.predictions.parts import joined, own_columns
from batchland.predictions.schema import WrittenFile
from batchland.predictions.storage import output_location
from batchland.predictions.stored_folder import StoredFolder
from batchland.scoring.listing import ImageListing, open_listing
from batchland.scoring.options import ScoreSettings
from batchland.scoring.plan.read import StoredPlan
from batchland.scoring.plan.schema import PLAN_NAME, PLANNED, Plan, PlanOptions
from batchland.system.files import write_remedy
from batchland.system.names import display_path, file_name
from batchland.system.text import first_few

GROUP_ROWS: Final = 8192
"""Images per row group; a shard reads whole ones."""
LIST_GROUPS: Final = 128
"""Row groups per file: about a million images, some ten megabytes."""
_OURS: Final = re.compile(r"list-\d{6}\.parquet")


def make_plan(
    images: str | os.PathLike[str] | ImageListing | None,
    out: str | os.PathLike[str],
    settings: ScoreSettings | None = None,
    *,
    image_list: str | None = None,
    parts: int = 0,
    without: Sequence[str | os.PathLike[str]] = (),
    overwrite: bool = False,
    on_progress: Callable[[int], None] | None = None,
) -> Plan:
    """List `images`, a source or an open listing, or what `image_list` names, and write the list to `out`.

    out: a folder or a URL. settings: only include, exclude, all_files and follow_links are used. parts: the number of
    shards that will score it, 0 for any. without: earlier plans of the same source; their images are left out.
    on_progress: called with the number of images listed so far. Memory does not grow with the number of images.

    Raises UsageError if there is nothing to plan, or `out` exists; OutputError if it cannot be written.
    """
    begin = time.monotonic()
    settings = settings or ScoreSettings()
    listing = images
    if not isinstance(listing, ImageListing):
        listing = open_listing(listing, settings, image_list=image_list)
    folder = _PlanFolder(output_location(out))
    folder.begin(overwrite=overwrite)
    refs = listing.images(far=False)
    for earlier in without:
        refs = _without_planned(StoredPlan(output_location(earlier)), listing.source, refs)
    counting = _Counting(refs, on_progress)
    lists: list[WrittenFile] = []
    for group in iter(lambda: next(counting.groups, None), None):
        data, rows = _parquet(listing, chain([group], islice(counting.groups, LIST_GROUPS - 1)))
        lists.append(folder.write(f"list-{len(lists):06d}.parquet", data, rows))
    if not counting.listed:
        raise UsageError(f"{listing.source.name}: every image is in the earlier plans, so there is nothing to plan")
    plan = Plan(
        created_at=datetime.now(UTC).isoformat("T", "seconds"),
        images=listing.source.name,
        image_list=image_list and display_path(image_list),
        options=PlanOptions(**settings.model_dump(include=set(PlanOptions.model_fields))),
        parts=parts,
        without=tuple(map(display_path, without)),
        listed=counting.listed,
        unlisted=counting.unlisted,
        ignored=dict(sorted(listing.ignored.counts.items())),
        names_sha256=counting.names.hexdigest(),
        seconds=round(time.monotonic() - begin, 3),
        lists=tuple(lists),
    )
    folder.write(PLAN_NAME, pa.py_buffer((plan.model_dump_json(indent=2) + "\n").encode()), 0)
    return plan


class _Counting:
    """The images in groups of GROUP_ROWS, counted and hashed as they pass."""

    def __init__(self, refs: Iterator[ImageRef], on_progress: Callable[[int], None] | None) -> None:
        self.names = hashlib.sha256()
        self.listed = self.unlisted = 0
        self.groups = self._groups(refs, on_progress)

    def _groups(self, refs: Iterator[ImageRef], on_progress: Callable[[int], None] | None) -> Iterator[list[ImageRef]]:
        while group := list(islice(refs, GROUP_ROWS)):
            self.names.update(joined(ref.name for ref in group))
            self.listed += len(group)
            self.unlisted += sum(ref.error is not None for ref in group)
            if on_progress:
                on_progress(self.listed)
            yield group


def _parquet(listing: ImageListing, groups: Iterable[list[ImageRef]]) -> tuple[pa.Buffer, int]:
    """A file of some groups of images, and its number of rows."""
    sink, rows = pa.BufferOutputStream(), 0
    schema = pa.schema([*PLANNED, *listing.own])
    with pq.ParquetWriter(sink, schema, compression="zstd", write_page_checksum=True) as writer:
        for refs in groups:
            columns = [
                [ref.name for ref in refs],
                [listing.source.key(ref) or None for ref in refs],
                [ref.error and ref.error[0] for ref in refs],
                [ref.error and ref.error[1] for ref in refs],
            ]
            arrays = [pa.array(values, field.type) for values, field in zip(columns, PLANNED, strict=True)]
            arrays += own_columns(refs, listing.own)
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
            rows += len(refs)
    return sink.getvalue(), rows


def _without_planned(earlier: StoredPlan, source: Source, refs: Iterator[ImageRef]) -> Iterator[ImageRef]:
    """The images that are not in an earlier plan of the same source, which lists in the same order.

    Raises UsageError if an image of the earlier plan is not listed any more, because then the order may differ.
    """
    if earlier.plan.images != source.name:
        raise UsageError(f"{earlier.name}: is a plan of {earlier.plan.images}, not of {source.name}")
    known = (ref.name for ref in earlier.refs(source, 0, earlier.plan.listed))
    name = next(known, None)
    for ref in refs:
        while name is not None and source.is_sorted and file_name(name) < file_name(ref.name):
            name = next(known, None)  # it has been deleted
        if ref.name == name:
            name = next(known, None)
        else:
            yield ref
    if name is not None and not source.is_sorted:
        raise UsageError(
            f"{earlier.name}: its image {name} is not listed any more, or in another order; plan everything again"
        )


class _PlanFolder:
    """The folder of a plan, at a path or a URL. Methods raise OutputError."""

    def __init__(self, location: Path | str) -> None:
        self._folder = StoredFolder(location)
        self.name = self._folder.name

    def begin(self, *, overwrite: bool) -> None:
        """Remove an earlier plan. Raises UsageError if there is one, unless `overwrite`."""
        with self._errors():
            if isinstance(self._folder.location, Path):
                self._folder.location.mkdir(parents=True, exist_ok=True)
            names = self._folder.names()
            if PLAN_NAME in names and not overwrite:
                raise UsageError(f"{self.name}: holds a plan already", advice="overwrite")
            if others := [name for name in names if name != PLAN_NAME and not _OURS.fullmatch(name)]:
                raise UsageError(f"{self.name}: holds {first_few(others, 3)}, which no plan has; give an empty folder")
            for name in sorted(names, reverse=True):  # plan.json first
                self._folder.remove(name)

    def write(self, name: str, data: pa.Buffer, rows: int) -> WrittenFile:
        """Write a file whole."""
        with self._errors():
            try:
                self._folder.write(name, data)
            except OSError:
                if name == PLAN_NAME and isinstance(self._folder.location, Path):
                    with suppress(OSError):  # it may be there, but not be safe; else a rerun would refuse to replace it
                        self._folder.remove(name)
                raise
        return WrittenFile(path=name, rows=rows, bytes=data.size, sha256=hashlib.sha256(data).hexdigest())

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if isinstance(error, PermissionError) and (refused := self._folder.first_error(error)):
                raise refused from error
            reason = error.strerror or str(error)
            full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
            todo = write_remedy(error) if full else "run the same command again"
            raise OutputError(f"{self.name}: cannot be written ({reason}); {todo}") from error
