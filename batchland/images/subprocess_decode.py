"""Decode images in subprocesses with limited memory and time, so that only a subprocess can crash or hang.

A subprocess decodes one image after the other, until one kills it: then the next image gets a new subprocess.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Never, Self

from batchland.errors import EngineError, ErrorCode
from batchland.images.batch import Loaded, Outcome, measured
from batchland.images.decoding_threads import begin_decoding
from batchland.images.loader import decode_image, load_image
from batchland.images.preprocess import PreprocessSpec
from batchland.images.sources.refs import ImageRef
from batchland.system.cores import usable_cores
from batchland.system.helper_process import HelperProcess

if TYPE_CHECKING:
    from multiprocessing.connection import Connection  # takes 20 ms to import

_BASE_BYTES: Final = 2 * 1024**3
_BYTES_PER_PIXEL: Final = 32
"""Address space of a subprocess: _BASE_BYTES for the interpreter, and this for each pixel of max_pixels, twice what the
worst picture needs."""
_WAIT_FACTOR: Final = 10
"""A decoder that uses no CPU time is killed after its limit of CPU seconds times this factor, in wall seconds."""
_START_SECONDS: Final = 60.0


class SubprocessDecoder:
    """Context manager. Its `load` works like `load_image`, in a subprocess that may crash. Thread-safe.

    timeout: CPU seconds that one image may take to decode. signals: also measure the pictures.
    """

    def __init__(self, timeout: float, *, signals: bool = False) -> None:
        self._timeout = timeout
        self._signals = signals
        self._idle: list[HelperProcess] = []
        self._free_cores = threading.Semaphore(usable_cores())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        while self._idle:
            self._idle.pop().close()

    def load(self, ref: ImageRef, spec: PreprocessSpec) -> Loaded:
        """See `load_image`. The error is `crashed` if the decoder crashes, and `timeout` if it exceeds its time limit.

        Raises EngineError if no subprocess can be started.
        """
        return load_image(ref, spec, self._decode)

    def _decode(self, data: bytes, spec: PreprocessSpec) -> Loaded:
        begin_decoding(isolated=True)
        with self._free_cores:
            for process in self._processes():
                try:
                    process.connection.send((data, spec, self._timeout, self._signals))
                    loaded: Loaded = process.connection.recv()
                except (EOFError, OSError):
                    problem, status = process.problem(), process.close()
                else:
                    self._idle.append(process)
                    return loaded
                if -status in (signal.SIGPROF, signal.SIGALRM):
                    return _failed("timeout", f"not decoded within {self._timeout:g} s")
        if status < 0:
            return _failed("crashed", f"its decoder was killed by {signal.Signals(-status).name}")
        raise EngineError(f"no subprocess can decode images: {problem}; finished parts are kept, run the command again")

    def _processes(self) -> Iterator[HelperProcess]:
        """An idle process, if there is one, and a new one, which shows whether the image or something else ended it."""
        with suppress(IndexError):
            yield self._idle.pop()
        yield _start()


def _start() -> HelperProcess:
    """A new process that is ready. Raises EngineError."""
    try:
        process = HelperProcess(__name__)
    except OSError as error:
        raise _cannot_start(error.strerror or str(error)) from error
    try:
        if process.connection.poll(_START_SECONDS):
            process.connection.recv()
            return process
    except (EOFError, OSError):  # it has ended
        pass
    problem = process.problem()
    process.close()
    raise _cannot_start(problem)


def _cannot_start(problem: str) -> EngineError:
    return EngineError(f"the subprocess that decodes images cannot be started: {problem}; run the command again")


def _failed(code: ErrorCode, message: str) -> Loaded:
    return Outcome(error=(code, message)), None


def serve(connection: "Connection") -> Never:
    """Run in a subprocess: decode each image that arrives."""
    for number in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    connection.send(None)  # ready
    while True:
        data, spec, timeout, signals = connection.recv()
        _limit_memory(_BASE_BYTES + _BYTES_PER_PIXEL * spec.max_pixels)
        _limit_time(timeout)
        outcome, pixels = decode_image(data, spec, signals=signals)
        _limit_time(0)
        connection.send((*measured([outcome]), pixels))


def _limit_memory(address_space: int) -> None:
    import resource

    with suppress(ValueError, OSError):  # macOS has no such limit
        resource.setrlimit(resource.RLIMIT_AS, (address_space, address_space))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _limit_time(cpu_seconds: float) -> None:
    """Let the kernel kill this process by SIGPROF or SIGALRM after that time; 0 for no limit."""
    signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
    signal.setitimer(signal.ITIMER_REAL, _WAIT_FACTOR * cpu_seconds)
