"""Silence C libraries that write to stderr."""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_one_at_a_time: Final = threading.Lock()


@contextmanager
def silence_stderr() -> Iterator[None]:
    """Redirect file descriptor 2 to /dev/null. One thread at a time; the others wait."""
    sys.stderr.flush()
    with _one_at_a_time:
        kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            os.close(nothing)
