"""Let the process keep freed memory, because getting it from the kernel again costs more than decoding a photo."""

import ctypes
import sys
from functools import cache
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_MAX_BLOCK: Final = 32 << 20
"""Bytes. Larger blocks are returned to the kernel at once; glibc allows no more."""
_MAX_KEPT: Final = 64 << 20
"""Bytes that each of glibc's arenas (about one per thread) keeps at its end."""


@cache
def keep_freed_memory() -> None:
    """Have glibc keep what is freed, for the whole process. Does nothing where the C library is another one.

    By default, glibc returns a picture's memory when it is freed, and the kernel clears every page of the next one. In
    a thread that decodes photos, that took a third of its time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _MAX_BLOCK)
        mallopt(_M_TRIM_THRESHOLD, _MAX_KEPT)
