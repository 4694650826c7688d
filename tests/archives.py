"""Good and malicious archives, and a file server with configurable faults."""

import io
import stat
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from toys import picture

PHOTOS = {
    f"set/{split}/{folder}/{number}.jpg": picture((number, 0, 0))
    for split in ("train", "test")
    for folder in ("00.Red_Tower", "01.Green_Hill")
    for number in range(3)
}
"""A small data set, packed as archives often are: in one folder."""


def zip_of(files: dict[str, bytes], modes: dict[str, int] | None = None) -> bytes:
    """A zip archive; `modes` are Unix file modes, by name."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.filename = name  # as it is, "..", "\" and NUL included
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = (modes or {}).get(name, stat.S_IFREG | 0o644) << 16
            archive.writestr(info, content)
    return buffer.getvalue()


def tar_of(files: dict[str, bytes], *members: tarfile.TarInfo, compression: str = "gz") -> bytes:
    """A tar archive of the files and of the further, empty members."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=f"w:{compression}") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for member in members:
            archive.addfile(member)
    return buffer.getvalue()


@dataclass
class Manners:
    """How the server answers. `requests` holds the Range header of each request, or None."""

    content: bytes = b""
    etag: str | None = '"first"'
    ranges: bool = True
    """Whether it honours Range."""
    breaks_after: list[int] = field(default_factory=list)
    """Number of bytes after which the server closes the connection, one per request; later requests are complete."""
    statuses: list[int] = field(default_factory=list)
    """Error statuses, one for each request; then the file."""
    redirect: str | None = None
    length: bool = True
    """Whether it sends Content-Length."""
    requests: list[str | None] = field(default_factory=list)
    url: str = ""


@contextmanager
def server(content: bytes = b"") -> Iterator[Manners]:
    """A local server with one file, at `manners.url`."""
    manners = Manners(content)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            manners.requests.append(self.headers["Range"])
            if manners.redirect:
                self.send_response(302)
                self.send_header("Location", manners.redirect)
                self.end_headers()
                return
            if manners.statuses:
                self.send_error(manners.statuses.pop(0))
                return
            start = 0
            if self.headers["Range"] and manners.ranges and self.headers["If-Range"] == manners.etag:
                start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
                if start >= len(manners.content):
                    self.send_error(416)
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(manners.content) - 1}/{len(manners.content)}")
            else:
                self.send_response(200)
            if manners.length:
                self.send_header("Content-Length", str(len(manners.content) - start))
            if manners.etag:
                self.send_header("ETag", manners.etag)
            self.end_headers()
            stop = manners.breaks_after.pop(0) if manners.breaks_after else None
            self.wfile.write(manners.content[start:][:stop])

        def log_message(self, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    manners.url = f"http://127.0.0.1:{http.server_port}/photos/set.zip"
    try:
        yield manners
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


def files_below(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
