"""Unpack an untrusted zip or tar archive: refuses links, paths outside the target and excessive sizes.

Sizes are counted while unpacking, not taken from the archive's headers. One bad entry refuses the whole archive; the
caller deletes what was unpacked before it.
"""

import errno
import gzip
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from lzma import LZMAError
from pathlib import Path, PurePosixPath
from typing import IO, Final, NamedTuple

from batchland.data.options import UnpackLimits
from batchland.errors import UsageError
from batchland.images.sources.zip import member_name

_CHUNK: Final = 1 << 20
_RATIO_COUNTS_FROM: Final = 64 << 20
"""The ratio is checked above this number of unpacked bytes: a small archive of uniform images may compress well."""
_JUNK: Final = ("__MACOSX", ".DS_Store", "Thumbs.db")
# What the readers raise on damaged archives; zipfile raises the last for a compression that it cannot read.
_DAMAGE: Final = (
    zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, LZMAError, EOFError, UnicodeError,
    NotImplementedError,
)  # fmt: skip


class Unpacked(NamedTuple):
    """Number and size of the unpacked files."""

    files: int
    size: int
    """Bytes."""


def unpack(
    archive: Path,
    folder: Path,
    limits: UnpackLimits | None = None,
    *,
    name: str | None = None,
    on_entry: Callable[[int], None] | None = None,
) -> Unpacked:
    """Unpack all files of a zip or tar archive (plain, gzip, bzip2, xz) into the empty folder `folder`.

    Permissions, owners and times are not preserved. name: of the archive in error messages. on_entry: called before
    each entry with the number of earlier ones; raise in it to stop. Raises UsageError if the archive is damaged or an
    entry is refused, OSError if writing fails.
    """
    name = name or str(archive)
    unpacking = _Unpacking(name, folder, limits or UnpackLimits(), archive.stat().st_size)
    try:
        for member in _members(archive, name):
            if on_entry is not None:
                on_entry(unpacking.entries)
            unpacking.take(member)
    except _DAMAGE as error:
        raise UsageError(f"{name}: damaged ({error}); download it again") from error
    except OSError as error:
        if error.errno in (None, errno.EINVAL):  # bzip2 on damaged data, a seek to a damaged offset
            raise UsageError(f"{name}: damaged ({error}); download it again") from error
        raise
    return Unpacked(unpacking.files, unpacking.size)


def lift_only_folder(folder: Path) -> None:
    """If `folder` contains nothing but one folder, as archives often do, move the content of that folder up."""
    inside = list(folder.iterdir())
    if len(inside) != 1 or not inside[0].is_dir() or inside[0].name in ("train", "test", "val"):
        return
    inner = inside[0].rename(folder / ".inner")  # a child may have the same name
    for child in list(inner.iterdir()):
        child.rename(folder / child.name)
    inner.rmdir()


class _Member(NamedTuple):
    """One entry of a zip or tar archive."""

    name: str
    is_folder: bool
    problem: str | None
    """Why it cannot be unpacked: a link, a device, encrypted."""
    open: Callable[[], IO[bytes]]


def _members(archive: Path, name: str) -> Iterator[_Member]:
    """The entries, in the archive's order. The format is detected from the content, not from the name."""
    if zipfile.is_zipfile(archive):
        return _zip_members(archive)
    if tarfile.is_tarfile(archive):
        return _tar_members(archive)
    raise UsageError(f"{name}: neither a zip nor a tar archive; it may be cut off, or a web page with an error")


def _zip_members(archive: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as container:
        for info in container.infolist():
            mode = info.external_attr >> 16
            problem = None
            if info.flag_bits & 1:
                problem = "is encrypted"
            elif stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                problem = "is a link or a device"
            yield _Member(member_name(info), info.is_dir(), problem, partial(container.open, info))


def _tar_members(archive: Path) -> Iterator[_Member]:
    with tarfile.open(archive) as container:
        for info in container:
            problem = None if info.isfile() or info.isdir() else "is a link or a device"

            def content(info: tarfile.TarInfo = info) -> IO[bytes]:
                file = container.extractfile(info)
                assert file is not None  # of a regular file
                return file

            yield _Member(info.name, info.isdir(), problem, content)
        assert container.fileobj is not None
        container.fileobj.read(_CHUNK)  # the padding, and with it the checksum of a gzip, bzip2 or xz stream


@dataclass
class _Unpacking:
    """Unpacks entries and counts them against the limits."""

    name: str
    folder: Path
    limits: UnpackLimits
    archive_bytes: int
    entries: int = 0
    files: int = 0
    size: int = 0

    def take(self, member: _Member) -> None:
        """Unpack one entry, or raise UsageError."""
        self.entries += 1
        if self.entries > self.limits.max_files:
            raise UsageError(f"{self.name}: more than {self.limits.max_files} entries; refused, nothing is unpacked")
        path = self._path(member)
        if any(part in _JUNK for part in path.relative_to(self.folder).parts):
            return
        try:
            (path if member.is_folder else path.parent).mkdir(parents=True, exist_ok=True)
            if not member.is_folder:
                with path.open("xb") as target, member.open() as source:
                    self._copy(member, source, target)
                self.files += 1
        except (FileExistsError, NotADirectoryError) as error:
            raise self._refusal(member, "occurs twice") from error

    def _path(self, member: _Member) -> Path:
        """Target path. A backslash counts as a separator, as in archives written on Windows."""
        name = PurePosixPath(member.name.replace("\\", "/"))
        if name.is_absolute() or ".." in name.parts or ":" in (*name.parts, "")[0] or "\0" in member.name:
            raise self._refusal(member, "points outside the target")
        if member.problem:
            raise self._refusal(member, member.problem)
        return self.folder / name

    def _copy(self, member: _Member, source: IO[bytes], target: IO[bytes]) -> None:
        limit = max(_RATIO_COUNTS_FROM, int(self.archive_bytes * self.limits.max_ratio))
        while chunk := source.read(_CHUNK):
            self.size += len(chunk)
            if self.size > self.limits.max_bytes:
                raise self._refusal(member, f"makes the total exceed {self.limits.max_bytes / 1e9:g} GB")
            if self.size > limit:
                raise self._refusal(
                    member, f"makes the total exceed {self.limits.max_ratio:g} times the archive's size"
                )
            target.write(chunk)

    def _refusal(self, member: _Member, problem: str) -> UsageError:
        return UsageError(f"{self.name}: its entry {member.name!r} {problem}; refused, nothing is unpacked")
