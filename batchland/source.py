"""What there is to score: a stable listing of images below a folder, and their bytes. Knows nothing of pixels."""

import errno
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from batchland.errors import ErrorCode, ImageError, UsageError
from batchland.retries import Retries

IMAGE_EXTENSIONS: Final = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
)
"""Lower case. The extension only selects a file; its content decides how it is decoded."""
MAX_FILE_BYTES: Final = 512 * 1024**2
"""Larger files fail as `too_large`, unread."""

_retries: Final = Retries()
_ESCAPED: Final = re.compile(rb"\\x([0-9a-f]{2})")
_LOOKS_ESCAPED: Final = re.compile(rb"\\(?=x[0-9a-f]{2})")


class ImageRef(NamedTuple):
    """One listed image: its name below the root (`/` separated, valid UTF-8) and where to open it."""

    name: str
    path: bytes
    error: tuple[ErrorCode, str] | None = None
    """Set where listing itself failed (a folder that cannot be read): the row is a failed one."""


class ImageFile(NamedTuple):
    """A file's content, and its size in bytes and modification time at the moment of reading."""

    data: bytes
    size: int
    modified_us: int
    """Microseconds since 1970, UTC."""


@dataclass
class Ignored:
    """What lies below the root and is not listed, counted by extension or kind. Filled while listing."""

    counts: Counter[str] = field(default_factory=Counter)


def list_images(
    root: str | os.PathLike[str],
    *,
    all_files: bool = False,
    follow_links: bool = False,
    ignored: Ignored | None = None,
) -> Iterator[ImageRef]:
    """List the images below `root` in the order of their paths' bytes, holding one folder's names at a time.

    Regular files and links to files, by extension (any with `all_files`). Hidden names are passed over; links to
    folders are followed with `follow_links`, never in a loop. FIFOs, devices and dangling links are not listed. No file
    is opened or, links aside, even stat'ed. A folder that cannot be listed, not even after retries, is yielded as a ref
    with the error `unreadable`, so that it becomes a failed row instead of a silent gap. What is left out is counted in
    `ignored`.

    Raises UsageError if `root` is no folder.
    """
    top = os.fsencode(root)
    try:
        problem = None if stat.S_ISDIR(os.stat(top).st_mode) else "is not a folder"
    except (FileNotFoundError, NotADirectoryError):
        problem = "does not exist"
    except OSError as error:
        problem = f"cannot be opened ({error.strerror})"
    if problem:
        raise UsageError(f"{display_name(top)}: {problem}; give a folder of images")
    counts = ignored.counts if ignored is not None else Counter()
    return _walk((top, b"", ()), _Lister(all_files, follow_links, counts))


def list_again(
    root: str | os.PathLike[str], name: str, *, all_files: bool = False, follow_links: bool = False
) -> Iterator[ImageRef]:
    """What has to be scored to replace a failed row: its image, or all images below the folder that was `unreadable`.

    name: as `list_images` gave it. An image need not exist any more.
    """
    relative = file_name(name)
    path = os.path.join(os.fsencode(root), relative)  # noqa: PTH118 - pathlib has no bytes
    if relative.endswith(b"/"):
        prefix = b"" if relative == b"./" else relative
        return _walk((path.rstrip(b"/"), prefix, ()), _Lister(all_files, follow_links, Counter()))
    return iter([ImageRef(name, path)])


def _walk(top: "_Folder", lister: "_Lister") -> Iterator[ImageRef]:
    stack = [lister.entries(*top)]
    while stack:  # a stack of folders under way, however deep, in place of recursion
        entry = next(stack[-1], None)
        if entry is None:
            stack.pop()
        elif isinstance(entry, ImageRef):
            yield entry
        else:
            stack.append(lister.entries(*entry))


_FolderId = tuple[int, int]
_Folder = tuple[bytes, bytes, tuple[_FolderId, ...]]
"""A folder to list: its path, its name below the root with a `/`, and the folders above it (to see link loops)."""


