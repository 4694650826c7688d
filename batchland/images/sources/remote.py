"""Images in an object store or on a cluster's file system, by URL. Lists folder by folder, reads with retries.

To read an image from an object store, pyarrow sends a HEAD (for the size) and a GET. Listings hold sizes and times.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from batchland.errors import ImageError, NoSuchImagesError, UsageError
from batchland.images.sources import refs
from batchland.images.sources.folder import kind_by_name, walk
from batchland.images.sources.refs import ChangedError, Ignored, ImageFile, ImageRef
from batchland.system.filesystems import OpenUrl, call, is_missing, listed_us, open_location, os_error, start_error
from batchland.system.names import display_name, file_name
from batchland.system.urls import display_url

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo

_SECOND: Final = 1_000_000


class Remote:
    """A folder in a remote file system as a Source."""

    countable = False
    is_sorted = True

    def __init__(self, url: str, *, all_files: bool = False) -> None:
        self.name = display_url(url).rstrip("/")
        self._files = RemoteFiles(url)
        self._all_files = all_files

    def images(self, ignored: Ignored) -> Iterator[ImageRef]:
        """See `list_images`. Raises UsageError, or InputError if the server does not answer, before the first image."""
        return walk("", _Lister(self._files, self._all_files, ignored.counts, self._first_infos()).entries)

    def inputs(self) -> Iterable[str]:
        """The folder."""
        return [self.name]

    def key(self, ref: ImageRef) -> bytes:
        """Size and time of the listing."""
        return ref.path.partition(b"\0")[0]

    def planned(self, name: str, key: bytes) -> ImageRef:
        """See `Source.planned`."""
        return ImageRef(name, key + b"\0" + file_name(name), store=self._files)

    def retry_refs(self, name: str) -> Iterator[ImageRef]:
        """See `list_for_retry`."""
        key = file_name(name).decode()
        if "//" in f"/{key}":
            return iter([_nameless(key)])
        if key.endswith("/"):
            return walk("" if key == "./" else key, _Lister(self._files, self._all_files, Counter()).entries)
        return iter([self._files.ref(key)])

    def changed_at(self) -> float:
        """The newest modification time below the folder, Unix time; of all files, images or not."""
        lister = _Lister(self._files, True, Counter(), self._first_infos())
        times = (self._files.facts(ref.path)[1] or 0 for ref in walk("", lister.entries) if ref.error is None)
        return max(times, default=0) / 1e6

    def names(self) -> list[str]:
        """Names of the files directly in the folder. Raises as `images` does."""
        skip = len(self._files.path("")) + 1
        return [info.path[skip:] for info in self._first_infos() if info.is_file and "/" not in info.path[skip:]]

    def _first_infos(self) -> "list[FileInfo]":
        try:
            return self._files.infos("")
        except (OSError, pa.ArrowException) as error:
            if not is_missing(error):
                raise start_error(error, self.name) from error
        with suppress(OSError):
            if self._files.location.filesystem.get_file_info(self._files.location.path).is_file:
                raise UsageError(f"{self.name}: is not a folder; give the folder that contains it")
        raise NoSuchImagesError(f"{self.name}: does not exist; give a folder of images")


@dataclass
class _Lister:
    files: "RemoteFiles"
    all_files: bool
    ignored: Counter[str]
    first: "list[FileInfo] | None" = None
    """The listing of the first folder, if it was fetched already."""

    def entries(self, prefix: str) -> Iterator[ImageRef | str]:
        """The images and subfolders of one folder, ordered by the bytes of their paths. prefix: ends in `/`."""
        infos, self.first = self.first, None
        try:
            if infos is None:
                infos = refs.retries.call(lambda: call(self.files.location, lambda: self.files.infos(prefix)))
        except OSError as error:
            reason = f"the folder cannot be listed: {error.strerror}"
            yield ImageRef(display_name(prefix.encode()) or "./", b"", ("unreadable", reason))
            return
        for name, size, modified_us in sorted(self._listed(infos, len(self.files.path(prefix)) + 1)):
            key = prefix + name.decode()
            if name == b"/":
                yield _nameless(key)
            else:
                yield key if name.endswith(b"/") else self.files.ref(key, size, modified_us)

    def _listed(self, infos: "list[FileInfo]", skip: int) -> Iterator[tuple[bytes, int, int]]:
        """Name, size and time of a folder's images and subfolders. Subfolders end in `/`, so paths are in order."""
        while infos:  # empties the list, so that a million names are not in memory twice
            info = infos.pop()
            name = info.path[skip:].encode()
            folder = not info.is_file
            if folder and self.files.flat:
                continue
            kind = "hidden" if b"/." in name else kind_by_name(name, all_files=self.all_files or folder)
            if kind == "file":
                yield (name + b"/", 0, 0) if folder else (name, info.size, listed_us(info) or 0)
            else:
                self.ignored[kind] += 1


