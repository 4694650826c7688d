"""Write files. A reader sees either the old content or all of the new one, and links that others made are not followed.

All files that batchland writes to a local disk are opened here.
"""

import contextlib
import ctypes
import errno
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from batchland.errors import BatchlandError, InputError, OutputError, UsageError
from batchland.system.retries import storage_failed
from batchland.system.text import reason

Content = str | bytes | Callable[[BinaryIO], object]
"""Content of a file: text (stored as UTF-8), bytes, or a function that writes to an open file."""

_LEFTOVER: Final = re.compile(r"\..*\.[0-9a-f]{16}\.new")
_LEFTOVER_SECONDS: Final = 3600.0
"""A temporary file of this age belongs to a killed process."""
_AT_FDCWD: Final = -100
_RENAME_EXCHANGE: Final = 2
"""Flag of Linux's renameat2; macOS's renamex_np has the same value as RENAME_SWAP."""


def open_new(path: Path) -> BinaryIO:
    """Create a file and open it for writing. Raises FileExistsError if the name exists, also as a dangling link.

    Raises OSError (ELOOP) if a folder above it is a link that another user may have planted.
    """
    _check_folders(path)
    return path.open("xb")  # O_EXCL follows no link


def open_existing(path: Path, flags: int) -> int:
    """Open a file for writing, or create it, and return its descriptor. Never truncates.

    flags: os.O_WRONLY or os.O_RDWR, and os.O_APPEND. Raises OSError (ELOOP) if the file is a symbolic link, has a
    second name (a hard link), or is not a regular file. Somebody may have made it so that another file is overwritten.
    """
    _check_folders(path)
    flags |= os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o644)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # a symbolic link; a FIFO without a reader
            raise _not_ours(path) from error
        raise
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        os.close(descriptor)
        raise _not_ours(path)
    return descriptor


def _check_folders(path: Path) -> None:
    """Raise OSError for a link to a folder in one that everybody can write, unless its owner or this user made it.

    Like Linux's fs.protected_symlinks, which may be off, and which holds only in folders with the sticky bit.
    """
    for folder in path.absolute().parents:
        link = folder.lstat()
        if stat.S_ISLNK(link.st_mode):
            above = folder.parent.stat()
            if above.st_mode & stat.S_IWOTH and link.st_uid not in (os.geteuid(), above.st_uid):
                raise OSError(errno.ELOOP, f"{folder} is a link of another user; remove it", str(path))


def _not_ours(path: Path) -> OSError:
    return OSError(errno.ELOOP, f"{path.name} is a link or not a regular file; remove it", str(path))


def replace_file(path: Path, content: Content, *, scratch: Path | None = None) -> None:
    """Write a temporary file, fsync it, rename it to `path`, and fsync the folder. Raises OSError.

    The temporary file is beside `path`, or in the folder `scratch` on the same file system. If this fails, nothing is
    left behind and `path` is as before (unless the last fsync fails).
    """
    # Only 50 characters of the name, so that the temporary name is not too long.
    temporary = (scratch or path.parent) / f".{path.name[:50]}.{secrets.token_hex(8)}.new"
    with open_new(temporary) as file, _removed_on_error(temporary):
        if callable(content):
            content(file)
        else:
            file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
        file.close()  # a network file system may report a failed write only now
        temporary.replace(path)
    sync(path.parent)


def write_file(path: Path, content: Content) -> None:
    """`replace_file` that makes missing folders. Raises OutputError."""
    with _output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, content)


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A path in a private folder beside `path`; the file that the body writes there becomes `path` at the end.

    For writers that need a path; `write_file` serves all others. If the body raises, nothing is left behind and `path`
    is as before. Raises OutputError.
    """
    with _output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _check_folders(path)
        with tempfile.TemporaryDirectory(prefix=".", dir=path.parent) as folder:  # of mode 0700
            temporary = Path(folder, path.name)
            yield temporary
            sync(temporary)
            temporary.replace(path)
        sync(path.parent)


def is_leftover(name: str) -> bool:
    """Whether a file of that name is a temporary file of `replace_file`."""
    return _LEFTOVER.fullmatch(name) is not None


def remove_leftovers(folder: Path, locked: str | None = None) -> None:
    """Remove temporary files that killed processes left directly in `folder`.

    locked: the name of a file that only the caller may write now, so that its temporary files may be of any age.
    """
    for path in folder.iterdir():
        with contextlib.suppress(OSError):
            is_dead = locked is not None and path.name.startswith(f".{locked}.")
            if is_leftover(path.name) and (is_dead or time.time() - path.lstat().st_mtime > _LEFTOVER_SECONDS):
                path.unlink()


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with all that is in it, if it is there. Raises OSError."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def swap(left: Path, right: Path) -> bool:
    """Swap two existing files or folders atomically. Returns False, without a change, if the system cannot."""
    libc = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "darwin":
        done = libc.renamex_np(os.fsencode(left), os.fsencode(right), _RENAME_EXCHANGE) == 0
    else:
        renameat2 = getattr(libc, "renameat2", None)  # glibc 2.28, musl 1.2.6
        if renameat2 is None:
            return False
        done = renameat2(_AT_FDCWD, os.fsencode(left), _AT_FDCWD, os.fsencode(right), _RENAME_EXCHANGE) == 0
    return bool(done)


def sync(path: Path) -> None:
    """fsync a file or a folder. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems cannot sync folders
            raise
    finally:
        os.close(descriptor)


