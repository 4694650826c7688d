"""The cache and state folders of this user, and new folders that appear whole."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import platformdirs

from batchland.errors import OutputError, UsageError
from batchland.system.files import cannot_write, remove, sync
from batchland.system.lock import locked

_LOST: Final = "lost+found"


def cache_folder() -> Path:
    """Folder for files that may be deleted: `batchland` in $XDG_CACHE_HOME or ~/.cache (macOS: ~/Library/Caches)."""
    return platformdirs.user_cache_path("batchland", appauthor=False)


def state_folder() -> Path:
    """Folder for the state of this machine: `batchland` in $XDG_STATE_HOME, by default ~/.local/state.

    On macOS the default is ~/Library/Application Support.
    """
    return platformdirs.user_state_path("batchland", appauthor=False)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """An empty folder `.NAME.new` beside `path`, which becomes `path` at the end; if the body raises, it is removed.

    If nothing can be put beside `path` (it is a mount point, or its parent cannot be written), an empty folder `path`
    is filled itself, and emptied if the body raises. A link is followed. The folder lost+found of a new file system
    counts as nothing, and stays.

    Raises UsageError if `path` exists and is not an empty folder, LockedError if another process is making it,
    OutputError if it cannot be written.
    """
    target = Path(os.path.realpath(path) if path.is_symlink() else os.path.abspath(path))  # noqa: PTH100 - keeps links
    try:
        if path.exists() and not (path.is_dir() and all(each.name == _LOST for each in path.iterdir())):
            raise UsageError(f"{path}: exists and is not an empty folder; give a new one")
        beside = not target.is_mount() and os.access(target.parent, os.W_OK) and not (target / _LOST).exists()
        fixed = path.exists() and not beside
        with _filled(target, str(path)) if fixed else _made_beside(target, str(path)) as folder:
            yield folder
    except OSError as error:
        raise OutputError(cannot_write(path, error)) from error


@contextmanager
def _made_beside(target: Path, name: str) -> Iterator[Path]:
    """A new folder that replaces `target`."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.new")
    with locked(temporary.with_suffix(".lock"), name):
        remove(temporary)  # left by a killed process
        try:
            temporary.mkdir()
            yield temporary
            temporary.replace(target)
            sync(target.parent)
        finally:
            with suppress(OSError):
                remove(temporary)


@contextmanager
def _filled(target: Path, name: str) -> Iterator[Path]:
    """The empty folder `target`, emptied if the body raises."""
    with locked(target / ".new.lock", name):
        try:
            yield target
            sync(target)
        except BaseException:
            for path in target.iterdir():
                with suppress(OSError):
                    if path.name != _LOST:
                        remove(path)
            raise