@dataclass(frozen=True)
class RemoteFiles:
    """The Store of the files below a URL. `path` is a key, with its size and time if the listing gave them."""

    url: str = field(repr=False)
    listed: bool = True
    """Whether its images come from a listing. Some credentials may read, but not list."""

    @cached_property
    def location(self) -> OpenUrl:
        """The file system, opened at first use."""
        return open_location(self.url)._replace(listed=self.listed)

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.url, "listed": self.listed}

    def ref(self, key: str, size: int | None = None, modified_us: int = 0, name: str | None = None) -> ImageRef:
        """The image of a key below the URL."""
        facts = "" if size is None else f"{size} {modified_us}"
        return ImageRef(name or display_name(key.encode()), f"{facts}\0{key}".encode(), store=self)

    @property
    def flat(self) -> bool:
        """Whether a folder must be listed recursively: Arrow does not see subfolders in Google Cloud Storage."""
        return bool(self.location.filesystem.type_name == "gcs")

    def infos(self, prefix: str) -> "list[FileInfo]":
        """Entries of one folder. Raises Arrow's errors."""
        from pyarrow.fs import FileSelector

        selector = FileSelector(self.path(prefix), recursive=self.flat)
        return self.location.filesystem.get_file_info(selector)

    def read(self, path: bytes) -> ImageFile:
        """See `Store.read`. Raises InputError if the whole storage does not answer."""
        try:
            location = self.location
        except UsageError as error:  # only from a list: a listing would have raised it before
            raise ImageError("io_error", str(error)) from error
        file = call(location, lambda: self._read(path))
        if len(file.data) != file.size:
            raise ChangedError("the object was replaced while it was read")
        return file

    def facts(self, path: bytes) -> tuple[int, int | None]:
        """See `Store.facts`: from the listing, or by a request if the listing did not give both."""
        facts, key = _unpacked(path)
        if facts is None or not facts[1]:
            info = call(self.location, lambda: self.location.filesystem.get_file_info(self.path(key)))
            if not info.is_file:
                raise os_error(FileNotFoundError())
            return info.size, listed_us(info)
        return facts

    def _read(self, path: bytes) -> ImageFile:
        facts, key = _unpacked(path)
        if facts:
            refs.check_file_size(facts[0])
        with self.location.filesystem.open_input_file(self.path(key)) as file:
            size = file.size()
            refs.check_file_size(size)
            facts_now = file.metadata() or {}
            stamp = facts_now.get("Last-Modified") or facts_now.get("updated")
            data = file.read(size)
        if stamp:
            with suppress(ValueError, OverflowError, OSError):  # a server may send anything
                return ImageFile(data, size, int(datetime.fromisoformat(stamp.decode()).timestamp()) * _SECOND)
        return ImageFile(data, size, self._modified_us(key, size, facts))

    def _modified_us(self, key: str, size: int, facts: tuple[int, int] | None) -> int | None:
        """Time of a file that gives none when opened: from the listing, if the size is still the same."""
        if facts and facts[1] and facts[0] == size:
            return facts[1]
        return listed_us(self.location.filesystem.get_file_info(self.path(key)))

    def path(self, key: str) -> str:
        """The file system's path of a key."""
        return f"{self.location.path}/{key}".rstrip("/")


def _nameless(key: str) -> ImageRef:
    """The ref for keys with a `//`: Arrow takes a folder with an empty name for its parent and would never finish."""
    return ImageRef(key, b"", ("unreadable", "folders without a name cannot be listed; rename what has // in its key"))


def _unpacked(path: bytes) -> tuple[tuple[int, int] | None, str]:
    """Parts of a ref's path: size and time, if known, and the key."""
    facts, _, key = path.decode().partition("\0")
    size, _, modified_us = facts.partition(" ")
    return ((int(size), int(modified_us)) if facts else None), key
