"""A second Python interpreter for work that threads of this process cannot do."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import Final, Never

_END_SECONDS: Final = 5.0
_STOPS: Final = (signal.SIGINT, signal.SIGTERM)
"""They reach a whole group of processes; a helper ignores them, because the process that started it decides."""
_CODE: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from batchland.system.helper_process import run; run(*sys.argv[2:])"
)


class HelperProcess:
    """Runs the function `serve` of a module, with the import path of this process, until `close`.

    module: `serve(connection, *descriptors)` gets the other end of `connection`, which is read until it raises
    EOFError. descriptors: of this process; they are inherited. Raises OSError if the process cannot start.
    """

    def __init__(self, module: str, descriptors: Sequence[int] = ()) -> None:
        from multiprocessing.connection import Pipe  # takes 20 ms

        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close
        self.connection, theirs = Pipe()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)  # inherited, until the helper ignores them
        try:
            with theirs:
                passed = (theirs.fileno(), *descriptors)
                self._process = subprocess.Popen(  # noqa: S603 - this very interpreter
                    [sys.executable, "-P", "-c", _CODE, json.dumps(sys.path), module, *map(str, passed)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=self._errors,
                    pass_fds=passed,
                    # OpenBLAS's threads would reserve gigabytes of address space
                    env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
                )
        except OSError:
            self.connection.close()
            self._errors.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def problem(self) -> str:
        """The last line that the helper wrote to stderr."""
        written = os.pread(self._errors.fileno(), 1 << 16, 0)  # seeking would move its position, too
        lines = written.decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it ended without a message"

    def close(self) -> int:
        """Wait until the helper ends, and kill it if that takes too long. Its exit status, or minus the signal."""
        self.connection.close()
        self._errors.close()
        try:
            return self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


def run(module: str, connection: str, *descriptors: str) -> Never:
    """Run in the helper: `serve` of that module, with these numbers of descriptors."""
    from multiprocessing.connection import Connection

    for number in _STOPS:
        signal.signal(number, signal.SIG_IGN)
    status = 0
    try:
        import_module(module).serve(Connection(int(connection)), *map(int, descriptors))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the other process has ended, or closed the connection
    except BaseException:
        traceback.print_exc()
        status = 1
    finally:
        sys.stderr.flush()
        os._exit(status)  # also while threads still run
