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
    """Make glibc keep freed memory, for the whole process. Does nothing with another C library.

    By default, glibc returns a picture's memory to the kernel, and the kernel clears every page for the next picture.
    That takes a third of the time of a thread that decodes photos.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _MAX_BLOCK)
        mallopt(_M_TRIM_THRESHOLD, _MAX_KEPT)
