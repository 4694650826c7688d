"""Write a file or folder so that a reader sees the old or the whole new one, never half. Knows nothing of contents."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from batchland.errors import OutputError, UsageError
from batchland.system.lock import locked


def cache_folder() -> Path:
    """`batchland` in $XDG_CACHE_HOME or ~/.cache: what can be made again."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "batchland"


def publish(path: Path, write: Callable[[Path], object]) -> None:
    """Have `write` make a temporary file beside `path`, then fsync it and rename it to `path`.

    If `write` raises, nothing stays and `path` is as before. Raises OutputError if the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def check_new_file(path: Path, suffix: str, reads: Iterable[Path] = ()) -> None:
    """Whether work may begin whose result becomes the file `path`, of that suffix and none of what it reads.

    Raises UsageError, or OutputError if nothing can be written there.
    """
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; give the name of a file that ends in {suffix}")
    if path.suffix.lower() != suffix:
        raise UsageError(f"{path}: give a name that ends in {suffix}")
    if any(path.exists() and each.exists() and path.samefile(each) for each in reads):
        raise UsageError(f"{path}: is to be read and would be replaced; give another name")
    check_writable(path)


def check_writable(path: Path) -> None:
    """Raise OutputError if nothing can be made where `path` is, or is to be."""
    folder = path if path.is_dir() else next(parent for parent in path.absolute().parents if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror})") from error


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """An empty folder `.NAME.new` beside `path`, which becomes `path` at the end; if the body raises, nothing stays.

    Raises UsageError if `path` exists and is not an empty folder, LockedError if another process is making it,
    OutputError if it cannot be written.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise UsageError(f"{path}: exists and is not an empty folder; give a new one, or delete it first")
    target = Path(os.path.abspath(path))  # noqa: PTH100 - keeps links as they are
    temporary = target.with_name(f".{target.name}.new")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(temporary.with_suffix(".lock"), str(path)):
            shutil.rmtree(temporary, ignore_errors=True)  # what a killed process has left
            try:
                temporary.mkdir()
                yield temporary
                temporary.replace(target)
                _sync(target.parent)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from error


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
