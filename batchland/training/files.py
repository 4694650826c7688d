"""Write a file so that a reader sees the old one or the whole new one, never half. Knows nothing of what is in it."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from batchland.errors import OutputError


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


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
