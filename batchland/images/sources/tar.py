"""Images in tar files, as WebDataset writes them: `shards-{000..099}.tar`, plain or packed by gzip, local or by URL.

Listing reads headers a little ahead of the threads that read images. Both use the same cached blocks
(random_access.py), so a remote shard is fetched once, in order.
"""

import math
import os
import re
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Final, cast

from batchland.errors import BatchlandError, ImageError
from batchland.images.sources import refs
from batchland.images.sources.containers import Containers, joined_facts, split_facts, vanished
from batchland.images.sources.folder import kind_in_archive, name_in_archive
from batchland.images.sources.list_content import kind_of
from batchland.images.sources.random_access import DIRECT_BYTES, GZIP, RandomAccess, Reader, open_files
from batchland.images.sources.refs import Ignored, ImageFile, ImageRef
from batchland.system.names import display_name
from batchland.system.times import known_time

_HEADER_BYTES: Final = 2048
_END_BYTES: Final = 16 * 1024
"""Bytes after the end mark that must be zero. Anything else there means that archives were concatenated."""
_MAX_SIZE: Final = 2**62
_MAGIC: Final = slice(257, 265)
_GNU: Final = b"ustar  \0"
_PREFIX: Final = slice(345, 500)
"""Bytes of a header: in the ustar format the beginning of the name, in GNU's the times of access and change."""
_GNU_FOLDER: Final = b"D"
"""Type of a folder in an incremental archive of GNU tar."""
_PAX_SIZE: Final = re.compile(r"[0-9]+")
_PAX_TIME: Final = re.compile(r"-?[0-9]+(\.[0-9]*)?")


@dataclass(frozen=True)
class Members:
    """The Store of one shard's members. `path` holds offset and size of the content in bytes, and its time or `-`."""

    location: str = field(repr=False)
    """Path or URL of the shard, possibly with credentials."""

    def read(self, path: bytes) -> ImageFile:
        """See `Store.read`. Raises ImageError `truncated` if the shard ends within the member."""
        (offset, size), modified_us = split_facts(path)
        refs.check_file_size(size)
        data = open_files.get(self.location).read_at(offset, size)
        if len(data) < size:
            raise ImageError("truncated", f"the shard ends after {len(data)} of its {size} bytes")
        return ImageFile(data, size, modified_us)

    def facts(self, path: bytes) -> tuple[int, int | None]:
        """See `Store.facts`. Size and time are those of the member's header."""
        (_, size), modified_us = split_facts(path)
        return size, modified_us


class Shards(Containers):
    """Tar files as a Source. Images are named SHARD/MEMBER.

    The unreadable part of a shard has one row, `unreadable`: SHARD/ for all of it, SHARD/@BYTE/ for the part from that
    byte on.
    """

    _store = Members

    def images_in(self, container: str, ignored: Ignored) -> Iterator[ImageRef]:
        """The members of one shard, as stored."""
        location = self._files.locations[container]
        return list_members(container, location, 0, ignored.counts, all_files=self._all_files)

    def retry_refs(self, name: str) -> Iterator[ImageRef]:
        """The image of that name; for SHARD/@BYTE/ the images that can be read from that byte on now."""
        shard = self._files.file_of(name)
        if shard is None:
            return vanished(name, "there is no such shard any more")
        if name.endswith("/"):
            start = int(name[len(shard) :].strip("@/") or 0)
            return list_members(shard, self._files.locations[shard], start, Counter(), all_files=self._all_files)
        location = self._files.locations[shard]
        return self._find_member(shard, name, lambda: list_members(shard, location, 0, Counter(), all_files=True))