@dataclass(frozen=True)
class _Lister:
    all_files: bool
    follow_links: bool
    ignored: Counter[str]

    def entries(self, folder: bytes, prefix: bytes, above: tuple[_FolderId, ...]) -> Iterator[ImageRef | _Folder]:
        """The images and subfolders of one folder, in order."""
        try:
            if self.follow_links:
                status = os.stat(folder)
                identity = (status.st_dev, status.st_ino)
                if identity in above:
                    self.ignored["link loop"] += 1
                    return
                above = (*above, identity)
            names = _retries.call(lambda: self._names(folder))
        except OSError as error:
            reason = f"the folder cannot be listed: {error.strerror}"
            yield ImageRef(display_name(prefix) or "./", folder, ("unreadable", reason))
            return
        for name in names:
            path = os.path.join(folder, name.rstrip(b"/"))  # noqa: PTH118 - pathlib has no bytes
            if name.endswith(b"/"):
                yield path, prefix + name, above
            else:
                yield ImageRef(display_name(prefix + name), path)

    def _names(self, folder: bytes) -> list[bytes]:
        """What to list of a folder, sorted; a subfolder's name has its `/` so that whole paths come in order."""
        names, ignored = [], Counter[str]()
        with os.scandir(folder) as entries:
            for entry in entries:
                kind = self._kind(entry)
                if kind in ("file", "folder"):
                    names.append(entry.name + b"/" if kind == "folder" else entry.name)
                else:
                    ignored[kind] += 1
        self.ignored.update(ignored)  # not before: half a listing may be retried
        return sorted(names)

    def _kind(self, entry: os.DirEntry[bytes]) -> str:
        if entry.name.startswith(b"."):
            return "hidden"
        if entry.is_symlink():
            try:
                mode = entry.stat().st_mode
            except OSError:
                return "dangling link"
            if stat.S_ISDIR(mode):
                return "folder" if self.follow_links else "link to a folder"
            if not stat.S_ISREG(mode):
                return "not a regular file"
        elif entry.is_dir():
            return "folder"
        elif not entry.is_file():
            return "not a regular file"
        extension = display_name(os.path.splitext(entry.name)[1].lower())  # noqa: PTH122
        if self.all_files or extension in IMAGE_EXTENSIONS:
            return "file"
        return extension or "no extension"


def choose(
    images: Iterable[ImageRef], include: Sequence[str], exclude: Sequence[str], ignored: Ignored
) -> Iterator[ImageRef]:
    """Pass on the images that match a pattern of `include` (all, if there is none) and none of `exclude`.

    Patterns are those of .gitignore, on names below the root: `*.png`, `camera-1/`, `/upload/**`, `!except-this.jpg`.
    A folder that could not be listed is passed on unless it is excluded. Raises UsageError for a pattern that is none.
    """
    wanted, unwanted = matcher(include), matcher(exclude)
    for ref in images:
        if unwanted(ref.name):
            ignored.counts["excluded"] += 1
        elif include and ref.error is None and not wanted(ref.name):
            ignored.counts["not included"] += 1
        else:
            yield ref


def matcher(patterns: Sequence[str]) -> Callable[[str], bool]:
    """Whether a name matches one of the patterns, as in .gitignore. Raises UsageError for a pattern that is none."""
    if not patterns:
        return lambda name: False  # noqa: ARG005
    from pathspec import GitIgnoreSpec  # only who has patterns pays for it

    for pattern in patterns:
        try:
            GitIgnoreSpec.from_lines([pattern])
        except ValueError as error:
            raise UsageError(f"pattern {pattern!r}: is no pattern as in .gitignore; write it like '*.png'") from error
    return GitIgnoreSpec.from_lines(patterns).match_file


def read_image(ref: ImageRef) -> ImageFile:
    """Read an image's bytes, with its size and modification time; errors that may pass are retried.

    Raises ImageError (`vanished`, `permission_denied`, `too_large`, `changed`, `io_error`, `out_of_memory`, or the
    listing's own error). Never blocks on a FIFO or a device that took the file's place.
    """
    if ref.error is not None:
        raise ImageError(*ref.error)
    try:
        return _retries.call(lambda: _read(ref.path))
    except OSError as error:
        raise ImageError(_code(error), error.strerror or str(error)) from error
    except MemoryError as error:
        raise ImageError("out_of_memory", "not enough memory to read it") from error


class _ChangedError(OSError):
    """The file was written to while it was read: what was read may be half old, half new."""


def _read(path: bytes) -> ImageFile:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("io_error", "no longer a regular file")
        if status.st_size > MAX_FILE_BYTES:
            raise ImageError("too_large", f"{status.st_size} bytes, more than {MAX_FILE_BYTES}")
        data = file.read(status.st_size + 1)  # a byte more than there should be, and never all of an endless file
        now = os.fstat(descriptor)
    if not (len(data) == status.st_size == now.st_size and status.st_mtime_ns == now.st_mtime_ns):
        raise _ChangedError("the file was being written while it was read")
    return ImageFile(data, status.st_size, status.st_mtime_ns // 1000)


def display_name(name: bytes) -> str:
    r"""A file name as valid UTF-8: bytes that are not stand as `\xNN`. No two names give the same text.

    (A backslash that happens to stand before such an `xNN` is written `\x5c` for that.)
    """
    return _LOOKS_ESCAPED.sub(rb"\\x5c", name).decode("utf-8", "backslashreplace")


def shown(path: str | os.PathLike[str]) -> str:
    """A path for people and JSON, as `display_name` shows names."""
    return display_name(os.fsencode(path))


def file_name(name: str) -> bytes:
    """The bytes that `display_name` shows as `name`."""
    return _ESCAPED.sub(lambda match: bytes.fromhex(match[1].decode()), name.encode())


def _code(error: OSError) -> ErrorCode:
    if isinstance(error, _ChangedError):
        return "changed"
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ESTALE):
        return "vanished"
    if error.errno in (errno.EACCES, errno.EPERM):
        return "permission_denied"
    return "io_error"