class Replaceable(NamedTuple):
    """The existing files that a result may replace."""

    what: str
    """Description for messages: `an earlier page of ...`."""
    test: Callable[[Path], bool]
    """Whether a result may replace this existing file."""


def check_new_file(
    path: Path,
    suffix: str,
    reads: Iterable[Path] = (),
    *,
    replaces: Replaceable | None = None,
    overwrite: bool = False,
) -> None:
    """Check, before a long computation, that its result can be written to `path`.

    suffix: the required end of the name. reads: files that the computation reads; `path` must not be one of them.
    replaces: existing files that may be replaced, besides empty ones; None means all. overwrite: replace any file.
    Raises UsageError, or OutputError if nothing can be written there.
    """
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; give the name of a file that ends in {suffix}")
    if path.suffix.lower() != suffix:
        raise UsageError(f"{path}: give a name that ends in {suffix}")
    check_no_input(path, reads)
    if replaces and not overwrite and path.exists() and path.stat().st_size and not replaces.test(path):
        raise UsageError(f"{path}: exists and is not {replaces.what}; give another name", advice="overwrite")
    check_writable(path)


def check_no_input(path: Path, reads: Iterable[Path]) -> None:
    """Raise UsageError if `path`, a file or folder to be written, is one of those that the computation reads."""
    if any(path.exists() and each.exists() and path.samefile(each) for each in reads):
        raise UsageError(f"{path}: is an input and would be replaced; give another name")


def check_writable(path: Path) -> None:
    """Raise OutputError unless files can be made in the folder `path`, or in the nearest existing folder above it."""
    with _output_errors(path):
        folder = path if path.is_dir() else next(parent for parent in path.absolute().parents if parent.exists())
        with tempfile.TemporaryFile(dir=folder):
            pass


def read_error(
    error: Exception,
    name: str,
    remedy: str = "check it",
    *,
    expected: str = "",
    wrong: type[BatchlandError] = UsageError,
) -> BatchlandError:
    """Convert an OSError or an Arrow error from reading the file `name` to an error of batchland.

    It is an InputError if the storage failed, and `wrong` if the file is missing, damaged or not readable for this
    user. remedy: what to do about a damaged file. expected: what to give instead of a missing file.
    """
    reason = (getattr(error, "strerror", None) or str(error)).partition("\n")[0]
    if not isinstance(error, OSError) or error.errno is None:  # Arrow's errors about content have no errno
        return wrong(f"{name}: cannot be read as Parquet ({reason}); {remedy}")
    if not error.filename:  # an error of Arrow, with Arrow's text
        reason = os.strerror(error.errno)
    if storage_failed(error):
        return InputError(f"{name}: cannot be read ({reason}); check the storage, then run the same command again")
    return wrong(f"{name}: cannot be read ({reason}){f'; give {expected}' if expected else ''}")


@contextlib.contextmanager
def _removed_on_error(path: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink()
        raise


def write_remedy(error: Exception) -> str:
    """What a person can do about a failed write."""
    number = getattr(error, "errno", None)
    if number == errno.EROFS:
        return "mount a folder there, or write elsewhere"
    if number in (errno.EACCES, errno.EPERM):
        return f"give user {os.geteuid()} the right to write there, or write elsewhere"
    full = number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return "free some space, or write elsewhere" if full else "write elsewhere"


def cannot_write(path: Path, error: Exception) -> str:
    """The message of a failed write: where, why, and what to do."""
    return f"{path}: cannot be written ({reason(error)}); {write_remedy(error)}"


@contextlib.contextmanager
def _output_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(cannot_write(path, error)) from error