def list_members(
    shard: str, location: str, start: int, ignored: Counter[str], *, all_files: bool
) -> Iterator[ImageRef]:
    """The images of a shard from byte `start` on, then a ref for the part that cannot be read, if any."""
    store = Members(location)
    position = start
    extent = ""
    file: RandomAccess | None = None
    try:
        file = refs.retries.call(lambda: open_files.get(location))
        headers = _Headers(file, start)
        headers.require_unpacked()
        headers.seek(start)
        with tarfile.open(
            fileobj=cast("IO[bytes]", headers), mode="r:", errors="surrogateescape", tarinfo=_Member
        ) as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # tarfile keeps them all otherwise
                position = tar.offset
                headers.sparse = member.size >= DIRECT_BYTES
                kind = _kind(member, all_files=all_files)
                if not _has_possible_size(member):
                    position = member.offset
                    raise tarfile.ReadError(f"the header of {_name(member)} gives an impossible size")
                if kind != "file":
                    ignored.update([kind] if kind else [])
                    continue
                facts = joined_facts(member.offset_data, member.size, modified_us=_modified_us(member))
                yield ImageRef(f"{shard}/{_name(member)}", facts, store=store)
            problem = headers.problem_at(position)
            if problem is None:
                extent = "all members of the shard were read, but"
                refs.retries.call(file.finish)
                problem = file.problem
    except OSError as error:
        problem = error.strerror or str(error)
    except BatchlandError:
        raise
    except tarfile.TarError as error:
        problem = str(error)
    except Exception:  # tarfile raises almost anything on damaged headers
        problem = "the header of a member is damaged"
    if problem:
        problem = (file and file.problem) or problem
        name = f"{shard}/@{position}/" if position else f"{shard}/"
        extent = extent or f"the shard cannot be read from byte {position} on:"
        yield ImageRef(name, b"", ("unreadable", f"{extent} {problem}"))


class _Member(tarfile.TarInfo):
    """A member of a tar file. tarfile takes the times in a GNU header for a part of the name; this removes them."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Member":
        """See `tarfile.TarInfo.frombuf`."""
        member = super().frombuf(buf, encoding, errors)
        if buf[_MAGIC] == _GNU:
            prefix = bytes(buf[_PREFIX]).partition(b"\0")[0].decode(encoding, errors)
            member.name = member.name.removeprefix(f"{prefix}/")
        return member


def _has_possible_size(member: tarfile.TarInfo) -> bool:
    """False for numbers that are no size of a file, and for texts, for which tarfile gives 0."""
    size = member.pax_headers.get("size")
    return 0 <= member.size <= _MAX_SIZE and (size is None or bool(_PAX_SIZE.fullmatch(size)))


def _modified_us(member: tarfile.TarInfo) -> int | None:
    """Microseconds since 1970; None for times outside the years 1 to 9999, and for texts, for which tarfile gives 0."""
    time = member.pax_headers.get("mtime")
    if time is not None and not _PAX_TIME.fullmatch(time):
        return None
    return known_time(round(member.mtime * 1_000_000)) if math.isfinite(member.mtime) else None


def _name(member: tarfile.TarInfo) -> str:
    return display_name(name_in_archive(os.fsencode(member.name)))


def _kind(member: tarfile.TarInfo, *, all_files: bool) -> str:
    """See `kind_in_archive`; empty for a folder, which is not counted."""
    if member.isdir() or member.type == _GNU_FOLDER:
        return ""
    kind = kind_in_archive(os.fsencode(member.name), all_files=all_files)
    if kind in ("hidden", "path with .."):
        return kind
    if member.issparse():
        return "sparse"
    return kind if member.isreg() else "not a regular file"


class _Headers(Reader):
    """The shard as a stream for tarfile, which reads only headers. Reads a little more than asked for."""

    def __init__(self, file: RandomAccess, start: int) -> None:
        super().__init__(file, start)
        self._begin = start
        self._buffer = b""
        self.sparse = False
        """Whether headers are far apart."""

    def read(self, size: int = -1) -> bytes:
        skip = self.position - self._begin
        if skip < 0 or skip + size > len(self._buffer):
            wanted = max(size, _HEADER_BYTES)
            self._begin, skip = self.position, 0
            self._buffer = refs.retries.call(lambda: self.file.read_at(self._begin, wanted, alone=self.sparse))
        data = self._buffer[skip : skip + size]
        self.position += len(data)
        return data

    def require_unpacked(self) -> None:
        """Raise tarfile.ReadError if the file is packed by gzip or is of another known kind."""
        if self.position:
            return
        head = self.read(_HEADER_BYTES)
        if head.startswith(GZIP):
            raise tarfile.ReadError("it is packed by gzip; name it .tar.gz")
        if kind := kind_of(head):
            raise tarfile.ReadError(f"it is {kind}")

    def problem_at(self, position: int) -> str | None:
        """Why the archive does not end properly here; None if it does."""
        self.seek(position)
        mark = self.read(tarfile.BLOCKSIZE)
        if not mark.strip(b"\0") and len(mark) < tarfile.BLOCKSIZE:
            return "it has no end mark, so it may be cut short"
        if mark.strip(b"\0"):
            return "there is no member's header, it is damaged or cut short"
        if self.read(_END_BYTES).strip(b"\0"):
            return "something follows its end mark, as if archives were put together with cat"
        return None
