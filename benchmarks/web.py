"""Images by http and https from a server on this machine that answers after a delay: `python -m benchmarks.web`."""

import argparse
import asyncio
import multiprocessing
import os
import ssl
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

_IMAGES = 2000
_BYTES = 60_000
_THREADS = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--round-trip", type=float, default=0, metavar="MS",
        help="the server waits so long for each request, once more on a new connection, twice with TLS",
    )  # fmt: skip
    trip = parser.parse_args().round_trip / 1000
    with tempfile.TemporaryDirectory() as folder:
        _certificates(Path(folder))
        os.environ["SSL_CERT_FILE"] = f"{folder}/authority.pem"
        ports: multiprocessing.Queue[int] = multiprocessing.Queue()
        server = multiprocessing.Process(
            target=lambda: asyncio.run(_serve(f"{folder}/server.pem", trip, ports)), daemon=True
        )
        server.start()
        for scheme in ("http", "https"):
            port = ports.get()
            for delay in (0, 10, 30):
                print(f"{scheme}, answers after {delay} ms: {_measure(f'{scheme}://127.0.0.1:{port}/{delay}')}")
        server.kill()


def _measure(folder: str) -> str:
    from batchland.images.sources.refs import read_image
    from batchland.images.sources.web import WebImages

    images = WebImages(private=True)
    refs = [images.ref(f"{folder}/{number}.jpg") for number in range(_IMAGES)]
    start, before = time.monotonic(), time.process_time()
    with ThreadPoolExecutor(_THREADS) as pool:
        assert all(len(image.data) == _BYTES for image in pool.map(read_image, refs))
    return f"{time.monotonic() - start:.1f} s, {time.process_time() - before:.1f} CPU s of the client"


async def _serve(certificate: str, trip: float, ports: Any) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    for trips, tls in ((1, None), (2, context)):
        server = await asyncio.start_server(_handler(trip, trips), "127.0.0.1", 0, ssl=tls)
        ports.put(server.sockets[0].getsockname()[1])
    await asyncio.Event().wait()


def _handler(trip: float, trips: int) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]:
    """trips: round trips that a new connection takes."""
    body = os.urandom(_BYTES)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wait, keep = trip * trips, True
        while keep and (line := await reader.readline()):
            while (header := await reader.readline()).strip():
                keep = keep and header.lower().strip() != b"connection: close"
            await asyncio.sleep(wait + trip + int(line.split()[1].split(b"/")[1]) / 1000)
            wait = 0
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % _BYTES + body)
            await writer.drain()
        writer.close()

    return handle


def _certificates(folder: Path) -> None:
    import trustme

    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))


if __name__ == "__main__":
    main()
