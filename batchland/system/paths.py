"""Absolute paths of the local file system."""

import os
from pathlib import Path

from batchland.errors import UsageError


def resolved(path: str | os.PathLike[str]) -> Path:
    """The absolute path, with links followed. A loop of links stays in it, so that opening the path raises OSError.

    Path.resolve raises RuntimeError for a loop, before Python 3.13.
    """
    return Path(os.path.realpath(path))


def require_current_folder() -> None:
    """Raise UsageError if the current folder was removed: relative paths then name nothing."""
    try:
        os.getcwd()  # noqa: PTH109 - Path.cwd does the same
    except OSError as error:
        raise UsageError("the current folder does not exist any more; change to one that exists") from error
