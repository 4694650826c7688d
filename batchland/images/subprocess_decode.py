"""Decode images in subprocesses with limited memory and time, so that only a subprocess can crash or hang.

    this process    image and limits  ->  server         a new interpreter, started with the first image
                                          supervisor     forked from it for the image: waits for the decoder
    this process    <-  pixels            decoder        forked from it: decodes the image, or is killed
    this process    <-  exit status       supervisor

Forking a server that has everything imported takes a few milliseconds; this process itself cannot fork, because it has
threads. Nothing is pickled: images travel as bytes, facts as one line of JSON, pixels raw.
"""

import json
import os
import signal
import socket
import struct
import threading
import traceback
from contextlib import suppress
from typing import Final, Never, Self

import numpy as np

from batchland.errors import EngineError
from batchland.images.batch import Loaded, Outcome, measured
from batchland.images.decoding_threads import begin_decoding
from batchland.images.loader import decode_image, load_image
from batchland.images.preprocess import Pixels, PreprocessSpec
from batchland.images.sources.refs import ImageRef
from batchland.system.helper_process import HelperProcess

_BASE_BYTES: Final = 2 * 1024**3
_BYTES_PER_PIXEL: Final = 32
"""Address space of a decoder: _BASE_BYTES for the interpreter, and this for each pixel of max_pixels, twice what the
worst picture needs."""
_WAIT_FACTOR: Final = 10
"""A decoder that uses no CPU time is killed after its limit of CPU seconds times this factor, in wall seconds."""
_START_SECONDS: Final = 60.0
_STATUS: Final = struct.Struct("<i")
_SERVER: Final = "from batchland.images.subprocess_decode import serve; serve(int(sys.argv[2]))"


class SubprocessDecoder:
    """Context manager. Its `load` works like `load_image`, in a subprocess that may crash. Thread-safe.

    timeout: CPU seconds that one image may take to decode. signals: also measure the pictures.
    """

    def __init__(self, timeout: float, *, signals: bool = False) -> None:
        self._timeout = timeout
        self._signals = signals
        self._lock = threading.Lock()
        self._server: _Server | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        with self._lock:
            if self._server is not None:
                self._server.close()
                self._server = None

    def load(self, ref: ImageRef, spec: PreprocessSpec) -> Loaded:
        """See `load_image`. The error is `crashed` if the decoder crashes, and `timeout` if it exceeds its time limit.

        Raises EngineError if no subprocess can be started.
        """
        return load_image(ref, spec, self._decode)

    def _decode(self, data: bytes, spec: PreprocessSpec) -> tuple[Outcome, Pixels | None]:
        begin_decoding(isolated=True)
        settings = {"timeout": self._timeout, "signals": self._signals, "spec": spec.model_dump(mode="json")}
        request = json.dumps(settings).encode() + b"\n" + data
        reply, status = self._answer(request)
        if os.WIFSIGNALED(status):
            number = signal.Signals(os.WTERMSIG(status))
            if number in (signal.SIGPROF, signal.SIGALRM):
                return Outcome(error=("timeout", f"not decoded within {self._timeout:g} s")), None
            return Outcome(error=("crashed", f"its decoder was killed by {number.name}")), None
        facts, _, raw = reply.partition(b"\n")
        outcome = Outcome(**json.loads(facts))
        if outcome.error is not None:
            return outcome._replace(error=(outcome.error[0], outcome.error[1])), None
        if isinstance(outcome.signals, str):
            outcome = outcome._replace(signals=bytes.fromhex(outcome.signals))
        return outcome, np.frombuffer(raw, np.uint8).reshape(spec.shape)

    def _answer(self, request: bytes) -> tuple[bytes, int]:
        """A decoder's reply and wait status. Raises EngineError. The server may have been killed: then another one."""
        for _ in range(2):
            with self._lock:
                self._server = server = self._server or _Server()
            answer = server.ask(request)
            if answer is not None and (os.WIFSIGNALED(answer[1]) or answer[1] == 0):
                return answer
            problem = server.problem()
            with self._lock:
                if self._server is server:
                    server.close()
                    self._server = None
        raise EngineError(f"no subprocess can decode images: {problem}; finished parts are kept, run the command again")


