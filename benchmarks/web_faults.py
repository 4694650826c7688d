"""Web servers that break the rules: is each picture right, or a failed row? `python -m benchmarks.web_faults`."""

import argparse
import gzip
import os
import socket
import socketserver
import struct
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final

_THREADS: Final = 16
_RESET: Final = "reset"
Answer = list[bytes | float | str]
"""Blocks, seconds to wait between them, and resets of the connection."""


def _ok(body: bytes, *headers: str, length: int | None = None) -> bytes:
    lines = [f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join(["HTTP/1.1 200 OK", *lines, "", ""]).encode() + body


def _status(status: int, *headers: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status} Because", "Content-Length: 0", *headers, "", ""]).encode()


def _chunked(body: bytes, size: int | None = None, end: bytes = b"0\r\n\r\n", *headers: str) -> bytes:
    head = "\r\n".join(["HTTP/1.1 200 OK", "Transfer-Encoding: chunked", *headers, "", ""]).encode()
    return head + b"%x\r\n%s\r\n" % (len(body) if size is None else size, body) + end


def _other(body: bytes) -> bytes:
    """A picture of the same size that was not asked for."""
    return body[::-1]


Kind = Callable[[bytes, int], Answer]
"""The answer with the picture `body`; how often it was asked for before."""
KINDS: Final[dict[str, Kind]] = {
    "good": lambda body, _: [_ok(body)],
    "the answer twice": lambda body, _: [_ok(body) * 2],
    "another answer behind it": lambda body, _: [_ok(body) + _ok(_other(body))],
    "another answer 20 ms later": lambda body, _: [_ok(body), 0.02, _ok(_other(body))],
    "a length that is too small": lambda body, _: [_ok(body, length=len(body) - 9)],
    "a length that is too large": lambda body, _: [_ok(body, length=len(body) + 9)],
    "no length": lambda body, _: [b"HTTP/1.1 200 OK\r\n\r\n" + body],
    "two lengths": lambda body, _: [_ok(body, "Content-Length: 7")],
    "a length and chunks": lambda body, _: [_chunked(body, None, b"0\r\n\r\n", "Content-Length: 5")],
    "chunks": lambda body, _: [_chunked(body)],
    "chunks without an end": lambda body, _: [_chunked(body, end=b"")],
    "a chunk that is too long": lambda body, _: [_chunked(body, len(body) + 9)],
    "103 before it": lambda body, _: [b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + _ok(body)],
    "304 before it": lambda body, _: [b"HTTP/1.1 304 Not Modified\r\n\r\n" + _ok(body)],
    "503, then the picture": lambda body, asked: [_ok(body) if asked else _status(503) + _ok(_other(body))],
    "429 for a time that is no number": lambda body, asked: [_ok(body) if asked else _status(429, "Retry-After: soon")],
    "cut, then the picture": lambda body, asked: [_ok(body) if asked else _ok(body)[:-50]],
    "reset, then the picture": lambda body, asked: [_ok(body)] if asked else [_ok(body)[:60], _RESET],
    "no HTTP": lambda body, _: [b"SSH-2.0-OpenSSH_9.6\r\n" + body],
    "no headers": lambda body, _: [body],
    "gzip": lambda body, _: [_ok(gzip.compress(body), "Content-Encoding: gzip")],
    "gzip, cut": lambda body, _: [_ok(gzip.compress(body)[:-20], "Content-Encoding: gzip")],
    "gzip, cut at first": lambda body, asked: [
        _ok(gzip.compress(body)[: None if asked else -20], "Content-Encoding: gzip")
    ],
    "deflate": lambda body, _: [_ok(zlib.compress(body), "Content-Encoding: deflate")],
    "gzip that is none": lambda body, _: [_ok(body, "Content-Encoding: gzip")],
    "a page in place of the picture": lambda _, __: [_ok(b"<html>please log in</html>")],
    "200 headers": lambda body, _: [_ok(body, *(f"X-{number}: {'x' * 50}" for number in range(200)))],
    "byte by byte": lambda body, _: [
        _ok(body)[:-40],
        *(part for byte in body[-40:] for part in (0.001, bytes([byte]))),
    ],
}


_CLOSED: Final = (
    "a length that is too large", "no length", "chunks without an end", "a chunk that is too long", "no headers",
    "cut, then the picture",
)  # fmt: skip
"""The server ends the connection after the answer."""


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, name: str, bodies: dict[bytes, bytes]) -> None:
        self.kind, self.bodies, self.closes = KINDS[name], bodies, name in _CLOSED
        self.asked: Counter[bytes] = Counter()
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(socketserver.StreamRequestHandler):
    """Leaves the connection open for further requests, as far as the client allows it."""

    disable_nagle_algorithm = True
    server: _Server

    def handle(self) -> None:
        with suppress(OSError, ValueError):
            while line := self.rfile.readline():
                while self.rfile.readline().strip():
                    pass
                path = line.split()[1]
                asked, self.server.asked[path] = self.server.asked[path], self.server.asked[path] + 1
                for block in self.server.kind(self.server.bodies[path], asked):
                    if block == _RESET:
                        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        return
                    time.sleep(block) if isinstance(block, float) else self.wfile.write(block)
                if self.server.closes:
                    return


def measure(name: str, images: int) -> tuple[Counter[str], float]:
    """How many pictures were right, failed (by code) or wrong, and the seconds it took."""
    from batchland.errors import ImageError
    from batchland.images.sources.refs import read_image
    from batchland.images.sources.web import WebImages

    bodies = {b"/%d.jpg" % number: os.urandom(2000) for number in range(images)}
    with _Server(name, bodies) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        store = WebImages(private=True, backoff_seconds=0.01)
        refs = [store.ref(f"http://127.0.0.1:{server.server_address[1]}{path.decode()}") for path in bodies]

        others = {*bodies.values(), *map(_other, bodies.values())}

        def outcome(ref: Any, body: bytes) -> str:
            try:
                data = read_image(ref).data
            except ImageError as error:
                return error.code
            if data == body:
                return "right"
            return "another's" if data in others else "as sent"

        begin = time.monotonic()
        with ThreadPoolExecutor(_THREADS) as pool:
            found = Counter(pool.map(outcome, refs, bodies.values()))
        server.shutdown()
    return found, time.monotonic() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=500, help="of each kind")
    images = parser.parse_args().images
    print(f"{images} pictures of each kind, {_THREADS} threads\n")
    print("| the server sends | right | as sent | another's | failed | s |\n| --- | ---: | ---: | ---: | --- | ---: |")
    for name in KINDS:
        found, seconds = measure(name, images)
        numbers = [found.pop(each, 0) for each in ("right", "as sent", "another's")]
        codes = ", ".join(f"{code} {number}" for code, number in found.items())
        print("|", " | ".join(map(str, [name, *numbers, codes, f"{seconds:.1f}"])), "|", flush=True)


if __name__ == "__main__":
    main()
