"""Images in zip files: `delivery.zip`, `part-{00..09}.zip`, local or by URL. Nothing is unpacked to disk.

A zip file has its list of members at its end, so listing needs a few requests, and each member is read by itself.
"""

import math
import re
import stat
import struct
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import IO, Final, cast
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from batchland.errors import BatchlandError, ImageError
from batchland.images.sources import refs
from batchland.images.sources.containers import Containers, joined_facts, split_facts, vanished
from batchland.images.sources.folder import kind_in_archive, name_in_archive
from batchland.images.sources.list_content import kind_of
from batchland.images.sources.random_access import RandomAccess, Reader, open_files
from batchland.images.sources.refs import Ignored, ImageFile, ImageRef
from batchland.system.names import display_name

_LOCAL_HEADER: Final = struct.Struct("<4s5H3I2H")
_HEADER_MARK: Final = b"PK\x03\x04"
_END_MARK: Final = b"PK\x05\x06"
_RECORD_BYTES: Final = 22
_END_BYTES: Final = _RECORD_BYTES + 65_535
"""Largest size of the record at the end of a zip file, with its comment."""
_HEAD_BYTES: Final = 512
_TAR_MARK: Final = slice(257, 262)
_ENCRYPTED: Final = 0x1
_IS_ENCRYPTED: Final = -1
_IS_OVERLAPPING: Final = -2
"""In place of the method of a member that is not read."""
_UTF8: Final = 0x800
_UNICODE_PATH: Final = 0x7075
"""Extra field with the name in UTF-8: a version, the checksum of the plain name, and the name."""
_UNIX: Final = 3
"""Code of the system of the writer (Unix); only such members have Unix modes."""


@dataclass(frozen=True)
class ZipMembers:
    """The Store of one file's members.

    `path` holds the offset of the member's header, its size as stored and unpacked in bytes, its method, the checksums
    of its content and of its name, and its time in microseconds.
    """

    location: str = field(repr=False)
    """Path or URL of the zip file, possibly with credentials."""

    def read(self, path: bytes) -> ImageFile:
        """See `Store.read`. Raises ImageError `corrupt`, `truncated`, `too_large` or `unsupported_format`."""
        (offset, packed, size, method, crc, name_crc), modified_us = split_facts(path)
        refs.check_file_size(max(packed, size))
        if method == _IS_OVERLAPPING:
            raise ImageError("corrupt", "the member overlaps another member of the zip file")
        if method not in (ZIP_STORED, ZIP_DEFLATED):
            what = (
                "encrypted"
                if method == _IS_ENCRYPTED
                else f"packed by method {method}; stored and deflated members are read"
            )
            raise ImageError("unsupported_format", f"the member is {what}")
        file = open_files.get(self.location)
        name, begin = _own_header(file, offset)
        if name is None:
            raise ImageError("corrupt", "the zip file has no header where its list says")
        if zlib.crc32(name) != name_crc:
            raise ImageError("corrupt", f"the zip file's list has another name than the member: {display_name(name)}")
        data = file.read_at(begin, packed)
        if len(data) < packed:
            raise ImageError("truncated", f"the zip file ends after {len(data)} of its {packed} bytes")
        if method == ZIP_DEFLATED:
            data = _inflated(data, size)
        if len(data) != size or zlib.crc32(data) != crc:
            raise ImageError("corrupt", "the member does not have the size and checksum of the zip file's list")
        return ImageFile(data, size, modified_us)

    def facts(self, path: bytes) -> tuple[int, int | None]:
        """See `Store.facts`. Size and time are those of the zip file's list."""
        (_, _, size, *_), modified_us = split_facts(path)
        return size, modified_us


class Zips(Containers):
    """Zip files as a Source. Images are named ZIP/MEMBER.

    A file that cannot be read has one row, `unreadable`: ZIP/.
    """

    _store = ZipMembers

    def images_in(self, container: str, ignored: Ignored) -> Iterator[ImageRef]:
        """The members of one file, as stored."""
        location = self._files.locations[container]
        return list_members(container, location, ignored.counts, all_files=self._all_files)

    def retry_refs(self, name: str) -> Iterator[ImageRef]:
        """The image of that name, or all images of ZIP/."""
        file = self._files.file_of(name)
        if file is None:
            return vanished(name, "there is no such zip file any more")
        if name == f"{file}/":
            return self.images_in(file, Ignored())
        location = self._files.locations[file]
        return self._find_member(file, name, lambda: list_members(file, location, Counter(), all_files=True))


