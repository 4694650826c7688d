"""A while in which libraries cannot write to the terminal past Python, for those that do and have nothing to say."""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_one_at_a_time: Final = threading.Lock()


@contextmanager
def muted() -> Iterator[None]:
    """Context in which nothing of this process reaches stderr. One thread at a time, the others wait."""
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