class _Server:
    """The server process. Raises EngineError if it does not start."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair()
        self._helper: HelperProcess | None = None
        try:
            with theirs:
                self._helper = HelperProcess(_SERVER, [theirs.fileno()])
            self._control.settimeout(_START_SECONDS)
            started = self._control.recv(1) == b"\n"
            self._control.settimeout(None)
            problem = self.problem()
        except OSError as error:
            started, problem = False, error.strerror or str(error)
        if not started:
            self.close()
            raise EngineError(f"the subprocess that decodes images cannot be started: {problem}; run the command again")

    def ask(self, request: bytes) -> tuple[bytes, int] | None:
        """A decoder's reply and wait status. None if the server has died or cannot fork."""
        ours, theirs = socket.socketpair()
        with ours:
            try:
                with theirs:
                    socket.send_fds(self._control, [b"\n"], [theirs.fileno()])
                with suppress(
                    BrokenPipeError, ConnectionResetError
                ):  # the decoder crashed before it had read everything
                    ours.sendall(request)
                    ours.shutdown(socket.SHUT_WR)
                answer = _read_all(ours)
            except OSError:
                return None
        if len(answer) < _STATUS.size:
            return None
        return answer[: -_STATUS.size], _STATUS.unpack(answer[-_STATUS.size :])[0]

    def problem(self) -> str:
        """The last line that the server has written to stderr."""
        assert self._helper is not None, "it has started"
        return self._helper.problem()

    def close(self) -> None:
        """End the server. Decoders at work end by themselves."""
        self._control.close()  # the server ends when it reads the end of it
        if self._helper is not None:
            self._helper.close()


def serve(control_fd: int) -> None:
    """Run in the server: fork a supervisor for each connection that arrives, until the other process closes control."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the other process decides
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no zombies
    control = socket.socket(fileno=control_fd)
    control.sendall(b"\n")
    while True:
        _, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        if not descriptors:
            return
        try:
            forked = os.fork()
        except OSError:  # the other process reads the end of the connection
            traceback.print_exc()
            forked = -1
        if forked == 0:
            control.close()
            _supervise(socket.socket(fileno=descriptors[0]))
        os.close(descriptors[0])


def _supervise(connection: socket.socket) -> Never:
    """Run in a supervisor: fork a decoder, and send its wait status behind its reply."""
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        decoder = os.fork()
        if decoder == 0:
            _decode_request(connection)
        _, status = os.waitpid(decoder, 0)
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RD)  # then sending to a crashed decoder raises an error
        connection.sendall(_STATUS.pack(status))
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)


def _decode_request(connection: socket.socket) -> Never:
    """Run in a decoder: reply with one line of JSON and the raw pixels."""
    code = 1
    try:
        settings, _, data = _read_all(connection).partition(b"\n")
        given = json.loads(settings)
        spec = PreprocessSpec.model_validate(given["spec"])
        _limit(_BASE_BYTES + _BYTES_PER_PIXEL * spec.max_pixels, given["timeout"])
        outcome, pixels = decode_image(data, spec, signals=given["signals"])
        facts = json.dumps(measured([outcome])[0]._asdict(), default=bytes.hex)
        connection.sendall(facts.encode() + b"\n" + (b"" if pixels is None else pixels.tobytes()))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _limit(memory: int, cpu_seconds: float) -> None:
    """Bytes of address space; seconds after which the kernel kills this process by SIGPROF or SIGALRM."""
    import resource

    with suppress(ValueError, OSError):  # macOS has no such limit
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
    signal.setitimer(signal.ITIMER_REAL, _WAIT_FACTOR * cpu_seconds)


def _read_all(connection: socket.socket) -> bytes:
    chunks = []
    while chunk := connection.recv(1 << 20):
        chunks.append(chunk)
    return b"".join(chunks)