def list_members(zip_name: str, location: str, ignored: Counter[str], *, all_files: bool) -> Iterator[ImageRef]:
    """The images of a zip file, or one ref if it cannot be read."""
    store = ZipMembers(location)
    try:
        file = refs.retries.call(lambda: open_files.get(location))
        members, end = _read_list(file)
        overlapping = _overlapping(members, end)
    except BatchlandError:
        raise
    except Exception as error:  # zipfile raises almost anything on damaged files
        known = isinstance(error, BadZipFile | OSError)
        reason = getattr(error, "strerror", None) or (str(error) if known else "its list of members is damaged")
        yield ImageRef(f"{zip_name}/", b"", ("unreadable", f"the zip file cannot be read: {reason}"))
        return
    for index, member in enumerate(members):
        kind = _kind(member, all_files=all_files)
        if kind == "file":
            name = display_name(name_in_archive(_stored_path(member)))
            yield ImageRef(f"{zip_name}/{name}", _facts(member, overlaps=index in overlapping), store=store)
        elif kind:
            ignored[kind] += 1


def _own_header(file: RandomAccess, offset: int) -> tuple[bytes | None, int]:
    """The name in a member's own header, and the position of its content; (None, 0) if there is no header."""
    header = file.read_at(offset, _LOCAL_HEADER.size) if 0 <= offset < file.size else b""
    if len(header) < _LOCAL_HEADER.size or header[:4] != _HEADER_MARK:
        return None, 0
    *_, name_size, extra_size = _LOCAL_HEADER.unpack(header)
    name_at = offset + _LOCAL_HEADER.size
    return file.read_at(name_at, name_size), name_at + name_size + extra_size


def _read_list(file: RandomAccess) -> tuple[list[ZipInfo], int]:
    """The members, and the position of their list.

    Raises almost anything if the list is damaged, or BadZipFile if it is not that of the whole file.
    """
    head = refs.retries.call(partial(file.read_at, 0, _HEAD_BYTES, alone=True))
    begins_with_member = head.startswith(_HEADER_MARK)
    kind = "a tar file" if head[_TAR_MARK] == b"ustar" else kind_of(head)
    if kind and not begins_with_member:
        raise BadZipFile(f"it is {kind}")
    tail = refs.retries.call(partial(file.read_at, max(0, file.size - _END_BYTES), _END_BYTES))
    records = _end_records(tail)
    if not records:
        cut = "the list of its members, at its end, is missing, so it was cut; deliver it again"
        raise BadZipFile(cut if begins_with_member else "it is not a zip file")
    at, end = next((record for record in records if record[1] == len(tail)), records[0])  # others are in a comment
    with ZipFile(cast("IO[bytes]", _ListReader(file, size=file.size - len(tail) + at + _RECORD_BYTES))) as archive:
        members, list_at = archive.infolist(), archive.start_dir
    if (begins_with_member and _lacks_first(file, members, list_at)) or _HEADER_MARK in tail[end:]:
        raise BadZipFile("its list lacks members: it was cut, or zip files were joined by cat; deliver it again")
    return members, list_at


def _lacks_first(file: RandomAccess, members: Sequence[ZipInfo], list_at: int) -> bool:
    """Whether the list does not name the member that the file begins with. Its position may be damaged."""
    if any(not 0 < member.header_offset < list_at for member in members):
        return False
    first, _ = _own_header(file, 0)
    named = (member.header_offset for member in members if _name_bytes(member) == first)
    return all(_own_header(file, offset)[0] == first for offset in named)


class _ListReader(Reader):
    """Repeats reads that fail, because zipfile takes a failed one for a damaged file."""

    def read(self, size: int = -1) -> bytes:
        """See `Reader.read`."""
        return refs.retries.call(partial(super().read, size))


