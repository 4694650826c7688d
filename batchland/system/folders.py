"""The cache and state folders of this user, and new folders that appear whole."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import platformdirs

from batchland.errors import OutputError, UsageError
from batchland.system.files import remove, sync
from batchland.system.lock import locked


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

    Raises UsageError if `path` exists and is not an empty folder, LockedError if another process is making it,
    OutputError if it cannot be written.
    """
    target = Path(os.path.abspath(path))  # noqa: PTH100 - keeps links as they are
    temporary = target.with_name(f".{target.name}.new")
    try:
        if path.exists() and not (path.is_dir() and not any(path.iterdir())):
            raise UsageError(f"{path}: exists and is not an empty folder; give a new one, or delete it first")
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(temporary.with_suffix(".lock"), str(path)):
            remove(temporary)  # left by a killed process
            try:
                temporary.mkdir()
                yield temporary
                temporary.replace(target)
                sync(target.parent)
            finally:
                with suppress(OSError):
                    remove(temporary)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from error
