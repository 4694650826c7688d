"""The images of a run: those of a source that match the patterns and are not scored already.

All parts of the program ask the ImageListing of a run: score() for the images, a progress bar for their number, a night
for whether there are any.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from itertools import chain, islice
from typing import Final

import pyarrow as pa

from batchland.errors import UnreadableImagesError, UsageError
from batchland.images.sources.folder import Folder
from batchland.images.sources.image_list import is_web
from batchland.images.sources.list_table import TABLE_SUFFIXES
from batchland.images.sources.open import open_source
from batchland.images.sources.refs import Ignored, ImageRef, LocalFiles, is_there
from batchland.images.sources.selection import select_images
from batchland.images.sources.source import ContainerSource, ListSource, Source
from batchland.predictions.schema import RESERVED
from batchland.scoring.options import ScoreOptions, ScoreSettings, Shard
from batchland.system.names import display_name, display_path
from batchland.system.text import counted, one_line
from batchland.system.urls import split_url

TRIED: Final = 100
"""At least one of this many first entries of a list, or images of a plan, must exist."""
ALREADY_SCORED: Final = "already scored"
"""Key of skipped images in the counts of ignored ones."""
Skip = Callable[[ImageRef], bool]
"""Returns whether a listed image is already scored, and so gets no row."""


class ImageListing:
    """The images of one run, in listing order.

    `first` and `images` share one walk over the source, so asking for the first image costs no second walk. `ignored`
    counts the files that this walk skips.
    """

    def __init__(
        self, source: Source, settings: ScoreSettings, *, image_list: str | None = None, skip: Skip | None = None
    ) -> None:
        self.source = source
        self.ignored = Ignored()
        self._settings = settings
        self._image_list = image_list
        self._skip = skip
        self._walk: Iterator[ImageRef] | None = None

    @cached_property
    def own(self) -> pa.Schema:
        """Further columns of the list that names the images.

        Raises UsageError if the list cannot be read, or if one has the name of a column of predictions.
        """
        own = self.source.own if isinstance(self.source, ListSource) else pa.schema([])
        if clash := [name for name in own.names if name in RESERVED]:
            raise UsageError(
                f"{display_path(self._image_list or '')}: column {clash[0]!r} has the name of a column of predictions; "
                f"rename it"
            )
        return own

    def first(self) -> ImageRef | None:
        """The first image, None if there is none. Raises UsageError if nothing of the source can be read."""
        if self._walk is None:
            images = self.source.images(self.ignored)
            if isinstance(self.source, ContainerSource):
                images = self.with_readable(images)
            self._walk = self.selected(images, self.ignored)
        first = next(self._walk, None)
        if first is not None:
            self._walk = chain([first], self._walk)
        return first

    def images(self, *, far: bool = True) -> Iterator[ImageRef]:
        """All images, once. Raises UsageError if there are none, or if the source cannot be opened.

        far: in an object store, too, check that one of the first images of a list exists. A plan reads no images.
        """
        if self.first() is None:
            raise self._no_images()
        assert self._walk is not None
        if self._image_list is not None:
            self._walk = self._checked_list(self._walk, far=far)
        return self._walk

    def selected(self, images: Iterable[ImageRef], ignored: Ignored) -> Iterator[ImageRef]:
        """Those of `images` that the run scores; the others are counted in `ignored`."""
        for ref in select_images(images, self._settings.include, self._settings.exclude, ignored):
            if self._skip is not None and self._skip(ref):
                ignored.counts[ALREADY_SCORED] += 1
            else:
                yield ref

    def check_root(self) -> None:
        """Raise NoSuchImagesError if the images are in a local folder that is gone: its disk may not be mounted."""
        if isinstance(self.source, Folder):
            self.source.check()

    def retry_refs(self, name: str) -> Iterator[ImageRef]:
        """The images that replace the failed row `name`: one, or all images of a folder that could not be listed."""
        images = self.source.retry_refs(name)
        return self.selected(images, Ignored()) if name.endswith("/") else images

    def second_walk(self, shard: Shard | None = None) -> Iterator[ImageRef]:
        """The images once more, for a progress bar to count them; only those of `shard`, if given."""
        if shard is None:
            images = self.source.images(Ignored())
        elif isinstance(self.source, ContainerSource):
            containers = filter(shard.owns, self.source.containers(Ignored()))
            images = chain.from_iterable(self.source.images_in(name, Ignored()) for name in containers)
        else:
            images = (ref for ref in self.source.images(Ignored()) if shard.owns(ref.name))
        return self.selected(images, Ignored())

    def found(self) -> str:
        """The files that the walk skipped, for messages: `1 hidden, 2 .txt`."""
        kinds = sorted(self.ignored.counts.items())
        nouns = ("blank line", "dangling link")
        return ", ".join(counted(n, kind) if kind in nouns else f"{n} {kind}" for kind, n in kinds) or "nothing at all"

    def _list_name(self) -> str:
        return "standard input" if self._image_list == "-" else display_path(self._image_list or "")

    def with_readable(self, images: Iterator[ImageRef]) -> Iterator[ImageRef]:
        """Raise UnreadableImagesError if no container can be read: without one image, no run is a good one."""
        unreadable: list[ImageRef] = []
        for ref in images:
            unreadable.append(ref)
            if ref.error is None:
                return chain(unreadable, images)
        if not unreadable:
            return images
        _, problem = unreadable[0].error or ("", "")
        if len(unreadable) > 1:
            problem = f"none of its {len(unreadable)} files can be read; {unreadable[0].name}: {problem}"
        raise UnreadableImagesError(f"{self.source.name}: {problem}")

    def _checked_list(self, images: Iterator[ImageRef], *, far: bool) -> Iterator[ImageRef]:
        """Raise UsageError if no first entry names a file: then they are no paths, or are below another folder."""
        beginning: list[ImageRef] = []
        for ref in islice(images, TRIED):
            beginning.append(ref)
            if ref.error is None and is_there(ref, far=far and not is_web(ref.name)):
                return chain(beginning, images)
        if beginning[0].error:
            raise UsageError(f"{self._list_name()}: {beginning[0].name}: {beginning[0].error[1]}")
        path = display_name(beginning[0].path) if isinstance(beginning[0].store, LocalFiles) else beginning[0].name
        others = f", nor for any of the first {len(beginning)} entries" if len(beginning) > 1 else ""
        advice = self._list_advice() + ("" if is_web(self.source.name) else ", relative to the folder or absolute")
        raise UsageError(f"{self._list_name()}: there is no file {one_line(path, 500)!r}{others}; {advice}")

    def _no_images(self) -> UsageError:
        problem = f"no images to score (found: {self.found()})"
        if self._image_list is not None:
            return UsageError(f"{self._list_name()}: {problem}; {self._list_advice()}")
        if any(kind.startswith(".") or kind == "no extension" for kind in self.ignored.counts):
            return UsageError(f"{self.source.name}: {problem}", advice="all_files")
        holds = "the files that hold" if isinstance(self.source, ContainerSource) else "the folder that holds"
        return UsageError(f"{self.source.name}: {problem}; give {holds} them")

    def _list_advice(self) -> str:
        is_table = split_url(self._image_list or "").path.lower().endswith(TABLE_SUFFIXES)
        return "give a table with one path per row" if is_table else "give a list with one path per line"


def open_listing(
    images: str | os.PathLike[str] | None,
    settings: ScoreSettings,
    *,
    image_list: str | None = None,
    skip: Skip | None = None,
) -> ImageListing:
    """The images of a folder, a URL, tar or Parquet files, or of a list. Raises UsageError if none of them is given."""
    if images is None and image_list is None and isinstance(settings, ScoreOptions) and settings.retry_failed:
        raise UsageError(
            "nothing says where the images to score again are; give the same folder as before", advice="retry_list"
        )
    source = open_source(
        images,
        image_list=image_list,
        all_files=settings.all_files,
        follow_links=settings.follow_links,
        private_hosts=settings.private_hosts,
    )
    return ImageListing(source, settings, image_list=image_list, skip=skip)
