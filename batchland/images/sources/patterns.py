"""Several files by one name: `shards-{000..099}.tar`, `{train,test}.parquet`, `*.tar`; paths or URLs."""

import os
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import cached_property
from typing import IO
from urllib.parse import quote, unquote

from batchland.errors import UsageError
from batchland.images.sources.refs import display_path
from batchland.system.urls import display_url, is_url, local_path


class Files:
    """The files of a pattern, by their names: what comes behind the last folder that all of them have in common."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern

    @cached_property
    def places(self) -> dict[str, str]:
        """Path or URL, with all options, of each name, in order. Raises UsageError if there can be none."""
        return dict(_expand(self.pattern))

    def names(self) -> list[str]:
        """The names, in order. Raises UsageError, or InputError if nobody answers, unless the first is there."""
        check_file(next(iter(self.places.values())))
        return list(self.places)

    def holding(self, name: str) -> str | None:
        """The file whose name, and a `/` or `#`, an image's name begins with."""
        return next(
            (name[: end.start()] for end in re.finditer("[/#]", name) if name[: end.start()] in self.places), None
        )


def shown_pattern(pattern: str) -> str:
    """For fingerprints and people: an absolute path, or a URL without credentials."""
    return display_url(pattern) if is_url(pattern) else display_path(os.path.abspath(pattern))  # noqa: PTH100 - not resolved


def _expand(pattern: str) -> Iterator[tuple[str, str]]:
    """Names and paths: those of braces as they are written, those of a `*` by the bytes of their names.

    Braces need not mean files that exist. A `*` may stand in the last part of the path only.
    """
    pattern = (local_path(pattern) if is_url(pattern) else None) or pattern
    if not is_url(pattern):
        literal = os.path.exists(pattern)  # noqa: PTH110 - whatever signs are in its name
        common = os.path.dirname(pattern if literal else _plain(pattern))  # noqa: PTH120
        for path in [pattern] if literal else _expanded(pattern, ""):
            yield display_path(os.path.relpath(path, common or ".")), path
        return
    path, mark, options = pattern.partition("?")
    common = _plain(path).rpartition("/")[0]
    for file in _expanded(path, mark + options):
        yield unquote(file[len(common) + 1 :]), file + mark + options


def check_file(where: str) -> None:
    """Raise UsageError, or InputError if nobody answers, unless it is a file that can be opened."""
    if is_url(where):
        from batchland.system.filesystems import check_remote_file

        return check_remote_file(where)
    with open_file(where):
        return None


def open_file(path: str) -> IO[bytes]:
    """A file of this machine, to be closed. Raises UsageError."""
    try:
        return open(path, "rb")
    except OSError as error:
        raise UsageError(f"{shown_pattern(path)}: cannot be opened ({error.strerror}); give a file") from error


def _plain(pattern: str) -> str:
    """What stands before the first special sign."""
    return re.split(r"[{*]", pattern, maxsplit=1)[0]


def _expanded(pattern: str, options: str) -> Iterator[str]:
    from braceexpand import braceexpand  # only who has patterns pays for it

    try:
        for path in braceexpand(pattern, escape=False):
            yield from _globbed(path, options) if "*" in path else [path]
    except ValueError:
        raise UsageError(f"{shown_pattern(pattern)}: its braces do not match; write NAME-{{000..099}}.tar") from None


def _globbed(path: str, options: str) -> list[str]:
    folder, slash, last = path.rpartition("/")
    names = [name for name in _names(folder, slash, options) if not name.startswith(".") and fnmatchcase(name, last)]
    if not names:
        raise UsageError(f"{shown_pattern(path)}: there is no such file")
    return [f"{folder}{slash}{name}" for name in sorted(names, key=os.fsencode)]


def _names(folder: str, slash: str, options: str) -> list[str]:
    if is_url(folder):
        from batchland.images.sources.remote import Remote

        return [quote(name) for name in Remote(folder + options).names()]
    try:
        return os.listdir(folder or slash or ".")
    except OSError as error:
        raise UsageError(f"{shown_pattern(folder)}: cannot be listed ({error.strerror}); give files") from error
