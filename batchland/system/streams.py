"""Handle standard streams that are closed or fail, and C libraries that write to stderr."""

import errno
import os
import select
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

STORAGE_ERRORS: Final = frozenset(
    (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.ESTALE, errno.ETIMEDOUT, errno.ENODEV)
)
"""Errors caused by a disk or a network mount, not by the program."""

_one_at_a_time: Final = threading.Lock()


def open_standard_streams() -> None:
    """Open /dev/null for each of stdin, stdout and stderr that is closed, and let streams escape characters.

    Without that, the next opened file would become standard error, and messages would be written into it. Characters
    that the terminal's encoding lacks (in the POSIX locale, all except ASCII) are printed as escapes.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if descriptor == 0 else "w", encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def drop_broken_stdout() -> bool:
    """Whether stdout can be written. If not, drop the buffered text, because Python would fail at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        nothing = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        os.dup2(nothing, sys.stdout.fileno())
        os.close(nothing)
        return False
    return True


def stdout_has_reader() -> bool:
    """Whether stdout is no pipe, or a pipe that another process still reads. `head` stops reading."""
    pipes = select.poll()
    pipes.register(1, 0)
    return not pipes.poll(0)


@contextmanager
def silence_stderr() -> Iterator[None]:
    """Redirect file descriptor 2 to /dev/null. One thread at a time; the others wait."""
    if sys.stderr is not None:
        sys.stderr.flush()
    with _one_at_a_time:
        try:
            kept = os.dup(2)
        except OSError:  # closed: nothing to redirect
            yield
            return
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            os.close(nothing)
