"""Let two files or folders change places in one step, so that whoever opens one meanwhile finds the old or the new."""

import ctypes
import os
import sys
from pathlib import Path
from typing import Final

_AT_FDCWD: Final = -100
_RENAME_EXCHANGE: Final = 2
"""Linux's flag of renameat2 and, as RENAME_SWAP, macOS's of renamex_np."""


def exchange(left: Path, right: Path) -> bool:
    """Exchange two paths that exist, atomically. False, and nothing done, where the system or file system cannot."""
    libc = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "darwin":
        done = libc.renamex_np(os.fsencode(left), os.fsencode(right), _RENAME_EXCHANGE) == 0
    else:
        renameat2 = getattr(libc, "renameat2", None)  # glibc 2.28, musl 1.2.6
        if renameat2 is None:
            return False
        done = renameat2(_AT_FDCWD, os.fsencode(left), _AT_FDCWD, os.fsencode(right), _RENAME_EXCHANGE) == 0
    return bool(done)
