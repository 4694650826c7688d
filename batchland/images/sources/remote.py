"""Images in an object store or on a cluster's file system, by URL. Lists folder by folder, reads with retries.

Knows URLs, not how they are opened (filesystems.py). Reading one image is what pyarrow makes of it: of an object store
a HEAD and a GET, since Arrow asks for the size before it reads. Listing brings sizes and times along for nothing.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from batchland.errors import ImageError, UsageError
from batchland.images.sources import refs
from batchland.images.sources.folder import kind_by_name, walk
from batchland.images.sources.refs import ChangedError, Ignored, ImageFile, ImageRef, display_name, file_name
from batchland.system.filesystems import Location, call, is_missing, listed_us, open_location, os_error, start_error
from batchland.system.urls import display_url

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo

_SECOND: Final = 1_000_000


class Remote:
    """A folder in a remote file system as a Source."""

    countable = False

    def __init__(self, url: str, *, all_files: bool = False) -> None:
        self.name = display_url(url).rstrip("/")
        self._files = RemoteFiles(url)
        self._all_files = all_files

    def images(self, ignored: Ignored) -> Iterator[ImageRef]:
        """As `list_images` does it. Raises UsageError, or InputError if nobody answers, before the first image."""
        return walk("", _Lister(self._files, self._all_files, ignored.counts, self._first_infos()).entries)

    def inputs(self) -> Iterable[str]:
        """The folder."""
        return [self.name]

    def again(self, name: str) -> Iterator[ImageRef]:
        """As `list_again` does it."""
        key = file_name(name).decode()
        if "//" in f"/{key}":
            return iter([_nameless(key)])
        if key.endswith("/"):
            return walk("" if key == "./" else key, _Lister(self._files, self._all_files, Counter()).entries)
        return iter([self._files.ref(key)])

    def names(self) -> list[str]:
        """The files in the folder itself. Raises as `images` does."""
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
                raise UsageError(f"{self.name}: is not a folder; give the folder that it lies in")
        raise UsageError(f"{self.name}: does not exist; give a folder of images")


@dataclass
class _Lister:
    files: "RemoteFiles"
    all_files: bool
    ignored: Counter[str]
    first: "list[FileInfo] | None" = None
    """The listing of the first folder, if it is known already."""

    def entries(self, prefix: str) -> Iterator[ImageRef | str]:
        """The images and subfolders of one folder, in the order of their paths' bytes. prefix: with its `/`."""
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
        """What to list of a folder; a subfolder's name has its `/` so that whole paths come in order."""
        while infos:  # from the end, so that a million names are not held twice
            info = infos.pop()
            name = info.path[skip:].encode()
            folder = not info.is_file
            if folder and self.files.flat:
                continue
            kind = "hidden" if b"/." in name else kind_by_name(name, all_files=self.all_files or folder)
            if kind == "file":
                yield (name + b"/", 0, 0) if folder else (name, info.size, listed_us(info))
            else:
                self.ignored[kind] += 1


@dataclass(frozen=True)
class RemoteFiles:
    """The Store of what lies below a URL: `path` is a key, with its size and time where the listing gave them."""

    url: str = field(repr=False)
    listed: bool = True
    """Whether its images are known by listing it, which some may not do who may read them."""

    @cached_property
    def location(self) -> Location:
        """Opened at first use."""
        return open_location(self.url)._replace(listed=self.listed)

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.url, "listed": self.listed}

    def ref(self, key: str, size: int | None = None, modified_us: int = 0, name: str | None = None) -> ImageRef:
        """The image of that key below the URL."""
        facts = "" if size is None else f"{size} {modified_us}"
        return ImageRef(name or display_name(key.encode()), f"{facts}\0{key}".encode(), store=self)

    @property
    def flat(self) -> bool:
        """Whether a folder has to be listed with all that is below: Arrow does not see Google's subfolders."""
        return bool(self.location.filesystem.type_name == "gcs")

    def infos(self, prefix: str) -> "list[FileInfo]":
        """What lies in one folder. Raises Arrow's errors."""
        from pyarrow.fs import FileSelector

        selector = FileSelector(self.path(prefix), recursive=self.flat)
        found: list[FileInfo] = self.location.filesystem.get_file_info(selector)
        return found

    def read(self, path: bytes) -> ImageFile:
        """As the Store says. Raises InputError if the storage as a whole is gone, which is no image's fault."""
        try:
            location = self.location
        except UsageError as error:  # of a list; a listing would have found out
            raise ImageError("io_error", str(error)) from error
        file = call(location, lambda: self._read(path))
        if len(file.data) != file.size:
            raise ChangedError("the object was replaced while it was read")
        return file

    def facts(self, path: bytes) -> tuple[int, int]:
        """As listed, or asked for now."""
        facts, key = _unpacked(path)
        if facts is None:
            info = call(self.location, lambda: self.location.filesystem.get_file_info(self.path(key)))
            if not info.is_file:
                raise os_error(FileNotFoundError())
            return info.size, listed_us(info)
        return facts

    def _read(self, path: bytes) -> ImageFile:
        facts, key = _unpacked(path)
        if facts and facts[0] > refs.MAX_FILE_BYTES:
            raise ImageError("too_large", f"{facts[0]} bytes, more than {refs.MAX_FILE_BYTES}")
        with self.location.filesystem.open_input_file(self.path(key)) as file:
            size = file.size()
            if size > refs.MAX_FILE_BYTES:
                raise ImageError("too_large", f"{size} bytes, more than {refs.MAX_FILE_BYTES}")
            facts_now = file.metadata() or {}
            stamp = facts_now.get("Last-Modified") or facts_now.get("updated")
            data = file.read(size)
        if stamp:
            return ImageFile(data, size, int(datetime.fromisoformat(stamp.decode()).timestamp()) * _SECOND)
        return ImageFile(data, size, self._modified_us(key, size, facts))

    def _modified_us(self, key: str, size: int, facts: tuple[int, int] | None) -> int:
        """Where opening a file does not tell: as listed, if that is the same file still."""
        if facts and facts[0] == size:
            return facts[1]
        return listed_us(self.location.filesystem.get_file_info(self.path(key)))

    def path(self, key: str) -> str:
        """What the file system knows a key by."""
        return f"{self.location.path}/{key}".rstrip("/")


def _nameless(key: str) -> ImageRef:
    """What stands for keys with a `//`: Arrow takes the folder without a name for the one above, and would go round."""
    return ImageRef(key, b"", ("unreadable", "folders without a name cannot be listed; rename what has // in its key"))


def _unpacked(path: bytes) -> tuple[tuple[int, int] | None, str]:
    """A ref's path: size and time, if they are known, and the key."""
    facts, _, key = path.decode().partition("\0")
    size, _, modified_us = facts.partition(" ")
    return ((int(size), int(modified_us)) if facts else None), key
