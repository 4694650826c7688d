"""Run Python programs in forks of a process that has imported batchland, because importing it takes most of their time.

Use it like `subprocess`. A test of how Python itself starts or ends needs `subprocess`.
"""

import atexit
import contextlib
import multiprocessing
import os
import runpy
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import IO, Any

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(
    ["batchland.cli.main", "batchland.nightly.runner", "batchland.scoring.engines.local", "batchland.scoring.score",
     "pyarrow.parquet"]
)  # fmt: skip


class Popen:
    """A running program, with text pipes for its standard streams. command: [sys.executable, ...]; its rest counts."""

    def __init__(self, command: list[Any], *, env: dict[str, str] | None = None, cwd: Path | None = None) -> None:
        (stdin, to_stdin), (from_stdout, stdout), (from_stderr, stderr) = (os.pipe() for _ in range(3))
        theirs = [Connection(stdin, writable=False), *(Connection(each, readable=False) for each in (stdout, stderr))]
        arguments = [os.fsdecode(each) for each in command[1:]]
        self._process = _forks.Process(
            target=_execute, args=(arguments, dict(os.environ if env is None else env), str(cwd or Path.cwd()), theirs)
        )
        self._process.start()
        for each in theirs:
            each.close()
        self.pid = self._process.pid
        self.stdin: IO[str] = os.fdopen(to_stdin, "w", encoding="utf-8")
        self.stdout: IO[str] = os.fdopen(from_stdout, encoding="utf-8", errors="backslashreplace")
        self.stderr: IO[str] = os.fdopen(from_stderr, encoding="utf-8", errors="backslashreplace")

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()

    def communicate(self, given: str = "") -> tuple[str, str]:
        """Write to stdin, and read the rest of what is printed until the program ends."""
        with ThreadPoolExecutor(2) as readers:
            printed = [readers.submit(stream.read) for stream in (self.stdout, self.stderr)]
            with contextlib.suppress(BrokenPipeError), self.stdin:
                self.stdin.write(given)
            out, errors = (each.result() for each in printed)
        self._process.join()
        self.stdout.close()
        self.stderr.close()
        return out, errors

    def __enter__(self) -> "Popen":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is not None:
            self.kill()
        if not self.stdout.closed:
            self.communicate()


def run(command: list[Any], given: str = "", **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program to its end."""
    with Popen(command, **options) as process:
        printed = process.communicate(given)
        return subprocess.CompletedProcess(command, process.returncode or 0, *printed)


def _execute(arguments: list[str], environment: dict[str, str], folder: str, streams: list[Connection]) -> None:
    """In the fork: `python ARGUMENTS`."""
    for number, stream in enumerate(streams):
        os.dup2(stream.fileno(), number)
    sys.stdin, sys.stdout, sys.stderr = (
        os.fdopen(number, mode, 1, encoding="utf-8", errors="surrogateescape", closefd=False)
        for number, mode in enumerate("rww")
    )
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    kind, *rest = arguments
    try:
        if kind == "-m":
            sys.argv = rest
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        elif kind == "-c":
            sys.argv = ["-c", *rest[1:]]
            exec(rest[0], {"__name__": "__main__"})
        else:
            sys.argv = arguments
            runpy.run_path(kind, run_name="__main__")
    finally:
        atexit._run_exitfuncs()
