"""A second Python interpreter for work that threads of this process cannot do."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Final

_END_SECONDS: Final = 5.0
_PREPARE: Final = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "


class HelperProcess:
    """Runs `code` with the import path of this process. The code must end when its descriptors are closed here.

    code: it inherits `descriptors`; their numbers are in `sys.argv[2:]`. Raises OSError if it cannot start.
    """

    def __init__(self, code: str, descriptors: Sequence[int]) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close
        try:
            self._process = subprocess.Popen(  # noqa: S603 - this very interpreter
                [sys.executable, "-P", "-c", _PREPARE + code, json.dumps(sys.path), *map(str, descriptors)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                pass_fds=descriptors,
                # OpenBLAS's threads would reserve gigabytes of address space
                env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
            )
        except OSError:
            self._errors.close()
            raise

    def problem(self) -> str:
        """The last line that the helper wrote to stderr."""
        written = os.pread(self._errors.fileno(), 1 << 16, 0)  # seeking would move its position, too
        lines = written.decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it ended without a message"

    def close(self) -> None:
        """Wait until the helper ends, and kill it if that takes too long."""
        self._errors.close()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