def _end_records(tail: bytes) -> list[tuple[int, int]]:
    """Begin and end, with the comment, of the records at the end of a zip file, the last one first."""
    begins = [match.start() for match in re.finditer(_END_MARK, tail) if match.start() + _RECORD_BYTES <= len(tail)]
    sizes = (int.from_bytes(tail[at + _RECORD_BYTES - 2 : at + _RECORD_BYTES], "little") for at in begins)
    return [(at, at + _RECORD_BYTES + size) for at, size in zip(begins, sizes, strict=True)][::-1]


def _overlapping(members: Sequence[ZipInfo], end: int) -> set[int]:
    """Indices of the members that reach into the next one. With them, a small file could unpack to a huge number.

    Empty if all members together fit before the position `end`: then a damaged position costs one row.
    """
    if sum(member.compress_size for member in members) <= end:
        return set()
    found, limit = set(), math.inf
    for index in sorted(range(len(members)), key=lambda index: members[index].header_offset, reverse=True):
        member = members[index]
        end = member.header_offset + _LOCAL_HEADER.size + len(_name_bytes(member)) + member.compress_size
        if end > limit:
            found.add(index)
        limit = member.header_offset
    return found


def _inflated(data: bytes, size: int) -> bytes:
    """At most one byte more than `size`, so that a small file cannot fill the memory."""
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size + 1)
    except zlib.error as error:
        reason = str(error).rpartition(": ")[2]
        raise ImageError("corrupt", f"the member cannot be unpacked: {reason}") from error


def _facts(member: ZipInfo, *, overlaps: bool) -> bytes:
    method = _IS_ENCRYPTED if member.flag_bits & _ENCRYPTED else member.compress_type
    method = _IS_OVERLAPPING if overlaps else method
    try:
        modified_us = int(datetime(*member.date_time, tzinfo=UTC).timestamp()) * 1_000_000
    except ValueError:
        modified_us = None
    name_crc = zlib.crc32(_name_bytes(member))
    numbers = (member.header_offset, member.compress_size, member.file_size, method, member.CRC, name_crc)
    return joined_facts(*numbers, modified_us=modified_us)


def member_name(member: ZipInfo) -> str:
    """The name of a member of a zip file as it is stored.

    Names are cp437 unless a flag, an extra field or the name itself shows that they are UTF-8: zip and 7-Zip on Linux
    write UTF-8 without the flag. That a name in cp437 is valid UTF-8 by chance is improbable.
    """
    name = member.orig_filename
    if not member.flag_bits & _UTF8:
        plain = _name_bytes(member)
        name = _unicode_path(member.extra, zlib.crc32(plain)) or _decoded(plain) or name
    return name


def _name_bytes(member: ZipInfo) -> bytes:
    return member.orig_filename.encode("utf-8" if member.flag_bits & _UTF8 else "cp437")


def _decoded(name: bytes) -> str | None:
    try:
        return name.decode()
    except UnicodeDecodeError:
        return None


def _unicode_path(extra: bytes, checksum: int) -> str | None:
    """The name in a Unicode Path field that belongs to the name with that checksum; None if there is none."""
    while len(extra) >= 4:
        kind, size = struct.unpack_from("<2H", extra)
        value, extra = extra[4 : 4 + size], extra[4 + size :]
        if kind == _UNICODE_PATH and value[:5] == struct.pack("<BI", 1, checksum):
            return _decoded(value[5:])
    return None


def _stored_path(member: ZipInfo) -> bytes:
    return member_name(member).partition("\0")[0].encode()


def _kind(member: ZipInfo, *, all_files: bool) -> str:
    """See `kind_in_archive`; empty for a folder and a member without a name, which are not counted."""
    path = _stored_path(member)
    if not path or path.endswith(b"/"):
        return ""
    kind = kind_in_archive(path, all_files=all_files)
    is_link = member.create_system == _UNIX and stat.S_ISLNK(member.external_attr >> 16)
    return "not a regular file" if is_link and kind == "file" else kind
