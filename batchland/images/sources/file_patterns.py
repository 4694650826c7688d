"""Patterns that name several files, as paths or URLs: `shards-{000..099}.tar`, `{train,test}.parquet`, `*.tar`."""

import math
import os
import re
import stat
import string
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import cached_property
from typing import IO, Final
from urllib.parse import quote, unquote

from batchland.errors import BatchlandError, InputError, NoSuchImagesError, UsageError
from batchland.images.sources.refs import retries
from batchland.system.names import display_path
from batchland.system.retries import storage_failed
from batchland.system.urls import display_url, is_url, local_path

_DESCRIPTORS: Final = ("/dev/stdin", "/dev/fd/", "/proc/self/fd/")
"""What shells give for `<(command)`, and `cat list |`."""
_MOST_FILES: Final = 1_000_000
"""Files that one pattern may name. More are a mistyped range, and would fill the memory."""
_INNERMOST_BRACES: Final = re.compile(r"\{([^{}]*)\}")
_RANGE: Final = re.compile(r"(-?\d+|[A-Za-z])\.\.(-?\d+|[A-Za-z])(?:\.\.-?(\d+))?")
_MAX_DIGITS: Final = 15


class FilePattern:
    """The files of a pattern, by name: the path below the last folder that all of them have in common."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self._last = "\0"
        """The file that `location_of` found last."""

    @cached_property
    def locations(self) -> dict[str, str]:
        """Path or URL, with all options, by name, in order. Raises UsageError if the pattern matches nothing."""
        return dict(_expand(self.pattern))

    def names(self) -> list[str]:
        """The names, in order. Raises UsageError if the first file is missing, InputError if the server is silent."""
        check_file(next(iter(self.locations.values())))
        return list(self.locations)

    def location_of(self, image: str) -> str:
        """Path or URL of the file that contains an image. Raises UsageError if the pattern has no such file."""
        file = self._last if image.startswith(self._last) and image[len(self._last) :][:1] in ("/", "#") else None
        if file is None and (file := self.file_of(image)) is None:
            raise UsageError(f"{display_location(self.pattern)}: has no file with {image}; give the planned ones")
        self._last = file
        return self.locations[file]

    def file_of(self, image: str) -> str | None:
        """Name of the file that contains an image: the part of the image's name before a `/` or `#`."""
        return next(
            (image[: end.start()] for end in re.finditer("[/#]", image) if image[: end.start()] in self.locations), None
        )


def display_location(location: str) -> str:
    """For fingerprints and messages: an absolute path, or a URL without credentials."""
    return display_url(location) if is_url(location) else display_path(os.path.abspath(location))  # noqa: PTH100 - not resolved


def _expand(pattern: str) -> Iterator[tuple[str, str]]:
    """Names and paths: braces in the order written, `*` in the order of the names' bytes.

    Files that braces name need not exist. A `*` is allowed in the last part of the path only.
    """
    pattern = (local_path(pattern) if is_url(pattern) else None) or pattern
    if not is_url(pattern):
        literal = os.path.exists(pattern)  # noqa: PTH110 - whatever signs are in its name
        common = os.path.dirname(pattern if literal else _plain(pattern))  # noqa: PTH120
        for path in [pattern] if literal else _expanded(pattern, ""):
            yield display_path(os.path.normpath(path[len(common) :].lstrip("/"))), path
        return
    path, mark, options = pattern.partition("?")
    common = _plain(path).rpartition("/")[0]
    for file in _expanded(path, mark + options):
        yield unquote(file[len(common) + 1 :]), file + mark + options


def check_file(location: str) -> None:
    """Check that a file can be opened and read. Raises UsageError if not, InputError if the storage fails."""
    if is_url(location):
        from batchland.system.filesystems import check_remote_file

        return check_remote_file(location)
    with open_file(location) as file:
        try:
            retries.call(lambda: file.read(1))
        except OSError as error:
            raise _error(location, "read", error) from error


def open_file(path: str) -> IO[bytes]:
    """Open a local regular file, or a descriptor of this process such as /dev/stdin.

    A named pipe is refused: without a writer it would hang. Raises UsageError, or InputError if the storage fails.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        file = open(retries.call(lambda: os.open(path, flags)), "rb")  # noqa: SIM115 - for the caller
        mode = os.fstat(file.fileno()).st_mode
        if stat.S_ISREG(mode) or path.startswith(_DESCRIPTORS):
            os.set_blocking(file.fileno(), True)
            return file
        file.close()
    except OSError as error:
        raise _error(path, "opened", error) from error
    raise UsageError(f"{display_location(path)}: is not a regular file, so it may never end; give a file")


def _plain(pattern: str) -> str:
    """The part before the first brace or `*`."""
    return re.split(r"[{*]", pattern, maxsplit=1)[0]


def _expanded(pattern: str, options: str) -> Iterator[str]:
    from braceexpand import braceexpand  # slow to import, and only patterns need it

    if _count(pattern) > _MOST_FILES:
        raise UsageError(f"{display_location(pattern)}: its braces name more than {_MOST_FILES} files; is it mistyped?")
    try:
        for path in braceexpand(pattern, escape=False):
            yield from _globbed(path, options) if "*" in path else [path]
    except ValueError:
        raise UsageError(
            f"{display_location(pattern)}: its braces are unbalanced; write NAME-{{000..099}}.tar"
        ) from None


def _count(pattern: str) -> int:
    """The number of files that the braces of a pattern name. Counts from the inside out, without making the names."""

    def product(text: str) -> int:
        return math.prod(map(int, re.findall("\0(\\d+)\0", text)))

    def counted(braces: re.Match[str]) -> str:
        limits = _RANGE.fullmatch(braces[1])
        number = _count_range(*limits.groups()) if limits else sum(map(product, braces[1].split(",")))
        return f"\0{min(number, _MOST_FILES + 1)}\0"

    while (outer := _INNERMOST_BRACES.sub(counted, pattern)) != pattern:
        pattern = outer
    return product(pattern)


def _count_range(first: str, last: str, step: str | None) -> int:
    if max(map(len, (first, last, step or ""))) > _MAX_DIGITS:
        return _MOST_FILES + 1
    letters = string.ascii_uppercase + string.ascii_lowercase  # in the order of braceexpand
    begin, end = (letters.index(each) if each in letters else int(each) for each in (first, last))
    return abs(end - begin) // (int(step or 1) or 1) + 1


def _globbed(path: str, options: str) -> list[str]:
    folder, slash, last = path.rpartition("/")
    names = [name for name in _names(folder, slash, options) if not name.startswith(".") and fnmatchcase(name, last)]
    if not names:
        raise NoSuchImagesError(f"{display_location(path)}: there is no such file")
    return [f"{folder}{slash}{name}" for name in sorted(names, key=os.fsencode)]


def _names(folder: str, slash: str, options: str) -> list[str]:
    if is_url(folder):
        from batchland.images.sources.remote import Remote

        return [quote(name) for name in Remote(folder + options).names()]
    try:
        return retries.call(lambda: os.listdir(folder or slash or "."))
    except OSError as error:
        raise _error(folder, "listed", error) from error


def _error(path: str, action: str, error: OSError) -> BatchlandError:
    problem = f"{display_location(path)}: cannot be {action} ({error.strerror})"
    if storage_failed(error):
        return InputError(problem)
    kind = NoSuchImagesError if isinstance(error, FileNotFoundError) else UsageError
    return kind(f"{problem}; give a file")
